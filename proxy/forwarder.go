package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/store"
)

// The values of upstream.protocol.
const (
	protocolAuto  = "auto"
	protocolHTTP1 = "http1"
	protocolHTTP2 = "http2"
	protocolH2C   = "h2c"
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

// Forwarder sends requests to one target. It is shared by all routes with equal
// settings and safe for concurrent use.
type Forwarder struct {
	handler   *reverseproxy.Handler
	stop      context.CancelFunc
	registry  *Registry
	key       string
	transport string
}

// ServeHTTP forwards r, whose URL already has the upstream's path, and streams
// the answer back. Errors are caddyhttp.HandlerErrors.
func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	return f.handler.ServeHTTP(w, r, nil)
}

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
	_, poolErr := f.registry.transports.Delete(f.transport)
	return errors.Join(err, poolErr)
}

// Registry hands out forwarders for one Caddy configuration.
type Registry struct {
	ctx        caddy.Context
	policy     *Policy
	forwarders *caddy.UsagePool
	transports *caddy.UsagePool
}

// NewRegistry returns an empty registry. The context's cancellation is not
// heeded, since a reload cancels it while requests are still in flight.
func NewRegistry(ctx caddy.Context, policy *Policy) *Registry {
	ctx.Context = context.WithoutCancel(ctx.Context)
	return &Registry{
		ctx:        ctx,
		policy:     policy,
		forwarders: caddy.NewUsagePool(),
		transports: caddy.NewUsagePool(),
	}
}

// settings are what makes a forwarder; equal ones are shared.
type settings struct {
	Scheme   string
	Address  string
	Host     string // empty to preserve the client's
	Protocol string
	TLS      store.UpstreamTLS
}

// connection are the part of settings that makes a transport.
type connection struct {
	TLS      bool
	Protocol string
	Settings store.UpstreamTLS
}

// Acquire returns the forwarder for a target and its settings, making it if it
// isn't there. It must be called within Serialize. The caller must Release it.
func (g *Registry) Acquire(t *Target, upstream *store.Upstream, preserveHost bool) (*Forwarder, error) {
	s := settings{Scheme: t.Scheme, Address: t.Address, Host: t.Host, Protocol: protocolOf(t, upstream)}
	if preserveHost {
		s.Host = ""
	}
	if upstream != nil && upstream.TLS != nil {
		s.TLS = *upstream.TLS
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

func (g *Registry) newForwarder(key string, s settings) (*Forwarder, error) {
	conn := connection{TLS: s.Scheme == "https", Protocol: s.Protocol, Settings: s.TLS}
	transportKey, err := poolKey(conn)
	if err != nil {
		return nil, err
	}
	value, _, err := g.transports.LoadOrNew(transportKey, func() (caddy.Destructor, error) {
		return newTransport(g.ctx, g.policy, conn.TLS, conn.Protocol, &conn.Settings)
	})
	if err != nil {
		return nil, err
	}
	f := &Forwarder{registry: g, key: key, transport: transportKey}
	ctx := g.ctx
	ctx.Context, f.stop = context.WithCancel(g.ctx.Context)
	f.handler = &reverseproxy.Handler{
		Transport:     &directed{transport: value.(sharedTransport).Transport, scheme: s.Scheme, host: s.Host},
		LoadBalancing: &reverseproxy.LoadBalancing{SelectionPolicy: &reverseproxy.FirstSelection{}},
		Upstreams:     reverseproxy.UpstreamPool{{Dial: s.Address}},
	}
	if err := f.handler.Provision(ctx); err != nil {
		f.stop()
		// Only a handler that got as far as counting its upstreams may be cleaned
		// up, or it would discount another's.
		if f.handler.Upstreams[0].Host != nil {
			err = errors.Join(err, f.handler.Cleanup())
		}
		_, poolErr := g.transports.Delete(transportKey)
		return nil, fmt.Errorf("provisioning reverse proxy: %w", errors.Join(err, poolErr))
	}
	return f, nil
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

func poolKey(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encoding pool key: %w", err)
	}
	return string(b), nil
}

// Interface guards
var (
	_ caddyhttp.Handler = (*Forwarder)(nil)
	_ caddy.Destructor  = (*Forwarder)(nil)
)
