// Command requestlog measures how fast the request log is written to PostgreSQL, and how
// long questions to a large one take, and writes what it found into RESULTS.md.
package main

import (
	"context"
	"errors"
	"flag"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/postgres"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

func main() { report.Main("requestlog", run) }

// settings are what a run can be told.
type settings struct {
	dsn     string
	rows    int
	batch   int
	writers int
	asks    int
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("requestlog", flag.ContinueOnError)
	var s settings
	flags.StringVar(&s.dsn, "dsn", "", "an empty PostgreSQL database; default: one on a server that is started for it, without fsync")
	flags.IntVar(&s.rows, "rows", 10_000_000, "how many requests are written, those of a day")
	flags.IntVar(&s.batch, "batch", 1000, "how many at once")
	flags.IntVar(&s.writers, "writers", 1, "how many replicas write at once")
	flags.IntVar(&s.asks, "asks", 20, "how often every question is asked")
	results := flags.String("results", "RESULTS.md", "the file whose section is written, or - for none")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if s.rows < 1000 || s.batch < 1 || s.writers < 1 || s.asks < 1 {
		return errors.New("rows must be at least 1000, and all other numbers at least 1")
	}
	info := runInfo{
		command: report.Command("requestlog", args),
		began:   time.Now(), load: report.Load(), server: "the one of -dsn",
	}
	if s.dsn == "" {
		server, err := postgres.Start()
		if err != nil {
			return err
		}
		defer server.Close()
		s.dsn, info.server = server.DSN, "started for it, with fsync off"
	}
	m, err := measure(ctx, s)
	if err != nil {
		return err
	}
	text := render(s, m, info)
	return report.Publish(*results, "requestlog", text, info.began)
}
