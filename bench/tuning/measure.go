package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/peers"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// figures is what was measured of one variant, a value for each round.
type figures struct {
	micros, rate, rss []float64 // at its limit: us/request, requests/s, MB
	p99, p999         []float64 // at the rate, ms
	asked             int       // requests so far: each measurement goes on where the last ended
}

// measurements is figures by the variant's name.
type measurements struct {
	of     map[string]*figures
	rate   float64
	failed []string
}

func (m *measurements) get(name string) *figures {
	if m.of[name] == nil {
		m.of[name] = &figures{}
	}
	return m.of[name]
}

const (
	answer = "128"

	// closedConnections are as many as bench/forward's.
	closedConnections = 64

	// openConnections are the most requests that are open at a time.
	openConnections = 256
)

// measure measures the variants of a group: first at their limits, then all at a part of
// what the first can do. They end with it.
func measure(ctx context.Context, rig *peers.Rig, s settings, g group) (*measurements, error) {
	m := &measurements{of: make(map[string]*figures)}
	var now []variant
	defer func() {
		for _, v := range g.variants {
			rig.Stop(label(g, v))
		}
	}()
	for i, v := range g.variants {
		if g.name == pgoGroup && i == len(g.variants)-1 {
			program, err := profiled(ctx, rig, s, g)
			if err != nil {
				return nil, err
			}
			v.Program = program
		}
		if _, err := rig.Start(ctx, label(g, v), peers.Isekai(v.gateway)); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			m.fail(v, err)
			continue
		}
		now = append(now, v)
	}
	var err error
	if now, err = m.rounds(ctx, s, now, func(v variant) error { return m.closed(ctx, rig, s, g, v) }); err != nil {
		return nil, err
	}
	first := m.get(g.variants[0].name)
	if len(first.rate) == 0 {
		return nil, fmt.Errorf("%s: %s, which others are compared with, failed: %s", g.name, g.variants[0].name, strings.Join(m.failed, "; "))
	}
	m.rate = math.Floor(s.share * report.Median(first.rate))
	_, err = m.rounds(ctx, s, now, func(v variant) error { return m.open(ctx, rig, s, g, v) })
	return m, err
}

func label(g group, v variant) string { return g.name + ": " + v.name }

func (m *measurements) fail(v variant, err error) {
	m.failed = append(m.failed, fmt.Sprintf("%s: %v", v.name, err))
	fmt.Fprintf(os.Stderr, "%s FAILED: %v\n", v.name, err)
}

// rounds measures the variants, each round beginning with another, and returns those that
// did not fail.
func (m *measurements) rounds(ctx context.Context, s settings, all []variant, measure func(variant) error) ([]variant, error) {
	for round := range s.rounds {
		var left []variant
		for i := range all {
			v := all[(round+i)%len(all)]
			err := measure(v)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("measuring: %w", ctx.Err())
			}
			if err != nil {
				m.fail(v, err)
				continue
			}
			left = append(left, v)
		}
		if len(left) < len(all) {
			all = left
		}
	}
	return all, nil
}

// closed measures a variant at its limit.
func (m *measurements) closed(ctx context.Context, rig *peers.Rig, s settings, g group, v variant) error {
	at, err := rig.Start(ctx, label(g, v), peers.Isekai(v.gateway))
	if err != nil {
		return err
	}
	f, j := m.get(v.name), closedJob(rig, s, g, v, at)
	if j.Routes > 1 && f.asked == 0 {
		if f.asked, err = everyRoute(ctx, rig, j); err != nil {
			return err
		}
	}
	j.From = f.asked / closedConnections
	o, err := rig.Load(ctx, j)
	if err != nil {
		return err
	}
	f.asked += o.Requests
	f.micros = append(f.micros, o.Micros())
	f.rate = append(f.rate, o.Rate())
	f.rss = append(f.rss, float64(o.RSS)/1e6)
	fmt.Fprintf(os.Stderr, "%s: %.1f us, %.0f requests/s\n", label(g, v), o.Micros(), o.Rate())
	return nil
}

// everyRoute asks for each route at least about once, as a cache that holds all is
// filled, and returns how many requests that were.
func everyRoute(ctx context.Context, rig *peers.Rig, j load.Job) (int, error) {
	first, err := rig.Load(ctx, j)
	if err != nil {
		return 0, err
	}
	j.Time = max(j.Time, time.Duration(1.5*float64(j.Routes)/first.Rate()*float64(time.Second)))
	all, err := rig.Load(ctx, j)
	if err != nil {
		return 0, err
	}
	return all.Requests, nil
}

func closedJob(rig *peers.Rig, s settings, g group, v variant, at *peers.Running) load.Job {
	return load.Job{
		Address: at.Address, Connections: closedConnections, Method: "GET", Answer: answer, Routes: asked(g, v),
		Warm: s.warm, Time: s.time, Proxy: at.PIDs, Backend: []int{rig.BackendPID}, Late: at.Late,
	}
}

// asked returns how many routes requests go to.
func asked(g group, v variant) int {
	if g.each {
		return v.Routes
	}
	return 1
}

const ms = float64(time.Millisecond)

// open measures a variant at the rate.
func (m *measurements) open(ctx context.Context, rig *peers.Rig, s settings, g group, v variant) error {
	at, err := rig.Start(ctx, label(g, v), peers.Isekai(v.gateway))
	if err != nil {
		return err
	}
	o, err := rig.OpenLoad(ctx, load.OpenJob{
		Address: at.Address, Connections: openConnections, Answer: answer, Routes: asked(g, v),
		Rate: m.rate, Warm: s.warm, Time: s.time, Proxy: at.PIDs, Late: at.Late, From: m.get(v.name).asked / openConnections,
	}, nil)
	if err != nil {
		return err
	}
	f, q := m.get(v.name), load.Quantiles(o.Took, 0.99, 0.999)
	f.asked += len(o.Took)
	f.p99 = append(f.p99, float64(q[0])/ms)
	f.p999 = append(f.p999, float64(q[1])/ms)
	fmt.Fprintf(os.Stderr, "%s: p99 %.2f ms at %.0f requests/s\n", label(g, v), f.p99[len(f.p99)-1], m.rate)
	return nil
}

// profileTime is how long a profile is taken.
const profileTime = 10 * time.Second

// profiled builds the program with a profile of the group's first variant under load.
func profiled(ctx context.Context, rig *peers.Rig, s settings, g group) (string, error) {
	v := g.variants[0]
	at, err := rig.Start(ctx, label(g, v), peers.Isekai(v.gateway))
	if err != nil {
		return "", fmt.Errorf("starting what is profiled: %w", err)
	}
	j := closedJob(rig, s, g, v, at)
	j.Time = profileTime + time.Second
	loaded := make(chan error, 1)
	go func() {
		_, err := rig.Load(ctx, j)
		loaded <- err
	}()
	profile, err := load.Text(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", at.Admin, int(profileTime.Seconds())))
	if err := errors.Join(err, <-loaded); err != nil {
		return "", fmt.Errorf("taking a profile: %w", err)
	}
	path := filepath.Join(at.Dir, "cpu.pgo")
	if err := os.WriteFile(path, []byte(profile), 0o600); err != nil {
		return "", fmt.Errorf("writing a profile: %w", err)
	}
	return peers.Build(ctx, at.Dir, "caddy-pgo", "-pgo="+path)
}
