// Command tail measures how long the slowest requests take through Isekai and through
// other proxies, all at one rate that none of them has chosen, also while routes are
// imported and a snapshot is written, and writes what it found into RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

func main() { peers.Main("tail", run) }

// settings is how much is measured.
type settings struct {
	rounds      int
	warm, time  time.Duration
	connections int
	share       float64 // of the slowest's saturation
	rate        float64 // requests per second; 0: share
	routes      int     // of the gateway whose snapshot is written
	program     string
	only        string
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("tail", flag.ContinueOnError)
	var s settings
	flags.IntVar(&s.rounds, "rounds", 3, "how often everything is measured")
	flags.DurationVar(&s.time, "time", 8*time.Second, "how long each is measured in a round")
	flags.DurationVar(&s.warm, "warm", time.Second, "how long each is loaded before that")
	flags.IntVar(&s.connections, "connections", 256, "the most requests that are open at a time")
	flags.Float64Var(&s.share, "share", 0.7, "the rate, as a part of what the slowest proxy can do")
	flags.Float64Var(&s.rate, "rate", 0, "the rate in requests per second, instead of -share")
	flags.IntVar(&s.routes, "routes", 100_000, "how many routes the gateway has whose snapshot is written")
	flags.StringVar(&s.program, "program", "", "Caddy with Isekai linked in; built if empty")
	flags.StringVar(&s.only, "only", "", "measure only those with one of these texts, separated by commas, in their name")
	short := flags.Bool("short", false, "one round of two seconds with 10,000 routes, to try it")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if *short {
		s.rounds, s.time, s.warm, s.routes = 1, 2*time.Second, 300*time.Millisecond, 10_000
	}
	switch {
	case s.rounds < 1 || s.time <= 0 || s.warm <= 0 || s.connections < 1 || s.routes < 1:
		return errors.New("-rounds, -connections and -routes must be at least 1, -time and -warm above 0")
	case s.share <= 0 || s.share >= 1 || s.rate < 0:
		return errors.New("-share must be between 0 and 1, and -rate not below 0")
	}
	all := selected(contestants(s.routes), s.only)
	if len(all) == 0 {
		return fmt.Errorf("nothing has %q in its name", s.only)
	}
	began, load := time.Now(), report.Load()
	m, err := measure(ctx, s, all)
	if err != nil {
		return err
	}
	m.load, m.began, m.command = load, began, report.Command("tail", args)
	return report.Publish(*results, "tail", render(s, all, m), began)
}
