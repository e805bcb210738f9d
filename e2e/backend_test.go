package e2e_test

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// backend is an upstream that can be told what to answer, stopped and started
// again at the same address. It answers with its name.
type backend struct {
	t       testing.TB
	name    string
	address string
	hits    atomic.Int64
	handler atomic.Pointer[http.HandlerFunc]

	mu     sync.Mutex
	server *http.Server
}

func newBackend(t testing.TB, name string) *backend {
	t.Helper()
	b := &backend{t: t, name: name}
	b.heal()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	b.serve(l)
	t.Cleanup(b.stop)
	return b
}

func newBackends(t testing.TB, names ...string) []*backend {
	t.Helper()
	list := make([]*backend, len(names))
	for i, name := range names {
		list[i] = newBackend(t, name)
	}
	return list
}

func (b *backend) url() string { return "http://" + b.address }

// answer has the backend answer by h from now on.
func (b *backend) answer(h http.HandlerFunc) { b.handler.Store(&h) }

// heal has it answer with its name again.
func (b *backend) heal() {
	b.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, b.name) })
}

// status has it answer with a status, and its name.
func (b *backend) status(code int) {
	b.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, b.name)
	})
}

// abort has it break off every request without an answer.
func (b *backend) abort() {
	b.answer(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})
}

func (b *backend) serve(l net.Listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.hits.Add(1)
		(*b.handler.Load())(w, r)
	})}
	go func(s *http.Server) { _ = s.Serve(l) }(b.server)
}

// stop closes the port and all connections.
func (b *backend) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		b.server.Close()
		b.server = nil
	}
}

// start listens again.
func (b *backend) start() {
	b.t.Helper()
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.serve(l)
}

// poolOf makes the upstream settings of a pool.
func poolOf(backends ...*backend) *upstreamSettings {
	u := new(upstreamSettings)
	for _, b := range backends {
		u.Targets = append(u.Targets, upstreamTarget{URL: b.url()})
	}
	return u
}

// weighing sets the weights of the pool's targets.
func (u *upstreamSettings) weighing(weights ...int) *upstreamSettings {
	for i := range weights {
		u.Targets[i].Weight = &weights[i]
	}
	return u
}

// hitsOf counts and forgets what the backends were asked.
func hitsOf(backends ...*backend) map[string]int {
	hits := make(map[string]int)
	for _, b := range backends {
		if n := int(b.hits.Swap(0)); n > 0 {
			hits[b.name] = n
		}
	}
	return hits
}

// upstreamPool is a pool as the admin API shows it.
type upstreamPool struct {
	ID     string `json:"id"`
	Routes []struct {
		ID   int64  `json:"id"`
		Name string `json:"name"`
	} `json:"routes"`
	Policy        string         `json:"policy"`
	Requests      int            `json:"requests"`
	Retries       int            `json:"retries"`
	RetriesDenied int            `json:"retries_denied"`
	FastLane      int            `json:"fast_lane"`
	Targets       []poolTargetAt `json:"targets"`
}

type poolTargetAt struct {
	URL            string `json:"url"`
	Weight         int    `json:"weight"`
	State          string `json:"state"`
	Breaker        string `json:"breaker"`
	BreakerOpened  int    `json:"breaker_opened"`
	InFlight       int    `json:"in_flight"`
	Requests       int    `json:"requests"`
	Failures       int    `json:"failures"`
	RecentFailures int    `json:"recent_failures"`
	Changes        int    `json:"changes"`
	LastCheck      string `json:"last_check"`
	LastFailure    string `json:"last_failure"`
}

// pools returns what the admin API says of a route's pool, or of all.
func (g *gateway) pools(query string) []upstreamPool {
	g.t.Helper()
	var page struct {
		Items []upstreamPool `json:"items"`
		Next  string         `json:"next"`
	}
	a := g.call(http.MethodGet, "/api/upstreams"+query, nil)
	if a.status != http.StatusOK {
		g.t.Fatalf("/api/upstreams%s answers %s", query, a)
	}
	a.decode(g.t, &page)
	return page.Items
}

// pool returns what the admin API says of the pool of the only route that has one,
// or of the route with this id.
func (g *gateway) pool(id int64) upstreamPool {
	g.t.Helper()
	pools := g.pools("?route=" + itoa(int(id)))
	if len(pools) != 1 {
		g.t.Fatalf("route %d has %d pools", id, len(pools))
	}
	return pools[0]
}
