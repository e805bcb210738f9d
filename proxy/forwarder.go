package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/internal/tracing"
	"github.com/isekai-gateway/isekai/store"
)

// The values of upstream.protocol.
const (
	protocolAuto  = "auto"
	protocolHTTP1 = "http1"
	protocolHTTP2 = "http2"
	protocolH2C   = "h2c"
)

// Forwarder sends requests to a pool of targets. It is shared by all routes with
// equal settings and safe for concurrent use.
type Forwarder struct {
	pool      *pool
	handler   *reverseproxy.Handler
	stop      context.CancelFunc
	cleanUp   func() // of the selection policy
	registry  *Registry
	key       string
	transport string
}

// ServeHTTP forwards r, whose URL already has the upstream's path, and streams
// the answer back. Errors are caddyhttp.HandlerErrors.
func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	call := callOf(r)
	if call == nil {
		call = new(Call)
		r = r.WithContext(context.WithValue(r.Context(), CallKey{}, call))
	}
	if call.Interrupt != nil && r.ContentLength != 0 {
		// http.Transport waits for a Read of the body, whose client may never send more,
		// also when the exchange is over for another reason.
		stop := context.AfterFunc(r.Context(), func() { call.Interrupt(true) })
		defer stop()
	}
	whole := false
	defer func() {
		if !whole && call.span != nil {
			tracing.Failed(call.span, "cut", errCut)
		}
		call.end()
		call.body.rethrow()
	}()
	done, err := f.serveFast(w, r, call)
	if !done {
		err = f.serveFull(w, r, call, err)
	}
	whole = true
	return err
}

// serveFull has reverse_proxy serve r, which may have failed before with err.
func (f *Forwarder) serveFull(w http.ResponseWriter, r *http.Request, call *Call, before error) error {
	tries := call.attempts
	err := f.handler.ServeHTTP(w, r, nil)
	if err == nil || call.attempts > tries {
		return err
	}
	if failed, ok := errors.AsType[caddyhttp.HandlerError](err); !ok || failed.StatusCode != http.StatusServiceUnavailable {
		return err
	}
	if before != nil {
		return statusOf(before)
	}
	return f.noTarget(w)
}

// noTarget answers that none of the targets may get the request.
func (f *Forwarder) noTarget(w http.ResponseWriter) error {
	wait, err := f.pool.noTarget()
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	return caddyhttp.Error(http.StatusServiceUnavailable, err)
}

// errCut says that an answer was broken off, by the upstream or since the client had
// left.
var errCut = errors.New("the answer was broken off")

// Release gives the forwarder back. The last one to do so closes its upgraded
// connections and, if no other forwarder uses it, its transport.
func (f *Forwarder) Release() error {
	_, err := f.registry.forwarders.Delete(f.key)
	return err
}

// Destruct implements caddy.Destructor, for the registry's pool.
func (f *Forwarder) Destruct() error {
	f.stop()
	err := f.handler.Cleanup()
	f.cleanUp()
	f.registry.states.release(f.pool.state)
	_, poolErr := f.registry.transports.Delete(f.transport)
	return errors.Join(err, poolErr)
}

// settings are what makes a forwarder; equal ones are shared.
type settings struct {
	Targets      []poolTarget
	PreserveHost bool
	Protocol     string
	Upstream     store.Upstream // what else there is
}

// poolTarget is a target as far as its pool goes: without a path.
type poolTarget struct {
	Scheme      string
	Address     string
	Host        string
	Weight      int
	MaxRequests int
}

// connection is what makes a transport; equal ones are shared.
type connection struct {
	TLS      bool
	Protocol string
	Settings store.UpstreamTLS
	Timeouts store.UpstreamTimeouts
}

// Acquire returns the forwarder for a target and its settings, making it if it
// isn't there. It must be called within Serialize. The caller must Release it.
func (g *Registry) Acquire(t *Target, upstream *store.Upstream, preserveHost bool) (*Forwarder, error) {
	s, err := settingsOf(t, upstream, preserveHost)
	if err != nil {
		return nil, err
	}
	key, err := poolKey(s)
	if err != nil {
		return nil, err
	}
	value, _, err := g.forwarders.LoadOrNew(key, func() (caddy.Destructor, error) {
		return g.newForwarder(key, s)
	})
	if err != nil {
		return nil, err
	}
	return value.(*Forwarder), nil
}

