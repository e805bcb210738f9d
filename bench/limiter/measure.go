package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// settings is how much is measured.
type settings struct {
	rounds, keys, decisions int
}

// traffic is the keys in the order in which they come.
type traffic struct {
	name string

	// They are side by side, so that the processor has each at hand when it comes, as it
	// has that of a request which was just read. Strings anywhere in memory would have
	// every limiter wait for its key, and pointers be work for the collector.
	text string
	ends []uint32
}

func (t *traffic) len() int { return len(t.ends) }

func (t *traffic) key(i int) string {
	begin := uint32(0)
	if i > 0 {
		begin = t.ends[i-1]
	}
	return t.text[begin:t.ends[i]]
}

// figures is what was measured of one contender, a value for each round.
type figures struct {
	ns    map[string][]float64 // by the traffic's name, a decision
	bytes []float64            // a key
}

// measurements is figures by the contender's name.
type measurements struct {
	of    map[string]*figures
	swept []float64 // bytes that ours has left, per key that was idle and swept
}

var trafficNames = []string{"uniform", "zipf", "hot"}

// measure measures every contender in every round, each time beginning with another
// so that none of them always comes first.
func measure(ctx context.Context, s settings, contenders []contender) (*measurements, error) {
	keys := makeKeys(s.keys)
	traffics := makeTraffics(keys)
	m := &measurements{of: make(map[string]*figures)}
	for _, c := range contenders {
		m.of[c.name] = &figures{ns: make(map[string][]float64)}
	}
	for round := range s.rounds {
		for i := range contenders {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("measuring: %w", err)
			}
			c := contenders[(round+i)%len(contenders)]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, s.rounds, c.name)
			if err := m.of[c.name].add(c, keys, traffics, s.decisions); err != nil {
				return nil, err
			}
		}
		m.swept = append(m.swept, sweptBytes(keys))
	}
	return m, nil
}

// add measures c once.
func (f *figures) add(c contender, keys []string, traffics []traffic, decisions int) error {
	before := liveHeap()
	limiter, err := c.start()
	if err != nil {
		return err
	}
	defer limiter.stop()
	if c.group == groupHandler {
		decisions /= 4 // a refusal takes microseconds
	}
	fill(keys, limiter.worker())
	f.bytes = append(f.bytes, perKey(before, keys))
	for _, t := range traffics {
		runtime.GC() // what was filled or decided before is not this traffic's garbage
		f.ns[t.name] = append(f.ns[t.name], cost(limiter, &t, decisions))
	}
	return nil
}

// cost returns the time that passes for a decision, in ns, while as many goroutines
// decide as there are processors.
func cost(limiter *instance, t *traffic, decisions int) float64 {
	workers := runtime.GOMAXPROCS(0)
	share := max(decisions/workers, 1)
	var working sync.WaitGroup
	begin := make(chan struct{})
	for worker := range workers {
		allow := limiter.worker()
		from := worker * t.len() / workers
		working.Go(func() {
			<-begin
			for i := range share {
				allow(t.key((from + i) % t.len()))
			}
		})
	}
	began := time.Now()
	close(begin)
	working.Wait()
	return float64(time.Since(began).Nanoseconds()) / float64(share*workers)
}

// fill decides once for every key. The text is new each time, as that of a request
// is: a limiter that keeps it pays for it.
func fill(keys []string, allow decide) {
	for _, key := range keys {
		allow(strings.Clone(key))
	}
}

// sweptBytes returns what is left per key of ours when all keys are idle and Sweep
// has been.
func sweptBytes(keys []string) float64 {
	before := liveHeap()
	now := time.Unix(1_800_000_000, 0)
	l := ratelimit.New(ratelimit.Config{MaxKeys: room(len(keys)), Now: func() time.Time { return now }})
	fill(keys, func(key string) bool { return l.Allow(rule, "route:1", key, 1).Allowed })
	now = now.Add(3 * window)
	l.Sweep()
	left := perKey(before, keys)
	runtime.KeepAlive(l)
	return left
}

// perKey returns by how much the live heap has grown, in bytes per key.
func perKey(before uint64, keys []string) float64 {
	return (float64(liveHeap()) - float64(before)) / float64(len(keys))
}

// liveHeap returns the bytes that are reachable. The second collection is for what
// the first one's finalizers and pools let go.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// makeKeys returns addresses. No two are equal up to 16,777,216.
func makeKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "10." + strconv.Itoa(i>>16&255) + "." + strconv.Itoa(i>>8&255) + "." + strconv.Itoa(i&255)
	}
	return keys
}

// makeTraffics returns the orders, the same in every run. They are drawn beforehand,
// since drawing from a Zipf distribution takes longer than a decision.
func makeTraffics(keys []string) []traffic {
	rnd := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rnd, 1.1, 1, uint64(len(keys)-1))
	draws := map[string]func() int{
		"uniform": func() int { return rnd.IntN(len(keys)) },
		"zipf":    func() int { return int(zipf.Uint64()) },
		"hot":     func() int { return 7 % len(keys) },
	}
	var all []traffic
	for _, name := range trafficNames {
		var text strings.Builder
		ends := make([]uint32, 1<<21)
		for i := range ends {
			text.WriteString(keys[draws[name]()])
			ends[i] = uint32(text.Len())
		}
		all = append(all, traffic{name, text.String(), ends})
	}
	return all
}
