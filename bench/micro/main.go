// Command micro compares parts of Isekai with libraries that do the same, by the
// benchmarks beside it and the statistics of benchstat, and writes what it found into
// RESULTS.md.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

func main() { report.Main("micro", run) }

// settings is how much is measured.
type settings struct {
	rounds int
	time   time.Duration
	match  string
}

// leastRounds is what a median needs for bounds that are 95 % certain.
const leastRounds = 6

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("micro", flag.ContinueOnError)
	var s settings
	flags.IntVar(&s.rounds, "count", 8, "how often every benchmark is run; below 6, there are no bounds")
	flags.DurationVar(&s.time, "time", 200*time.Millisecond, "how long each is run")
	flags.StringVar(&s.match, "bench", ".", "the benchmarks that are run, as for go test")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if s.rounds < 1 || s.time <= 0 {
		return errors.New("-count must be at least 1, -time above 0")
	}
	info := runInfo{command: report.Command("micro", args), began: time.Now(), load: report.Load()}
	text, err := measure(ctx, s)
	if err != nil {
		return err
	}
	all, err := parse(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no benchmark matches %q", s.match)
	}
	return report.Publish(*results, "micro", render(s, all, info), info.began)
}

// measure runs the benchmarks of this package so many times, all of them in each round:
// what is compared was measured minutes apart at most.
func measure(ctx context.Context, s settings) ([]byte, error) {
	dir, err := os.MkdirTemp("", "isekai-bench-micro-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "micro.test")
	const self = "github.com/isekai-gateway/isekai/bench/micro"
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags=nobadger,nomysql,nopgx", "-o", program, self) //nolint:gosec // in a folder of this run's own
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the benchmarks; this program is to be run in its folder bench: %w\n%s", err, out)
	}
	var all bytes.Buffer
	for round := range s.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, s.rounds)
		cmd := exec.CommandContext(ctx, program, "-test.run=^$", "-test.bench="+s.match, //nolint:gosec // built above
			"-test.benchmem", "-test.benchtime="+s.time.String(), "-test.timeout=30m")
		cmd.Dir = dir
		var stderr bytes.Buffer
		before := all.Len()
		cmd.Stdout, cmd.Stderr = &all, &stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("running the benchmarks: %w\n%s%s", err, all.Bytes()[before:], stderr.Bytes())
		}
	}
	return all.Bytes(), nil
}
