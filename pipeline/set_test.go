package pipeline

import (
	"context"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/internal/inflight"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// A client that has left before its route was compiled is charged like any other.
func TestGetForAClientThatHasLeft(t *testing.T) {
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
	defer set.Close(true)
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
