package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

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

func (f *figures) add(o *outcome) {
	const ms = float64(time.Millisecond)
	f.micros = append(f.micros, o.micros())
	f.rate = append(f.rate, o.rate())
	f.p50 = append(f.p50, float64(o.P50)/ms)
	f.p99 = append(f.p99, float64(o.P99)/ms)
	f.rss = append(f.rss, float64(o.RSS)/1e6)
	f.busy = append(f.busy, o.busy())
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

// bench is peers at work.
type bench struct {
	rig     *rig
	dir     string
	running map[string]*running
	broken  map[string]error // peers that could not be started, which is not tried again
}

// measure measures every peer in every round of each scenario, each time beginning with
// another so that none of them always comes first.
func measure(ctx context.Context, s settings, all []peer, todo []scenario) (*measurements, error) {
	b, err := newBench(ctx, s)
	if err != nil {
		return nil, err
	}
	defer b.close()

	m := &measurements{of: make(map[string]map[string]*figures), load: report.Load()}
	all = slices.DeleteFunc(slices.Clone(all), func(p peer) bool {
		why := p.absent()
		if why != "" {
			m.absent = append(m.absent, p.name+": "+why)
		}
		return why != ""
	})
	for _, scenario := range todo {
		if err := b.scenario(ctx, s, scenario, scenario.with(all), m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (b *bench) scenario(ctx context.Context, s settings, sc scenario, with []peer, m *measurements) error {
	m.of[sc.name] = make(map[string]*figures)
	fail := func(p peer, err error) {
		delete(m.of[sc.name], p.name)
		with = slices.DeleteFunc(slices.Clone(with), func(other peer) bool { return other.name == p.name })
		m.failed = append(m.failed, fmt.Sprintf("%s, %s: %v", p.name, sc.name, err))
		fmt.Fprintf(os.Stderr, "%s: %s FAILED: %v\n", sc.name, p.name, err)
	}
	for _, p := range with {
		m.of[sc.name][p.name] = &figures{}
		if err := b.start(ctx, p); err != nil {
			fail(p, err)
		}
	}
	for round := range s.rounds {
		now := with // those that have not failed so far
		for i := range now {
			p := now[(round+i)%len(now)]
			j := sc.job(p, b.running[p.name], b.rig)
			j.Warm, j.Time = s.warm, s.time
			o, err := runLoad(ctx, b.rig.loadCPU, j)
			if ctx.Err() != nil {
				return fmt.Errorf("measuring: %w", ctx.Err())
			}
			if err != nil {
				fail(p, err)
				continue
			}
			m.of[sc.name][p.name].add(o)
			fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s: %.1f us, %.0f requests/s, proxy busy %.0f %%\n",
				sc.name, round+1, s.rounds, p.name, o.micros(), o.rate(), 100*o.busy())
		}
	}
	return nil
}

func newBench(ctx context.Context, s settings) (*bench, error) {
	cpus, err := processors()
	if err != nil {
		return nil, err
	}
	if len(cpus) < 2 {
		fmt.Fprintln(os.Stderr, "only one processor: the load takes from the proxy, and only CPU times mean anything")
	}
	dir, err := os.MkdirTemp("", "isekai-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	b := &bench{dir: dir, running: make(map[string]*running), broken: make(map[string]error), rig: &rig{
		caddy: s.program, postgres: s.postgres, proxyCPU: cpus[0], loadCPU: cpus[len(cpus)-1],
	}}
	if err := b.rig.makeCertificate(dir); err != nil {
		b.close()
		return nil, err
	}
	backend, address, err := startBackend(ctx, b.rig.loadCPU)
	if err != nil {
		b.close()
		return nil, err
	}
	b.running["the backend"] = &running{stop: backend.stop}
	b.rig.backend, b.rig.backendPID = address, backend.cmd.Process.Pid
	return b, nil
}

// start starts a peer unless it runs.
func (b *bench) start(ctx context.Context, p peer) error {
	if err := b.broken[p.name]; err != nil || b.running[p.name] != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.dir, "peer-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	at, err := p.start(ctx, b.rig, dir)
	if err != nil {
		err = fmt.Errorf("starting: %w", err)
		b.broken[p.name] = err
		return err
	}
	b.running[p.name] = at
	return nil
}

// close stops everything, and removes what was written.
func (b *bench) close() {
	for _, at := range b.running {
		at.stop()
	}
	_ = os.RemoveAll(b.dir) // in a folder for temporary files
}
