package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/internal/inflight"
	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// DefaultDrainTimeout is how long the streams of a route that was changed or
// deleted may go on.
const DefaultDrainTimeout = 5 * time.Minute

// Options sets up a Set.
type Options struct {
	// Bounds of the cache of compiled pipelines.
	TTL             time.Duration
	CleanupInterval time.Duration
	MaxSize         int

	// The modules that routes may use, see DefaultPlugins, which nil stands for.
	Plugins []string

	// Which addresses routes may forward to. Nil: the default policy.
	Policy *proxy.Policy

	// How long the streams of a route that was changed or deleted may go on, and
	// its requests if it has no timeout. Default: 5m.
	DrainTimeout time.Duration

	// The counters of the routes' rate limits. Required.
	Limits ratelimit.Backend

	// Which fields tell clients about them, for routes without limits.headers.
	// Default: ratelimit.HeadersIETF.
	LimitHeaders ratelimit.HeaderStyle

	// Counts what the rate limits decide. Nil: nobody asks.
	Decisions *ratelimit.Tally

	// What pools of targets have learned. Nil: a new one.
	States *proxy.States

	// Where the copies for the routes' mirrors wait.
	Mirror *mirror.Queue

	// Counts the requests of routes with limits.max_concurrent.
	InFlight *inflight.Counts

	// The most bytes of a request's body, for routes without limits.body_max.
	// Default: 0, no bound.
	BodyMax int64

	// Whether forwarders have a fast lane beside Caddy's reverse_proxy.
	FastLane bool

	// Finds out who makes a request. Nil: routes with auth can't be served.
	Verifier *auth.Verifier
}

// Set holds the pipelines of one Caddy configuration. It is safe for concurrent
// use. Make one with NewSet and end it with Close.
type Set struct {
	cache    *cache.Cache[*routing.Route, *Pipeline]
	compiler *compiler
	drain    time.Duration
	logger   *zap.Logger

	disposing sync.WaitGroup
	warm      warmer

	retired atomic.Bool // Close was called

	mu   sync.Mutex
	live map[*routing.Route][]*Pipeline // those not disposed, in the cache or not
	exit bool                           // Close waits for what is being disposed
}

