package e2e_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestBalancing goes through all policies: what each promises can be seen in who
// answers.
func TestBalancing(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	list := newBackends(t, "a", "b", "c")
	ask := func(r route, change ...func(*http.Request)) string {
		t.Helper()
		a := g.send(http.MethodGet, r.Path, change...)
		if a.status != http.StatusOK {
			t.Fatalf("%s answers %s", r.Path, a)
		}
		return string(a.body)
	}
	add := func(name string, u *upstreamSettings) route {
		t.Helper()
		return g.create(route{Path: "/" + name, TargetURL: list[0].url(), Upstream: u})
	}
	policy := func(name string, options map[string]any) *upstreamSettings {
		u := poolOf(list...)
		u.Policy, u.PolicyOptions = name, options
		return u
	}

	for name, u := range map[string]*upstreamSettings{
		"default": poolOf(list...), "round_robin": policy("round_robin", nil), "weighted_round_robin": policy("weighted_round_robin", nil),
	} {
		r := add(name, u)
		hitsOf(list...)
		for range 30 {
			ask(r)
		}
		if diff := cmp.Diff(map[string]int{"a": 10, "b": 10, "c": 10}, hitsOf(list...)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, name := range []string{"", "round_robin", "weighted_round_robin"} {
		r := add("weighted-"+name, policy(name, nil).weighing(3, 2, 0))
		hitsOf(list...)
		for range 50 {
			ask(r)
		}
		if diff := cmp.Diff(map[string]int{"a": 30, "b": 20}, hitsOf(list...)); diff != "" {
			t.Errorf("weights with policy %q: %s", name, diff)
		}
	}

	r := add("first", policy("first", nil))
	for range 10 {
		if got := ask(r); got != "a" {
			t.Errorf("first: %s answers", got)
		}
	}
	for name, options := range map[string]map[string]any{"random": nil, "random_choose": {"choose": 2}, "least_conn": nil} {
		r := add(name, policy(name, options))
		hitsOf(list...)
		// That one of three never comes up in so many draws does not happen.
		for range 150 {
			ask(r)
		}
		want := 3
		if name == "random_choose" {
			want = 2 // of those that it draws, it prefers the first that is idle
		}
		if got := hitsOf(list...); len(got) < want {
			t.Errorf("%s: %v", name, got)
		}
	}

	// Everyone has the same address here, so one target answers all.
	for _, name := range []string{"ip_hash", "client_ip_hash"} {
		r := add(name, policy(name, nil))
		first := ask(r)
		for range 10 {
			if got := ask(r); got != first {
				t.Errorf("%s: %s answers, and before %s", name, got, first)
			}
		}
	}
	// What is hashed keeps its target, and different things spread.
	for name, c := range map[string]struct {
		options map[string]any
		change  func(int) func(*http.Request)
	}{
		"uri_hash": {change: func(i int) func(*http.Request) {
			return func(r *http.Request) { r.URL.RawQuery = fmt.Sprint("x=", i) }
		}},
		"header": {options: map[string]any{"field": "X-User"}, change: func(i int) func(*http.Request) { return header("X-User", fmt.Sprint("user", i)) }},
		"query": {options: map[string]any{"key": "user"}, change: func(i int) func(*http.Request) {
			return func(r *http.Request) { r.URL.RawQuery = fmt.Sprint("user=", i) }
		}},
	} {
		for _, weights := range [][]int{nil, {1, 2, 3}} {
			r := add(fmt.Sprint(name, len(weights)), policy(name, c.options).weighing(weights...))
			seen := map[string]bool{}
			for i := range 40 {
				first := ask(r, c.change(i))
				seen[first] = true
				if again := ask(r, c.change(i)); again != first {
					t.Errorf("%s: %s answers, and before %s", name, again, first)
				}
			}
			if len(seen) < 2 {
				t.Errorf("%s: only %v answers", name, seen)
			}
		}
	}

	pool := g.pool(r.ID)
	if len(pool.Targets) != 3 || pool.Policy != "first" || pool.Requests != 10 || pool.Targets[0].Requests != 10 || pool.Targets[1].Requests != 0 ||
		pool.Targets[0].InFlight != 0 || pool.Targets[0].State != "healthy" || pool.Targets[0].URL != list[0].url() {
		t.Errorf("the pool is shown as %+v", pool)
	}
}

// TestCanary splits traffic by weight, sticky by cookie or by header.
func TestCanary(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	stable, canary := newBackend(t, "stable"), newBackend(t, "canary")
	byCookie, byHeader := poolOf(stable, canary).weighing(9, 1), poolOf(stable, canary).weighing(9, 1)
	byCookie.Policy, byCookie.PolicyOptions = "cookie", map[string]any{"name": "lane", "secret": "s3cret"}
	byHeader.Policy, byHeader.PolicyOptions = "header", map[string]any{"field": "X-User"}
	g.create(route{Path: "/cookie", TargetURL: stable.url(), Upstream: byCookie})
	g.create(route{Path: "/header", TargetURL: stable.url(), Upstream: byHeader})

	const users = 400
	share := func(how string, canaries int) {
		t.Helper()
		// Six standard deviations around a tenth.
		if diff := math.Abs(float64(canaries) - users*0.1); diff > 6*math.Sqrt(users*0.1*0.9) {
			t.Errorf("by %s, %d of %d users are on the canary", how, canaries, users)
		}
	}
	canaries := 0
	for range users {
		a := g.send(http.MethodGet, "/cookie")
		set := a.header["Set-Cookie"]
		if len(set) != 1 {
			t.Fatalf("the first answer sets %q", set)
		}
		cookie, err := http.ParseSetCookie(set[0])
		if err != nil {
			t.Fatal(err)
		}
		again := g.send(http.MethodGet, "/cookie", header("Cookie", cookie.Name+"="+cookie.Value))
		if string(again.body) != string(a.body) || len(again.header["Set-Cookie"]) != 0 {
			t.Errorf("with the cookie of %s, %s answers and sets %q", a.body, again.body, again.header["Set-Cookie"])
		}
		if string(a.body) == "canary" {
			canaries++
		}
	}
	share("cookie", canaries)
	canaries = 0
	for i := range users {
		user := header("X-User", fmt.Sprint("user", i))
		a := g.send(http.MethodGet, "/header", user)
		if again := g.send(http.MethodGet, "/header", user); string(again.body) != string(a.body) {
			t.Errorf("user %d is on %s, then on %s", i, a.body, again.body)
		}
		if string(a.body) == "canary" {
			canaries++
		}
	}
	share("header", canaries)
}

// TestPoolsAreShared has routes with equal settings share one pool and its state,
// and others not.
func TestPoolsAreShared(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	list := newBackends(t, "a", "b")
	one := g.create(route{Path: "/one", Name: "one", TargetURL: list[0].url() + "/x", Upstream: poolOf(list...)})
	two := g.create(route{Path: "/two", TargetURL: list[0].url() + "/y", Upstream: poolOf(list...)})
	three := g.create(route{Path: "/three", TargetURL: list[0].url(), Upstream: poolOf(list...).weighing(1, 2)})
	got := ""
	for range 4 {
		for _, r := range []route{one, two} {
			got += string(g.send(http.MethodGet, r.Path).body)
		}
	}
	if got != "babababa" && got != "abababab" {
		t.Errorf("two routes with one pool are answered by %s", got)
	}
	g.send(http.MethodGet, "/three")
	pools := g.pools("")
	if len(pools) != 2 || len(pools[0].Routes) != 2 || pools[0].Routes[0].Name != "one" || pools[0].Routes[1].ID != two.ID ||
		pools[0].Requests != 8 || len(pools[1].Routes) != 1 || pools[1].Routes[0].ID != three.ID || pools[0].ID == pools[1].ID {
		t.Errorf("the pools are %+v", pools)
	}
	if page := g.pools("?limit=1"); len(page) != 1 || page[0].ID != pools[0].ID {
		t.Errorf("the first page is %+v", page)
	}

	// An edit of something else, and a reload, keep the pool's counts.
	g.patch(two.ID, map[string]any{"name": "edited"})
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	// A reload may cost a connection that is made at that moment.
	eventually(t, servedWithin, "/two is served after a reload", func() error {
		_, err := g.trySend(http.MethodGet, "/two")
		return err
	})
	if pool := g.pool(two.ID); pool.ID != pools[0].ID || pool.Requests != 9 {
		t.Errorf("after an edit and a reload the pool is %+v", pool)
	}
}

// sendMany sends n requests at once. One that is not answered is an error of the test.
func (g *gateway) sendMany(n int, path string) <-chan answer {
	answers := make(chan answer)
	for range n {
		go func() {
			got, err := g.trySend(http.MethodGet, path)
			if err != nil {
				g.t.Error(err)
			}
			answers <- got
		}()
	}
	return answers
}

// TestBusyTarget bounds the requests in flight to a target.
func TestBusyTarget(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	busy, release := make(chan struct{}, 8), make(chan struct{})
	wait := func(w http.ResponseWriter, _ *http.Request) {
		busy <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "done")
	}
	a.answer(wait)
	b.answer(wait)
	u := poolOf(a, b)
	u.Policy = "first"
	u.Targets[0].MaxRequests, u.Targets[1].MaxRequests = 2, 1
	r := g.create(route{Path: "/x", TargetURL: a.url(), Upstream: u})
	answers := g.sendMany(3, "/x")
	for range 3 {
		<-busy
	}
	pool := g.pool(r.ID)
	if pool.Targets[0].InFlight != 2 || pool.Targets[1].InFlight != 1 {
		t.Errorf("the busy pool is %+v", pool)
	}
	full := g.send(http.MethodGet, "/x")
	wantProblem(t, full, http.StatusServiceUnavailable)
	if full.header.Get("Retry-After") == "" {
		t.Error("a full pool's 503 has no Retry-After")
	}
	close(release)
	for range 3 {
		if got := <-answers; got.status != http.StatusOK {
			t.Errorf("a request that fitted is answered %s", got)
		}
	}
}

// TestBusyTargetsAtOnce has many requests choose at the same moment: together they get
// what the targets may have, not one more or less.
func TestBusyTargetsAtOnce(t *testing.T) {
	t.Parallel()
	const rounds, clients, room = 20, 24, 3
	g := startGateway(t, settings{})
	a, b := newBackend(t, "a"), newBackend(t, "b")
	var gate atomic.Value
	wait := func(w http.ResponseWriter, _ *http.Request) {
		<-gate.Load().(chan struct{})
		_, _ = io.WriteString(w, "done")
	}
	a.answer(wait)
	b.answer(wait)
	for _, policy := range []string{"first", "least_conn", "round_robin"} {
		u := poolOf(a, b)
		u.Policy = policy
		u.Targets[0].MaxRequests, u.Targets[1].MaxRequests = 2, 1
		path := "/" + policy
		g.create(route{Path: path, TargetURL: a.url(), Upstream: u})
		for round := range rounds {
			release := make(chan struct{})
			gate.Store(release)
			answers := g.sendMany(clients, path)
			// All that are refused are so before the first is let go.
			for range clients - room {
				if got := <-answers; got.status != http.StatusServiceUnavailable {
					t.Errorf("%s, round %d: a request too many is answered %s", policy, round, got)
				}
			}
			close(release)
			for range room {
				if got := <-answers; got.status != http.StatusOK {
					t.Errorf("%s, round %d: a request that fitted is answered %s", policy, round, got)
				}
			}
		}
	}
}
