// Command limiter measures Isekai's rate limiter in memory against others, all in
// one run, and writes what it found into RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// Every limiter gets the same quota: 100 a minute, all of it at once if unused.
const (
	limit  = 100
	window = time.Minute
)

func main() { report.Main("limiter", run) }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("limiter", flag.ContinueOnError)
	var s settings
	flags.IntVar(&s.rounds, "rounds", 5, "how often everything is measured")
	flags.IntVar(&s.keys, "keys", 1_000_000, "how many distinct keys there are")
	flags.IntVar(&s.decisions, "decisions", 3_000_000, "decisions per limiter, traffic and round; a quarter of them for handlers")
	only := flags.String("only", "", "measure only the limiters with this in their name, and ours")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if s.rounds < 1 || s.keys < 2 || s.decisions < 1 {
		return errors.New("-rounds and -decisions must be at least 1, -keys at least 2")
	}

	caddyCtx, stopCaddy, err := startCaddy()
	if err != nil {
		return err
	}
	defer stopCaddy()
	contenders := append(selected(libraries(s.keys), *only), reference())
	contenders = append(contenders, selected(handlers(caddyCtx), *only)...)

	began, load := time.Now(), report.Load()
	measured, err := measure(ctx, s, contenders)
	if err != nil {
		return err
	}
	accurate, err := accuracies()
	if err != nil {
		return err
	}

	command := report.Command("limiter", args)
	text := render(s, contenders, measured, accurate, runInfo{command, began, load})
	return report.Publish(*results, "limiter", text, began)
}

// runInfo is what a reader has to know of a run.
type runInfo struct {
	command string
	began   time.Time
	load    string // before it
}

func selected(all []contender, only string) []contender {
	var kept []contender
	for _, c := range all {
		if c.ours || strings.Contains(c.name, only) {
			kept = append(kept, c)
		}
	}
	return kept
}
