// Command scale measures what very many routes cost: to load, to keep, to change, to
// match, to serve and to administer. It writes what it found into RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

func main() { report.Main("scale", run) }

// settings are what a run can be told.
type settings struct {
	binary   string
	routes   int // in PostgreSQL
	hosts    int // one for so many routes in a thousand
	million  int // the most routes in a table alone; 0 leaves it out
	matches  int // per round
	rounds   int
	applies  int
	requests int // of a round of load
	logRows  int
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	s := settings{}
	flags.StringVar(&s.binary, "binary", "", "a gateway that is built already; default: one is built")
	flags.IntVar(&s.routes, "routes", 100_000, "how many routes are in PostgreSQL")
	flags.IntVar(&s.hosts, "hosts", 1000, "over how many hosts")
	flags.IntVar(&s.million, "million", 1_000_000, "how many routes the largest table has; 0 leaves it out")
	flags.IntVar(&s.matches, "matches", 1_000_000, "matches of a round, and requests that are made for them")
	flags.IntVar(&s.rounds, "rounds", 5, "how often is measured what varies")
	flags.IntVar(&s.applies, "applies", 500, "changes of one route")
	flags.IntVar(&s.requests, "requests", 60_000, "requests of a round of load, enough for several cycles of the collector")
	flags.IntVar(&s.logRows, "log-rows", 200_000, "rows of the request log whose size is measured")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if s.hosts < 1 || s.routes < s.hosts || s.matches < 1 || s.rounds < 1 || s.applies < 1 || s.requests < loadConns || s.logRows < 1 {
		return errors.New("all numbers must be at least 1, routes at least as many as hosts, and requests at least as many as connections")
	}
	info := runInfo{
		command: report.Command("scale", args),
		began:   time.Now(), load: report.Load(),
	}
	m, err := measure(ctx, s)
	if err != nil {
		return err
	}
	info.loadAfter = report.Load()
	text := render(s, m, info)
	return report.Publish(*results, "scale", text, info.began)
}

// runInfo is what a reader has to know of a run.
type runInfo struct {
	command         string
	began           time.Time
	load, loadAfter string
}
