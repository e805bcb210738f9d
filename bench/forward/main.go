// Command forward measures what forwarding a request costs in Isekai and in other
// proxies, all in one run, and writes what it found into RESULTS.md and a plot.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

func main() { peers.Main("forward", run) }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("forward", flag.ContinueOnError)
	var s settings
	flags.IntVar(&s.rounds, "rounds", 5, "how often everything is measured")
	flags.DurationVar(&s.time, "time", 2*time.Second, "how long each is measured in a round")
	flags.DurationVar(&s.warm, "warm", 300*time.Millisecond, "how long each is loaded before that")
	flags.StringVar(&s.program, "program", "", "Caddy with Isekai linked in; built if empty")
	flags.StringVar(&s.postgres, "postgres", "", "DSN of an empty PostgreSQL database, for one more row")
	only := flags.String("only", "", "measure only the peers with one of these texts, separated by commas, in their name, and Caddy")
	which := flags.String("scenarios", "", "measure only the scenarios with one of these texts, separated by commas, in their name")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, with the plot forward.svg beside it, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if s.rounds < 1 || s.time <= 0 || s.warm <= 0 {
		return errors.New("-rounds must be at least 1, -time and -warm above 0")
	}
	todo := slices.DeleteFunc(scenarios(), func(sc scenario) bool { return !matches(sc.name, *which) })
	if len(todo) == 0 {
		return fmt.Errorf("no scenario has %q in its name", *which)
	}

	began := time.Now()
	all := selected(allPeers(), *only)
	m, err := measure(ctx, s, all, todo)
	if err != nil {
		return err
	}
	text := render(s, all, todo, m, runInfo{report.Command("forward", args), began})
	fmt.Println(text)
	if *results == "-" {
		return nil
	}
	plot := filepath.Join(filepath.Dir(*results), plotName)
	if err := os.WriteFile(plot, []byte(report.Plot(panels(all, todo, m))), 0o600); err != nil {
		return fmt.Errorf("writing the plot: %w", err)
	}
	if err := report.WriteSection(*results, "forward", text); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "wrote %s and %s, %v after the start\n", *results, plot, time.Since(began).Round(time.Second))
	return nil
}

// runInfo is what a reader has to know of a run.
type runInfo struct {
	command string
	began   time.Time
}
