// Command propagation measures how long a change of a route takes from its commit until
// several gateways serve it, and writes what it found into RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/postgres"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

func main() { report.Main("propagation", run) }

// settings are what a run can be told.
type settings struct {
	dsn      string
	replicas int
	routes   int
	samples  int
	load     int
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("propagation", flag.ContinueOnError)
	var s settings
	flags.StringVar(&s.dsn, "dsn", "", "an empty PostgreSQL database; default: one on a server that is started for it, without fsync")
	flags.IntVar(&s.replicas, "replicas", 3, "how many gateways serve from it")
	flags.IntVar(&s.routes, "routes", 1000, "how many routes there are before")
	flags.IntVar(&s.samples, "samples", 1000, "changes that are measured, each idle and at load")
	flags.IntVar(&s.load, "load", 100, "further changes per second, at load")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if s.replicas < 1 || s.samples < 1 || s.load < 1 || s.routes < 1 {
		return errors.New("all numbers must be at least 1")
	}
	info := runInfo{
		command: report.Command("propagation", args),
		began:   time.Now(),
		load:    report.Load(),
		server:  "the one of -dsn",
	}
	if s.dsn == "" {
		server, err := postgres.Start()
		if err != nil {
			return err
		}
		defer server.Close()
		s.dsn, info.server = server.DSN, "started for it, with fsync off"
	}

	measured, err := measure(ctx, s)
	if err != nil {
		return err
	}
	info.loadAfter = report.Load()
	text := render(s, measured, info)
	return report.Publish(*results, "propagation", text, info.began)
}

// runInfo is what a reader has to know of a run.
type runInfo struct {
	command   string
	began     time.Time
	load      string // before it
	loadAfter string
	server    string
}
