package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
)

// provisioning serialises provisioning of Caddy modules at run time:
// reverse_proxy writes a package variable of its own while it provisions.
var provisioning sync.Mutex

// Serialize runs fn while nothing else provisions a module through this
// package. Whoever provisions Caddy modules at run time must do it in here.
func Serialize(fn func() error) error {
	provisioning.Lock()
	defer provisioning.Unlock()
	return fn()
}

// Registry hands out forwarders for one Caddy configuration, and watches their
// targets' health. Make one with NewRegistry and end it with Close.
type Registry struct {
	ctx        caddy.Context
	policy     *Policy
	states     *States
	fastLane   bool
	forwarders *caddy.UsagePool
	transports *caddy.UsagePool
	events     *caddyevents.App
	logger     *zap.Logger
	changes    chan change
	stop       context.CancelFunc
	watching   sync.WaitGroup
}

// NewRegistry returns an empty registry, whose forwarders have a fast lane beside
// Caddy's reverse_proxy or not. The context's cancellation is not heeded, since a
// reload cancels it while requests are still in flight.
func NewRegistry(ctx caddy.Context, policy *Policy, states *States, fastLane bool) (*Registry, error) {
	events, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("loading events app: %w", err)
	}
	ctx.Context = context.WithoutCancel(ctx.Context)
	g := &Registry{
		ctx:        ctx,
		policy:     policy,
		states:     states,
		fastLane:   fastLane,
		forwarders: caddy.NewUsagePool(),
		transports: caddy.NewUsagePool(),
		events:     events.(*caddyevents.App),
		logger:     ctx.Logger().Named("upstreams"),
		changes:    make(chan change, maxChanges),
	}
	watch, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.watching.Go(func() { g.watch(watch) })
	return g, nil
}

// Close stops watching. Forwarders that are in use go on.
func (g *Registry) Close() {
	g.stop()
	g.watching.Wait()
}

// poolKey is a text that is the same for equal values. It does not show them, since
// there may be secrets among them.
func poolKey(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding pool key: %w", err)
	}
	return digest(string(b)), nil
}