// NewSet returns an empty set and starts its cache's clean-up worker.
func NewSet(ctx caddy.Context, o Options) (*Set, error) {
	if o.Plugins == nil {
		o.Plugins = DefaultPlugins
	}
	if o.Policy == nil {
		o.Policy = new(proxy.Policy)
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.LimitHeaders == "" {
		o.LimitHeaders = ratelimit.HeadersIETF
	}
	if o.States == nil {
		o.States = new(proxy.States)
	}
	if o.LimitHeaders == "" {
		o.LimitHeaders = ratelimit.HeadersIETF
	}
	if o.Decisions == nil {
		o.Decisions = new(ratelimit.Tally)
	}
	s := &Set{drain: o.DrainTimeout, logger: ctx.Logger().Named("pipeline"), live: make(map[*routing.Route][]*Pipeline)}
	s.compiler = &compiler{
		ctx:      ctx,
		policy:   o.Policy,
		plugins:  o.Plugins,
		chains:   caddy.NewUsagePool(),
		limits:   newLimiter(o, ctx.Logger().Named("ratelimit")),
		mirrors:  caddy.NewUsagePool(),
		copies:   o.Mirror,
		inFlight: o.InFlight,
		bodyMax:  o.BodyMax,
		verifier: o.Verifier,
	}
	// A reload cancels the context while pipelines still have requests.
	s.compiler.ctx.Context = context.WithoutCancel(ctx.Context)

	var err error
	if s.compiler.forwarders, err = proxy.NewRegistry(ctx, o.Policy, o.States, o.FastLane); err != nil {
		return nil, err
	}
	s.cache, err = cache.New[*routing.Route](cache.Options[*Pipeline]{
		TTL:             o.TTL,
		CleanupInterval: o.CleanupInterval,
		MaxSize:         o.MaxSize,
		Release:         (*Pipeline).Release,
	})
	if err != nil {
		s.compiler.forwarders.Close()
		return nil, err
	}
	return s, nil
}

// Get returns the pipeline of a route, compiling it on first use, even if ctx is
// done. The caller must Release it. A route that can't be compiled has a pipeline too, whose
// Serve answers with the reason, so that it isn't tried anew on every request. hit
// says that it was there.
func (s *Set) Get(ctx context.Context, route *routing.Route) (p *Pipeline, hit bool, err error) {
	if p, hit = s.cache.Lookup(route); hit && p.acquire() {
		return p, true, nil
	}
	p, err = s.get(ctx, route)
	return p, false, err
}

func (s *Set) get(ctx context.Context, route *routing.Route) (*Pipeline, error) {
	for {
		p, err := s.cache.Get(ctx, route, s.build)
		if errors.Is(err, cache.ErrClosed) {
			// The configuration is being replaced, and this request came before
			// that. It gets a pipeline of its own.
			return s.build(ctx, route)
		}
		if err != nil && ctx.Err() != nil {
			// The client has left, and its request counts all the same: otherwise
			// one that resets its streams at once would get around rate limits for
			// as long as nobody else has the route compiled.
			ctx = context.WithoutCancel(ctx)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("getting pipeline: %w", err)
		}
		if p.acquire() {
			return p, nil
		}
		// It left the cache and was disposed in between.
		s.cache.Invalidate(route)
	}
}

func (s *Set) build(_ context.Context, route *routing.Route) (*Pipeline, error) {
	p, err := s.compiler.compile(route)
	if err != nil {
		s.logger.Error("route can't be served", zap.Int64("route", route.ID), zap.Error(err))
		p = &Pipeline{Route: route, err: err}
		// Pages may still read that it is so, if it is not this that can't be set up.
		p.cors, _ = newCORS(route)
		p.refs.Start()
	}
	p.set = s
	s.mu.Lock()
	s.live[route] = append(s.live[route], p)
	s.mu.Unlock()
	return p, nil
}

// Validate checks a route before it is written. Errors are store.FieldErrors.
func (s *Set) Validate(_ context.Context, row *store.Route) error {
	if err := Check(row, s.compiler.plugins, s.compiler.policy, s.compiler.methods()); err != nil {
		return err
	}
	return dryRun(s.compiler.ctx, row.Plugins, s.compiler.policy)
}

// Change tells of routes that are new, and of those that have changed or are gone.
// The pipelines of the latter are let go. What still runs on them is ended after
// the drain time, also on pipelines that had left the cache before.
func (s *Set) Change(added, dropped []*routing.Route) {
	for _, route := range added {
		s.warm.add(route)
	}
	for _, route := range dropped {
		s.mu.Lock()
		for _, p := range s.live[route] {
			p.drainWithin(s.drain)
		}
		s.mu.Unlock()
		s.warm.drop(route)
		s.cache.Invalidate(route)
	}
}

// Start begins to ask for the health of targets of the routes that are there, and
// of those that Change tells of. The table is the one that is current when it is asked
// for, nil for none.
func (s *Set) Start(table func() *routing.Table) {
	began := table()
	if began != nil {
		for route := range began.Routes() {
			if route.Problem() == nil {
				s.warm.add(route)
			}
		}
	}
	// Change may have told of the end of some before they were added.
	if now := table(); began != nil && now != began {
		for route := range began.Routes() {
			if now.Compiled(route.ID) != route {
				s.warm.drop(route)
			}
		}
	}
	s.warm.start(s)
}

// Upstreams returns the pools of targets that are in use, and their routes.
func (s *Set) Upstreams() []proxy.PoolStatus {
	routes := make(map[*proxy.Forwarder][]*routing.Route)
	s.warm.each(func(route *routing.Route, f *proxy.Forwarder) { routes[f] = append(routes[f], route) })
	s.mu.Lock()
	for route, pipelines := range s.live {
		for _, p := range pipelines {
			if p.forwarder != nil && !slices.Contains(routes[p.forwarder], route) {
				routes[p.forwarder] = append(routes[p.forwarder], route)
			}
		}
	}
	s.mu.Unlock()
	pools := make([]proxy.PoolStatus, 0, len(routes))
	for f, list := range routes {
		status := f.Status()
		for _, route := range list {
			status.Routes = append(status.Routes, proxy.PoolRoute{ID: route.ID, Name: route.Name()})
		}
		slices.SortFunc(status.Routes, func(a, b proxy.PoolRoute) int { return cmp.Compare(a.ID, b.ID) })
		pools = append(pools, status)
	}
	slices.SortFunc(pools, func(a, b proxy.PoolStatus) int { return cmp.Compare(a.Routes[0].ID, b.Routes[0].ID) })
	return pools
}

// CacheStats returns the counters of the cache of pipelines.
func (s *Set) CacheStats() cache.Stats {
	counted := s.cache.Stats()
	if s.retired.Load() {
		counted.Size = 0
	}
	return counted
}

// drainWithin has the pipeline's streams ended after a time.
func (p *Pipeline) drainWithin(limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drain == nil {
		p.drain = time.AfterFunc(limit, p.abortStreams)
	}
}

// errDrained is the cause of a stream that outlasted its route.
var errDrained = errors.New("the route was changed and its drain time has passed")

func (p *Pipeline) abortStreams() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	for x := range p.streams {
		x.cancel(errDrained)
	}
}

// disposeSoon disposes p outside of all locks and requests.
func (s *Set) disposeSoon(p *Pipeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit {
		return // Close does it
	}
	s.disposing.Go(func() { s.disposeNow(p) })
}

// disposeNow gives back what p uses, once.
func (s *Set) disposeNow(p *Pipeline) {
	p.dispose.Do(func() {
		s.mu.Lock()
		rest := slices.DeleteFunc(s.live[p.Route], func(other *Pipeline) bool { return other == p })
		if s.live[p.Route] = rest; len(rest) == 0 {
			delete(s.live, p.Route)
		}
		s.mu.Unlock()
		p.mu.Lock()
		if p.drain != nil {
			p.drain.Stop()
		}
		p.mu.Unlock()
		if p.err != nil {
			return
		}
		if err := errors.Join(p.chain(), p.forwarder.Release(), p.mirror.dispose()); err != nil {
			s.logger.Warn("cleaning up a pipeline", zap.Int64("route", p.Route.ID), zap.Error(err))
		}
	})
}

// Close empties the set and stops its worker. Pipelines that still have requests
// or streams are disposed when these end. With now, as when the process exits,
// they are disposed at once, which tells the peers of open WebSockets that the
// gateway is going away, and Close waits for that.
func (s *Set) Close(now bool) {
	s.retired.Store(true)
	s.warm.close(s)
	s.cache.Close()
	s.compiler.forwarders.Close()
	if !now {
		return
	}
	s.mu.Lock()
	s.exit = true
	live := slices.Concat(slices.Collect(maps.Values(s.live))...)
	s.mu.Unlock()
	for _, p := range live {
		s.disposeNow(p)
	}
	s.disposing.Wait()
}
