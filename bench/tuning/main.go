// Command tuning measures what settings of the gateway, of Go's runtime and of the build
// change, and writes what it found into the sections of docs/tuning.md.
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

func main() { peers.Main("tuning", run) }

// settings is how much is measured.
type settings struct {
	rounds     int
	warm, time time.Duration
	share      float64 // of the first variant's saturation, for latencies
	routes     int     // of the gateways whose cache is too small
	program    string
	postgres   string
	only       string
	pgo        bool
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("tuning", flag.ContinueOnError)
	var s settings
	flags.IntVar(&s.rounds, "rounds", 3, "how often everything is measured")
	flags.DurationVar(&s.time, "time", 2*time.Second, "how long each is measured in a round, at its limit and again at a rate")
	flags.DurationVar(&s.warm, "warm", 300*time.Millisecond, "how long each is loaded before that")
	flags.Float64Var(&s.share, "share", 0.7, "the rate for latencies, as a part of what the first of a group can do")
	flags.IntVar(&s.routes, "routes", 100_000, "how many routes there are where the cache's size is compared")
	flags.StringVar(&s.program, "program", "", "Caddy with Isekai linked in; built if empty")
	flags.StringVar(&s.postgres, "postgres", "", "DSN of an empty PostgreSQL database: the store of the log's batches and of max_conns, instead of SQLite")
	flags.StringVar(&s.only, "only", "", "measure only the groups with one of these texts, separated by commas, in their name")
	flags.BoolVar(&s.pgo, "pgo", true, "build with a profile too, which takes some minutes")
	results := flags.String("results", "../docs/tuning.md", "the file whose sections are written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case s.rounds < 1 || s.routes < 1 || s.time <= 0 || s.warm <= 0:
		return errors.New("-rounds and -routes must be at least 1, -time and -warm above 0")
	case s.share <= 0 || s.share >= 1:
		return errors.New("-share must be between 0 and 1")
	}
	todo := selected(groups(s), s.only)
	if len(todo) == 0 {
		return fmt.Errorf("no group has %q in its name", s.only)
	}
	info := runInfo{command: report.Command("tuning", args), began: time.Now(), load: report.Load()}
	rig, err := peers.NewRig(ctx, s.program, s.postgres)
	if err != nil {
		return err
	}
	defer rig.Close()
	for _, g := range todo {
		m, err := measure(ctx, rig, s, g)
		if err != nil {
			return err
		}
		// Each as soon as it is there: a later one may fail.
		if err := report.Publish(*results, "tuning-"+g.name, render(s, g, m, info), info.began); err != nil {
			return err
		}
	}
	return nil
}