// settingsOf brings a route's settings into the form in which they are compared.
func settingsOf(t *Target, upstream *store.Upstream, preserveHost bool) (settings, error) {
	s := settings{PreserveHost: preserveHost, Protocol: protocolOf(t, upstream)}
	if upstream != nil {
		s.Upstream = *upstream
	}
	s.Upstream.Targets, s.Upstream.Protocol = nil, ""
	if upstream == nil || len(upstream.Targets) == 0 {
		s.Targets = []poolTarget{{Scheme: t.Scheme, Address: t.Address, Host: t.Host, Weight: 1}}
		return s, nil
	}
	for i, member := range upstream.Targets {
		parsed, err := ParseTarget(member.URL, nil)
		if err != nil {
			return settings{}, fmt.Errorf("upstream.targets[%d]: %w", i, err)
		}
		weight := 1
		if member.Weight != nil {
			weight = *member.Weight
		}
		s.Targets = append(s.Targets, poolTarget{
			Scheme: parsed.Scheme, Address: parsed.Address, Host: parsed.Host,
			Weight: weight, MaxRequests: member.MaxRequests,
		})
	}
	return s, nil
}

func (g *Registry) newForwarder(key string, s settings) (*Forwarder, error) {
	conn := connection{TLS: s.Targets[0].Scheme == "https", Protocol: s.Protocol}
	if s.Upstream.TLS != nil {
		conn.Settings = *s.Upstream.TLS
	}
	p := &pool{
		id:           key[:12],
		byUpstream:   make(map[*reverseproxy.Upstream]*target, len(s.Targets)),
		breaks:       s.Upstream.CircuitBreaker != nil,
		preserveHost: s.PreserveHost,
		retry:        newRetryRules(&s.Upstream, len(s.Targets)),
	}
	p.observe = func(t *target) { g.observe(p, t) }
	p.suspects = s.Upstream.Health != nil && s.Upstream.Health.Passive != nil
	if timeouts := s.Upstream.Timeouts; timeouts != nil {
		p.idle = timeouts.Idle.Duration(0)
		conn.Timeouts = store.UpstreamTimeouts{Connect: timeouts.Connect, ResponseHeader: timeouts.ResponseHeader}
	}
	transportKey, err := poolKey(conn)
	if err != nil {
		return nil, err
	}
	value, _, err := g.transports.LoadOrNew(transportKey, func() (caddy.Destructor, error) {
		return newTransport(g.ctx, g.policy, &conn)
	})
	if err != nil {
		return nil, err
	}
	shared := value.(sharedTransport)
	p.transport = shared.Transport
	if g.fastLane && !needsFullLane(s.Upstream.PolicyOptions) {
		p.lane = shared.lane
	}
	p.state = g.states.acquire(key, s.Targets, &s.Upstream)
	f := &Forwarder{pool: p, registry: g, key: key, transport: transportKey, stop: func() {}, cleanUp: func() {}}
	if err := f.provision(s); err != nil {
		f.stop()
		f.cleanUp()
		// Only a handler that got as far as counting its upstreams may be cleaned
		// up, or it would discount another's.
		if f.handler != nil && f.handler.Upstreams[0].Host != nil {
			err = errors.Join(err, f.handler.Cleanup())
		}
		g.states.release(p.state)
		_, poolErr := g.transports.Delete(transportKey)
		return nil, errors.Join(err, poolErr)
	}
	return f, nil
}

// provision makes the pool's targets and the reverse proxy around them.
func (f *Forwarder) provision(s settings) error {
	p, ctx := f.pool, f.registry.ctx
	upstreams := make(reverseproxy.UpstreamPool, len(s.Targets))
	for i, member := range s.Targets {
		t := &target{
			targetState: p.state.targets[i],
			upstream:    &reverseproxy.Upstream{Dial: member.Address},
			scheme:      member.Scheme,
			authority:   member.Address,
			host:        member.Host,
			weight:      member.Weight,
			most:        int64(member.MaxRequests),
		}
		p.targets = append(p.targets, t)
		p.byUpstream[t.upstream] = t
		p.bounded = p.bounded || t.most > 0
		upstreams[i] = t.upstream
	}
	var err error
	if f.cleanUp, err = p.balance(ctx, &s.Upstream); err != nil {
		f.cleanUp = func() {}
		return err
	}
	ctx.Context, f.stop = context.WithCancel(ctx.Context)
	f.handler = &reverseproxy.Handler{
		Transport: p,
		LoadBalancing: &reverseproxy.LoadBalancing{
			SelectionPolicy: p,
			Retries:         p.retry.most,
			RetryMatch:      caddyhttp.MatcherSets{{granted{}}},
		},
		HealthChecks: activeChecks(s.Upstream.Health),
		Upstreams:    upstreams,
	}
	if err := f.handler.Provision(ctx); err != nil {
		return fmt.Errorf("provisioning reverse proxy: %w", err)
	}
	return nil
}

// protocolOf resolves the default protocol.
func protocolOf(t *Target, upstream *store.Upstream) string {
	switch {
	case upstream != nil && upstream.Protocol != "":
		return upstream.Protocol
	case t.H2C:
		return protocolH2C
	}
	return protocolAuto
}

// Interface guards
var (
	_ caddyhttp.Handler = (*Forwarder)(nil)
	_ caddy.Destructor  = (*Forwarder)(nil)
)
