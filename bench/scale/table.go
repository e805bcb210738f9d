package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// tableFigures are of one table in memory.
type tableFigures struct {
	routes  int
	build   []time.Duration
	heap    float64 // bytes per route
	matches []matchFigures
	apply   []time.Duration // sorted
}

// matchFigures are of one sort of traffic.
type matchFigures struct {
	name   string
	ns     []float64 // by rounds
	allocs float64   // per match
}

// heapInUse is the live heap.
func heapInUse() float64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers have kept
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

func measureTable(ctx context.Context, s settings, n int) (*tableFigures, error) {
	f := &tableFigures{routes: n}
	hosts := min(s.hosts, n)
	before := heapInUse()
	rows := makeRows(n, hosts)
	var table *routing.Table
	rounds := s.rounds
	if n > 200_000 {
		rounds = min(rounds, 2) // it takes long, and varies little
	}
	for range rounds {
		table = nil //nolint:ineffassign // so that the one before can be collected
		runtime.GC()
		began := time.Now()
		table = routing.NewTable(rows, 1)
		f.build = append(f.build, time.Since(began))
	}
	slices.Sort(f.build)
	if table.Served() != n {
		return nil, fmt.Errorf("of %d routes %d are served", n, table.Served())
	}
	rows = nil //nolint:ineffassign,wastedassign // the table has what it needs of them
	f.heap = (heapInUse() - before) / float64(n)

	for _, t := range traffics {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if n == 1 && t.miss {
			continue
		}
		m, err := measureMatch(table, t, makeRequests(t, s.matches, n, hosts), s.rounds)
		if err != nil {
			return nil, err
		}
		f.matches = append(f.matches, m)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for k := range s.applies {
		row, _, _ := table.Get(1 + random.Int64N(int64(n)))
		changed := *row
		changed.Timeout = k
		changed.Revision = int64(k + 2)
		began := time.Now()
		table = table.Apply([]*store.Route{&changed}, changed.Revision)
		f.apply = append(f.apply, time.Since(began))
	}
	slices.Sort(f.apply)
	return f, nil
}

func measureMatch(table *routing.Table, t traffic, requests []routing.Request, rounds int) (matchFigures, error) {
	m := matchFigures{name: t.name}
	// Other processes of the machine take time, but not this thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wrong := 0
	for range rounds {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := threadTime()
		for i := range requests {
			if (table.Match(&requests[i]) == nil) != t.miss {
				wrong++
			}
		}
		took := threadTime() - began
		runtime.ReadMemStats(&after)
		m.ns = append(m.ns, float64(took.Nanoseconds())/float64(len(requests)))
		m.allocs = float64(after.Mallocs-before.Mallocs) / float64(len(requests))
	}
	if wrong > 0 {
		return m, fmt.Errorf("%s: %d of %d matches are wrong", t.name, wrong, rounds*len(requests))
	}
	return m, nil
}
