package report

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Main runs a program until it ends or is interrupted, and ends the process, with
// status 1 and a line on standard error if it fails. run gets the arguments behind the
// program's name.
func Main(name string, run func(ctx context.Context, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Command is how a program of this module was called, without what is of this machine
// only.
func Command(name string, args []string) string {
	words := []string{"go run ./" + name}
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		switch name {
		case "postgres", "program", "results":
			words = append(words, "-"+name+" ...")
			if !joined {
				i++
			}
		default:
			words = append(words, args[i])
		}
	}
	return strings.Join(words, " ")
}

// Publish prints a section and writes it into the Markdown file at path, unless that is
// "-". began is when the program did.
func Publish(path, name, text string, began time.Time) error {
	fmt.Println(text)
	if path == "-" {
		return nil
	}
	if err := WriteSection(path, name, text); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "wrote %s, %v after the start\n", path, time.Since(began).Round(time.Second))
	return nil
}
