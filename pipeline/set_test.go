package pipeline

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/internal/inflight"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func newSet(t *testing.T) *Set {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{Admin: &caddy.AdminConfig{Disabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewSet(ctx, Options{
		TTL: time.Minute, CleanupInterval: time.Minute, MaxSize: 10,
		Limits: ratelimit.New(ratelimit.Config{}), InFlight: new(inflight.Counts),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close(true) })
	return set
}

// A client that has left before its route was compiled is charged like any other.
func TestGetForAClientThatHasLeft(t *testing.T) {
	set := newSet(t)
	row := store.NewRoute("/x", "http://127.0.0.1:1")
	row.ID, row.RateLimit = 1, 5
	route, err := routing.Compile(row)
	if err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	p, hit, err := set.Get(gone, route)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	again, hitAgain, err := set.Get(t.Context(), route)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Release()
	if hit || !hitAgain || again != p {
		t.Errorf("the first request has hit: %t, the second: %t, the same pipeline: %t", hit, hitAgain, again == p)
	}
	if p.limit == nil || p.err != nil {
		t.Errorf("the pipeline has no limit, or is broken: %v", p.err)
	}
}

// A route that is dropped while Start goes through an older table is not asked for
// its health.
func TestStartWhileRoutesChange(t *testing.T) {
	set := newSet(t)
	asked := func(id int64) *store.Route {
		row := store.NewRoute("/"+strconv.FormatInt(id, 10), "http://127.0.0.1:1")
		row.ID = id
		row.Upstream = &store.Upstream{Health: &store.HealthChecks{Active: &store.ActiveHealth{Path: "/"}}}
		return row
	}
	older := routing.NewTable([]*store.Route{asked(1), asked(2)}, 1)
	gone := asked(1)
	gone.DeletedAt = new(time.Now())
	newer := older.Apply([]*store.Route{gone}, 2)
	reads := 0
	set.Start(func() *routing.Table {
		if reads++; reads > 1 {
			return newer
		}
		set.Change(nil, []*routing.Route{older.Compiled(1)})
		return older
	})
	for len(set.Upstreams()) == 0 && t.Context().Err() == nil {
		runtime.Gosched()
	}
	pools := set.Upstreams()
	if len(pools) != 1 || len(pools[0].Routes) != 1 || pools[0].Routes[0].ID != 2 {
		t.Errorf("pools %+v", pools)
	}
}
