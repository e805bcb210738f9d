package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// figures is what was measured of one contestant, a value for each round.
type figures struct {
	saturation          []float64 // requests/s
	p50, p99, p999, max []float64 // ms
	micros, rss         []float64 // CPU us/request, MB
	lag                 []float64 // of the load, ms
	waited              int       // requests that found no connection free
	requests            int
	collections         []float64       // of the garbage collector
	during              []time.Duration // requests while the event went on, of all rounds
	events              int
	lasted              []float64 // how long an event did, ms
}

// measurements is figures by the contestant's name.
type measurements struct {
	of             map[string]*figures
	rate           float64
	slowest        string
	absent, failed []string
	load, command  string
	began          time.Time
}

// answer is what is asked for.
const answer = "128"

// closedConnections are as many as bench/forward's.
const closedConnections = 64

// measure finds out what each proxy can do, and then measures all of them at one rate,
// each round beginning with another.
func measure(ctx context.Context, s settings, all []contestant) (_ *measurements, err error) {
	rig, err := peers.NewRig(ctx, s.program, "")
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	// What happens to gateways meanwhile is this process's doing, and must not take from
	// their processor.
	undo, err := procs.BindSelf(rig.LoadCPU)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, undo()) }()

	m := &measurements{of: make(map[string]*figures)}
	all = slices.DeleteFunc(slices.Clone(all), func(c contestant) bool {
		why := c.absent(rig)
		if why != "" {
			m.absent = append(m.absent, c.name+": "+why)
		}
		return why != ""
	})
	saturate := func(c contestant, round int) error { return m.saturate(ctx, rig, s, c, round) }
	if err := m.rounds(ctx, s, &all, func(c contestant) bool { return !c.event.is() && !c.direct }, saturate); err != nil {
		return nil, err
	}
	if err := m.chooseRate(s); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "all at %.0f requests/s\n", m.rate)
	open := func(c contestant, round int) error { return m.open(ctx, rig, s, c, round) }
	if err := m.rounds(ctx, s, &all, func(contestant) bool { return true }, open); err != nil {
		return nil, err
	}
	return m, nil
}

// rounds measures those of all that take part. What fails is told, and left out of all.
func (m *measurements) rounds(ctx context.Context, s settings, all *[]contestant, take func(contestant) bool, measure func(contestant, int) error) error {
	for round := range s.rounds {
		var now []contestant
		for _, c := range *all {
			if take(c) {
				now = append(now, c)
			}
		}
		for i := range now {
			c := now[(round+i)%len(now)]
			err := measure(c, round)
			if ctx.Err() != nil {
				return fmt.Errorf("measuring: %w", ctx.Err())
			}
			if err == nil {
				continue
			}
			delete(m.of, c.name)
			*all = slices.DeleteFunc(*all, func(other contestant) bool { return other.name == c.name })
			m.failed = append(m.failed, fmt.Sprintf("%s: %v", c.name, err))
			fmt.Fprintf(os.Stderr, "%s FAILED: %v\n", c.name, err)
		}
	}
	return nil
}

func (m *measurements) figures(name string) *figures {
	if m.of[name] == nil {
		m.of[name] = &figures{}
	}
	return m.of[name]
}

// saturate keeps all connections busy, as bench/forward does.
func (m *measurements) saturate(ctx context.Context, rig *peers.Rig, s settings, c contestant, round int) error {
	at, err := rig.Start(ctx, c.name, c.start)
	if err != nil {
		return err
	}
	o, err := rig.Load(ctx, load.Job{
		Address: at.Address, Connections: closedConnections, Method: "GET", Answer: answer, Routes: 1,
		Warm: s.warm, Time: min(s.time, 2*time.Second), Proxy: at.PIDs, Backend: []int{rig.BackendPID}, Late: at.Late,
	})
	if err != nil {
		return err
	}
	f := m.figures(c.name)
	f.saturation = append(f.saturation, o.Rate())
	fmt.Fprintf(os.Stderr, "saturation, round %d of %d: %s: %.0f requests/s\n", round+1, s.rounds, c.name, o.Rate())
	return nil
}

