package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// settings is how much is measured.
type settings struct {
	rounds     int
	warm, time time.Duration
	program    string // Caddy with Isekai
	postgres   string
}

// figures is what was measured of one peer in one scenario, a value for each round.
type figures struct {
	micros, rate, p50, p99, rss, busy, load []float64
}

func (f *figures) add(o *load.Outcome) {
	const ms = float64(time.Millisecond)
	f.micros = append(f.micros, o.Micros())
	f.rate = append(f.rate, o.Rate())
	f.p50 = append(f.p50, float64(o.P50)/ms)
	f.p99 = append(f.p99, float64(o.P99)/ms)
	f.rss = append(f.rss, float64(o.RSS)/1e6)
	f.busy = append(f.busy, o.BusyPart())
	f.load = append(f.load, o.LoadCPU.Seconds()/o.Elapsed.Seconds())
}

// measurements is figures by the scenario's and the peer's name.
type measurements struct {
	of     map[string]map[string]*figures
	absent []string // peers that are not here, and why
	failed []string // what went wrong, with which peer and scenario
	load   string   // the machine's load average before it
}

// get returns the figures, which are empty if nothing was measured.
func (m *measurements) get(scenario, peer string) *figures {
	if f := m.of[scenario][peer]; f != nil {
		return f
	}
	return &figures{}
}

// ratios compares a peer's CPU time with that of another, round by round.
func (m *measurements) ratios(scenario, peer, base string) []float64 {
	return report.Ratios(m.get(scenario, peer).micros, m.get(scenario, base).micros)
}

// measure measures every peer in every round of each scenario, each time beginning with
// another so that none of them always comes first.
func measure(ctx context.Context, s settings, all []peer, todo []scenario) (*measurements, error) {
	rig, err := peers.NewRig(ctx, s.program, s.postgres)
	if err != nil {
		return nil, err
	}
	defer rig.Close()

	m := &measurements{of: make(map[string]map[string]*figures), load: report.Load()}
	all = slices.DeleteFunc(slices.Clone(all), func(p peer) bool {
		why := p.absent(rig)
		if why != "" {
			m.absent = append(m.absent, p.name+": "+why)
		}
		return why != ""
	})
	for _, scenario := range todo {
		if err := m.scenario(ctx, rig, s, scenario, scenario.with(all)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *measurements) scenario(ctx context.Context, rig *peers.Rig, s settings, sc scenario, with []peer) error {
	m.of[sc.name] = make(map[string]*figures)
	fail := func(p peer, err error) {
		delete(m.of[sc.name], p.name)
		with = slices.DeleteFunc(slices.Clone(with), func(other peer) bool { return other.name == p.name })
		m.failed = append(m.failed, fmt.Sprintf("%s, %s: %v", p.name, sc.name, err))
		fmt.Fprintf(os.Stderr, "%s: %s FAILED: %v\n", sc.name, p.name, err)
	}
	for _, p := range with {
		m.of[sc.name][p.name] = &figures{}
	}
	for round := range s.rounds {
		for _, p := range with {
			if sc.anew {
				rig.Stop(p.name)
			}
			if _, err := rig.Start(ctx, p.name, p.start); err != nil {
				fail(p, err)
			}
		}
		now := with // those that have not failed so far
		for i := range now {
			p := now[(round+i)%len(now)]
			o, err := sc.load(ctx, rig, s, p)
			if ctx.Err() != nil {
				return fmt.Errorf("measuring: %w", ctx.Err())
			}
			if err != nil {
				fail(p, err)
				continue
			}
			m.of[sc.name][p.name].add(o)
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s: %.1f us, %.0f requests/s, proxy busy %.0f %%\n",
				sc.name, round+1, s.rounds, p.name, o.Micros(), o.Rate(), 100*o.BusyPart())
		}
	}
	return nil
}

// load measures a peer once.
func (s scenario) load(ctx context.Context, rig *peers.Rig, with settings, p peer) (*load.Outcome, error) {
	at, err := rig.Start(ctx, p.name, p.start)
	if err != nil {
		return nil, err
	}
	j := s.job(p, at, rig)
	j.Warm, j.Time = with.warm, with.time
	return rig.Load(ctx, j)
}
