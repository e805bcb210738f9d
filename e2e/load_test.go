package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is traffic in the background.
type load struct {
	t       *testing.T
	ok      atomic.Int64
	failed  atomic.Int64
	mu      sync.Mutex
	first   []string // what went wrong, at most a few
	took    []time.Duration
	stopped chan struct{}
	wg      sync.WaitGroup
	client  *http.Client
}

// startLoad sends GETs of the path, one after the other from each of several
// clients, until stop is called. An answer is right if it is a 200 with a body
// that accept takes.
func (g *gateway) startLoad(clients int, path string, accept func(body string) bool) *load {
	return g.startLoadBy(newClient(), clients, http.MethodGet, path, accept)
}

// startLoadBy is startLoad by one client and method. The client repeats a GET by itself
// if a connection was closed under it, and a POST never.
func (g *gateway) startLoadBy(client *http.Client, clients int, method, path string, accept func(body string) bool) *load {
	l := &load{t: g.t, stopped: make(chan struct{}), client: client}
	from := *g
	from.client = l.client
	for range clients {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stopped:
					return
				default:
				}
				began := time.Now()
				a, err := from.trySend(method, path)
				l.note(time.Since(began))
				switch {
				case err != nil:
					l.fail(err.Error())
				case a.status != http.StatusOK || !accept(string(a.body)):
					l.fail(a.String())
				default:
					l.ok.Add(1)
				}
				// A steady rate rather than all that the machine can do: the
				// test needs its share.
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	g.t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) fail(what string) {
	l.failed.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.first) < 5 {
		l.first = append(l.first, fmt.Sprintf("%s %s", time.Now().UTC().Format("15:04:05.000"), what))
	}
}

func (l *load) note(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
}

// p99 returns a figure to log: the 99th percentile of what requests have taken since
// the last call.
func (l *load) p99() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := l.took
	l.took = nil
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// more waits for n further requests.
func (l *load) more(n int64) {
	l.t.Helper()
	from := l.ok.Load() + l.failed.Load()
	eventually(l.t, startTimeout, "more requests are done", func() error {
		if done := l.ok.Load() + l.failed.Load() - from; done < n {
			return fmt.Errorf("%d of %d", done, n)
		}
		return nil
	})
}

// stop ends the traffic, after the requests in flight, and returns how many
// requests went well and how many did not.
func (l *load) stop() (ok, failed int64) {
	select {
	case <-l.stopped:
	default:
		close(l.stopped)
	}
	l.wg.Wait()
	l.client.CloseIdleConnections()
	return l.ok.Load(), l.failed.Load()
}

// wantNoLoss ends the traffic and fails the test if any request failed.
func (l *load) wantNoLoss() {
	l.t.Helper()
	ok, failed := l.stop()
	if failed > 0 || ok == 0 {
		l.t.Errorf("%d requests failed, %d went well; the first: %q", failed, ok, l.first)
	}
}

// is accepts exactly one body.
func is(want string) func(string) bool {
	return func(body string) bool { return body == want }
}