// chooseRate takes a part of what the slowest can do.
func (m *measurements) chooseRate(s settings) error {
	least := math.Inf(1)
	for name, f := range m.of {
		// The names make it the same one of two that are equal.
		if rate := report.Median(f.saturation); rate < least || rate == least && cmp.Less(name, m.slowest) {
			least, m.slowest = rate, name
		}
	}
	if m.rate = s.rate; m.rate > 0 {
		return nil
	}
	if m.slowest == "" {
		return errors.New("no proxy that the rate could be a part of: name a rate with -rate")
	}
	m.rate = math.Floor(s.share * least)
	return nil
}

// open measures at the rate.
func (m *measurements) open(ctx context.Context, rig *peers.Rig, s settings, c contestant, round int) error {
	at, err := rig.Start(ctx, c.name, c.start)
	if err != nil {
		return err
	}
	if c.event.before != nil {
		if err := c.event.before(ctx, at, s.warm+s.time); err != nil {
			return err
		}
	}
	before, err := collections(ctx, at)
	if err != nil {
		return err
	}
	var windows []window
	o, err := rig.OpenLoad(ctx, load.OpenJob{
		Address: at.Address, Connections: s.connections, Answer: answer, Routes: 1,
		Rate: m.rate, Warm: s.warm, Time: s.time, Proxy: at.PIDs, Late: at.Late,
	}, func(ctx context.Context) (err error) {
		if at.Scrape != "" {
			if err := load.Get(ctx, at.Scrape); err != nil {
				return err
			}
		}
		if c.event.is() {
			windows, err = c.event.during(ctx, at, round)
		}
		return err
	})
	if err != nil {
		return err
	}
	after, err := collections(ctx, at)
	if err != nil {
		return err
	}
	f := m.figures(c.name)
	f.add(o, after-before)
	if c.event.is() {
		if len(windows) == 0 {
			return errors.New("it did not happen while the load ran")
		}
		f.note(o, windows)
	}
	fmt.Fprintf(os.Stderr, "round %d of %d: %s: p99 %.2f ms, p99.9 %.2f ms, max %.2f ms\n",
		round+1, s.rounds, c.name, f.p99[len(f.p99)-1], f.p999[len(f.p999)-1], f.max[len(f.max)-1])
	return nil
}

const ms = float64(time.Millisecond)

func (f *figures) add(o *load.OpenOutcome, collections float64) {
	q := load.Quantiles(o.Took, 0.5, 0.99, 0.999, 1)
	for i, to := range []*[]float64{&f.p50, &f.p99, &f.p999, &f.max} {
		*to = append(*to, float64(q[i])/ms)
	}
	f.micros = append(f.micros, o.Micros())
	f.rss = append(f.rss, float64(o.RSS)/1e6)
	f.lag = append(f.lag, float64(o.Lag)/ms)
	f.waited += o.Waited
	f.requests += len(o.Took)
	f.collections = append(f.collections, collections)
}

// note keeps the requests that were due in one of the windows, which do not overlap.
func (f *figures) note(o *load.OpenOutcome, windows []window) {
	for _, w := range windows {
		f.during = append(f.during, o.Between(w.from, w.to.Add(echo))...)
		if !w.cut {
			f.lasted = append(f.lasted, float64(w.to.Sub(w.from))/ms)
		}
	}
	f.events += len(windows)
}

// collections returns how many cycles Go's collector has made in a process that tells
// so, else NaN.
func collections(ctx context.Context, at *peers.Running) (float64, error) {
	if at.Admin == "" {
		return math.NaN(), nil
	}
	text, err := load.Text(ctx, at.Admin+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "go_gc_duration_seconds_count "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("the metrics have no go_gc_duration_seconds_count")
}
