package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// limitOptions is the isekai block's option rate_limit.
func limitOptions(lines ...string) string {
	return "rate_limit {\n" + strings.Join(lines, "\n") + "\n}"
}

var redisEnv = []string{"TEST_REDIS_PASSWORD=" + redisPassword}

// sharedResults returns the metrics of the shared backend by their results, and
// whether it is up.
func (g *gateway) sharedResults() (results map[string]int, up bool, err error) {
	resp, err := g.client.Get("http://" + g.admin + "/metrics")
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close()
	results = make(map[string]int)
	found := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		if strings.HasPrefix(name, "isekai_ratelimit_backend_up{") {
			up, found = value == "1", true
		}
		if !strings.HasPrefix(name, "isekai_ratelimit_backend_requests_total{") {
			continue
		}
		_, result, _ := strings.Cut(name, `result="`)
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, false, err
		}
		results[strings.TrimSuffix(result, `"`)] = n
	}
	if !found {
		return nil, false, errors.New("there are no metrics of a backend")
	}
	return results, up, nil
}

// TestSharedLimit has three gateways get 1,000 requests at once. Together they admit
// exactly the limit.
func TestSharedLimit(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"store", "redis"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := "backend store"
			if name == "redis" {
				backend = startRedis(t).backend()
			}
			// A busy machine is no outage: what a backend does too late is not exact.
			set := settings{dsn: pgtest.New(t), env: redisEnv, options: limitOptions(backend, "timeout 30s", "on_error deny")}
			gateways := make([]*gateway, 3)
			for i := range gateways {
				gateways[i] = startGateway(t, set)
			}
			const requests, limit = 1000, 300
			r := gateways[0].create(route{
				Path: "/limited", TargetURL: textUpstream(t, "ok"), RateLimit: limit, Limits: map[string]any{"window": 86400},
			})
			free := gateways[0].create(route{Path: "/there", TargetURL: textUpstream(t, "ok")})
			for _, g := range gateways {
				g.waitBody("/there", "ok")
			}
			var admitted, refused atomic.Int64
			var wg sync.WaitGroup
			for i := range requests {
				wg.Go(func() {
					a, err := gateways[i%len(gateways)].trySend(http.MethodGet, "/limited")
					switch {
					case err != nil:
						t.Error(err)
					case a.status == http.StatusOK:
						admitted.Add(1)
					case a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") != "":
						refused.Add(1)
					default:
						t.Errorf("a request is answered %s", a)
					}
				})
			}
			wg.Wait()
			if admitted.Load() != limit || refused.Load() != requests-limit {
				t.Errorf("%d were admitted and %d refused, want %d and %d", admitted.Load(), refused.Load(), limit, requests-limit)
			}

			// What was used stays: through a reload, an edit and on every gateway.
			g := gateways[1]
			if err := g.reload(); err != nil {
				t.Fatal(err)
			}
			g.waitReady()
			if a := g.send(http.MethodGet, "/limited"); a.status != http.StatusTooManyRequests {
				t.Errorf("after a reload the answer is %s", a)
			}
			g.patch(r.ID, map[string]any{"rate_limit": limit + 5})
			g.patch(free.ID, map[string]any{"path": "/moved"})
			for _, g := range gateways {
				g.waitBody("/moved", "ok")
			}
			a := gateways[2].send(http.MethodGet, "/limited")
			if a.status != http.StatusOK || !strings.Contains(a.header.Get("RateLimit"), ";r=4;") {
				t.Errorf("after the limit grew by 5 the answer is %s with %q", a, a.header.Get("RateLimit"))
			}
			total := 0
			for _, g := range gateways {
				results, up, err := g.sharedResults()
				if err != nil || !up {
					t.Fatalf("up: %v, %v", up, err)
				}
				total += results["ok"]
				if n := results["fallback"] + results["timeout"] + results["error"] + results["open"]; n != 0 {
					t.Errorf("the metrics are %v", results)
				}
				if strings.Contains(g.log.String(), redisPassword) {
					t.Error("the log shows the password")
				}
				if config := g.call(http.MethodGet, "/config/", nil); strings.Contains(string(config.body), redisPassword) {
					t.Error("/config shows the password")
				}
			}
			if total != requests+2 {
				t.Errorf("the metrics count %d decisions, want %d", total, requests+2)
			}
		})
	}
}

// TestSharedLimitOutages takes the backend away under traffic. Nobody gets a 5xx, and
// the gateway finds back by itself.
func TestSharedLimitOutages(t *testing.T) {
	t.Parallel()
	killed := func(t *testing.T) (string, func(), func()) {
		s := startRedis(t)
		return s.backend(), s.kill, s.start
	}
	paused := func(t *testing.T) (string, func(), func()) {
		s := startRedis(t)
		return s.backend(), func() { s.signal(syscall.SIGSTOP) }, func() { s.signal(syscall.SIGCONT) }
	}
	stopped := func(t *testing.T) (string, func(), func()) {
		s := pgtest.NewServer(t)
		return fmt.Sprintf("backend postgres %q", s.DSN()), func() { s.Stop(t) }, func() { s.Start(t) }
	}
	pausedPostgres := func(t *testing.T) (string, func(), func()) {
		s := pgtest.NewServer(t)
		return fmt.Sprintf("backend postgres %q", s.DSN()), func() { s.Pause(t) }, func() { s.Resume(t) }
	}
	for name, outage := range map[string]func(*testing.T) (backend string, begin, end func()){
		"redis killed": killed, "redis paused": paused, "postgres stopped": stopped, "postgres paused": pausedPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend, begin, end := outage(t)
			g := startGateway(t, settings{env: redisEnv, options: limitOptions(backend)})
			r := g.create(route{Path: "/limited", TargetURL: textUpstream(t, "ok"), RateLimit: 1_000_000})
			l := g.startLoad(4, "/limited", is("ok"))
			answered := func(what string, wanted func(results map[string]int, up bool) bool) {
				t.Helper()
				eventually(t, startTimeout, what, func() error {
					results, up, err := g.sharedResults()
					if err == nil && !wanted(results, up) {
						err = fmt.Errorf("up is %v and the metrics are %v", up, results)
					}
					return err
				})
			}
			answered("the backend counts", func(results map[string]int, up bool) bool { return up && results["ok"] > 20 })
			begin()
			answered("the outage is noticed", func(results map[string]int, up bool) bool {
				return !up && results["open"] > 20 && results["fallback"] > 20 && results["timeout"]+results["error"] > 0
			})
			l.more(100)

			// The limit holds without the backend.
			g.patch(r.ID, map[string]any{"rate_limit": 1_000_000, "limits": map[string]any{"window": 86400}})
			g.create(route{Path: "/few", TargetURL: textUpstream(t, "ok"), RateLimit: 3, Limits: map[string]any{"window": 86400}})
			for i := range 5 {
				want := http.StatusOK
				if i >= 3 {
					want = http.StatusTooManyRequests
				}
				if a := g.send(http.MethodGet, "/few"); a.status != want {
					t.Errorf("request %d during the outage is answered %s, want %d", i+1, a, want)
				}
			}

			end()
			before, _, err := g.sharedResults()
			if err != nil {
				t.Fatal(err)
			}
			answered("the backend counts again", func(results map[string]int, up bool) bool { return up && results["ok"] > before["ok"]+20 })
			l.more(50)
			l.wantNoLoss()
		})
	}
}

func TestSharedLimitOnError(t *testing.T) {
	t.Parallel()
	nobody := "127.0.0.1:" + itoa(freePort(t))
	backend := fmt.Sprintf("backend postgres postgres://user:s3cret-passw0rd@%s/x", nobody)
	limited := route{Path: "/limited", RateLimit: 2, Limits: map[string]any{"window": 86400}}

	t.Run("allow", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, settings{options: limitOptions(backend, "on_error allow", "headers legacy")})
		limited := limited
		limited.TargetURL = textUpstream(t, "ok")
		g.create(limited)
		for range 10 {
			a := g.send(http.MethodGet, "/limited")
			if a.status != http.StatusOK || a.header.Get("X-RateLimit-Remaining") != "2" {
				t.Fatalf("the answer is %s with %v", a, a.header)
			}
		}
	})
	t.Run("deny", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, settings{options: limitOptions(backend, "on_error deny")})
		limited := limited
		limited.TargetURL = textUpstream(t, "ok")
		g.create(limited)
		g.create(route{Path: "/free", TargetURL: limited.TargetURL})
		for range 10 {
			a := g.send(http.MethodGet, "/limited")
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || strings.Contains(string(a.body), "127.0.0.1") {
				t.Fatalf("the answer is %s with %v", a, a.header)
			}
		}
		g.wantBody("/free", "ok")
		if strings.Contains(g.log.String(), "s3cret") {
			t.Error("the log shows the password")
		}
	})
	t.Run("store in SQLite", func(t *testing.T) {
		t.Parallel()
		g := newGateway(t, settings{options: limitOptions("backend store")})
		g.start()
		if code := g.waitExit(); code == 0 {
			t.Error("the exit code is 0")
		}
		if last := g.log.tail(1); !strings.Contains(last, "needs a store in PostgreSQL") {
			t.Errorf("the last line is %s", last)
		}
	})
}

// TestSharedZone has two gateways share the limit of a site, in the app's store.
func TestSharedZone(t *testing.T) {
	t.Parallel()
	set := settings{dsn: pgtest.New(t), site: "isekai_rate_limit 5 24h {\n name site\n backend store\n timeout 30s\n on_error deny\n}"}
	gateways := []*gateway{startGateway(t, set), startGateway(t, set)}
	statuses := make(map[int]int)
	for i := range 12 {
		statuses[gateways[i%2].send(http.MethodGet, "/missing").status]++
	}
	if statuses[http.StatusNotFound] != 5 || statuses[http.StatusTooManyRequests] != 7 {
		t.Errorf("the statuses are %v, want 5 that are admitted and 7 refused", statuses)
	}
	if results, up, err := gateways[0].sharedResults(); err != nil || !up || results["ok"] != 6 {
		t.Errorf("up is %v and the metrics are %v, %v", up, results, err)
	}
}
