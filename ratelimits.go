package isekai

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/postgres"
)

func init() { caddy.RegisterModule(new(storeBackend)) }

// RateLimitConfig is what the routes' rate limits have in common.
type RateLimitConfig struct {
	ratelimit.SharedConfig

	// Which response fields tell clients about their limits: `ietf` is
	// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11),
	// `legacy` is X-RateLimit-Limit, -Remaining and -Reset, `none` is none.
	// Default: `ietf`.
	Headers ratelimit.HeaderStyle `json:"headers,omitempty"`
}

// unmarshalCaddyfile reads the block of the option rate_limit.
func (c *RateLimitConfig) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	shared := func() error {
		_, err := c.UnmarshalOption(d)
		return err
	}
	return block(d, map[string]func() error{
		"backend": shared, "on_error": shared, "timeout": shared,
		"headers": func() error {
			style, err := one(d)
			if err != nil {
				return err
			}
			if c.Headers = ratelimit.HeaderStyle(style); !c.Headers.Valid() {
				return d.Errf("headers %q: must be ietf, legacy or none", style)
			}
			return nil
		},
	})
}

// limits is the backend of the routes' limits, and how to give it back.
type limits struct {
	ratelimit.Backend
	release func() error
}

// limiters holds the counters in memory, of which there are one set for all
// configurations. So a reload that changes the store's settings keeps them too.
var limiters = caddy.NewUsagePool()

const routeLimiter = "routes"

type pooledLimiter struct{ *ratelimit.Limiter }

// Destruct implements caddy.Destructor.
func (p pooledLimiter) Destruct() error {
	p.Close()
	return nil
}

// checkLimits checks the settings as far as nothing must be opened for that. The DSN is
// that of the store.
func (a *App) checkLimits(dsn string) error {
	if h := a.RateLimit.Headers; h != "" && !h.Valid() {
		return fmt.Errorf("rate_limit.headers %q: must be ietf, legacy or none", h)
	}
	err := a.RateLimit.Validate()
	name, _ := a.RateLimit.BackendName() // checked just now
	if err == nil && name == "store" && strings.HasPrefix(dsn, "sqlite:") {
		err = errNotShared
	}
	if err != nil {
		return fmt.Errorf("rate_limit: %w", err)
	}
	return nil
}

// openLimits takes a reference to the counters. The DSN is that of the store.
func (a *App) openLimits(ctx caddy.Context, dsn string) (*limits, error) {
	value, _, err := limiters.LoadOrNew(routeLimiter, func() (caddy.Destructor, error) {
		l := ratelimit.New(ratelimit.Config{})
		l.Start()
		return pooledLimiter{l}, nil
	})
	if err != nil {
		return nil, err
	}
	giveBack := func() error {
		_, err := limiters.Delete(routeLimiter)
		return err
	}
	backend, release, err := a.shareLimits(ctx, value.(pooledLimiter).Limiter, dsn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rate_limit: %w", err), giveBack())
	}
	return &limits{Backend: backend, release: func() error { return errors.Join(release(), giveBack()) }}, nil
}

func (a *App) shareLimits(ctx caddy.Context, local *ratelimit.Limiter, dsn string) (ratelimit.Backend, func() error, error) {
	name, err := a.RateLimit.BackendName()
	if err != nil {
		return nil, nil, err
	}
	if name != "store" {
		return a.RateLimit.Provision(ctx, local)
	}
	// The module asks for this app, which is still being provisioned.
	store, err := newStoreBackend(ctx, dsn)
	if err != nil {
		return nil, nil, err
	}
	return a.RateLimit.Share(ctx, store, local)
}

// storeBackend keeps the counters of rate limits in the PostgreSQL that has the
// routes, by connections of its own.
type storeBackend struct{ module *postgres.Module }

// errNotShared says that SQLite is no backend.
var errNotShared = errors.New("backend store needs a store in PostgreSQL; with SQLite there is one gateway, for which backend memory is exact")

func newStoreBackend(ctx caddy.Context, dsn string) (*storeBackend, error) {
	if strings.HasPrefix(dsn, "sqlite:") {
		return nil, errNotShared
	}
	module := &postgres.Module{DSN: dsn}
	return &storeBackend{module}, module.Provision(ctx)
}

// CaddyModule returns the Caddy module information.
func (*storeBackend) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: ratelimit.BackendNamespace + ".store", New: func() caddy.Module { return new(storeBackend) }}
}

// Provision finds the app's store.
func (s *storeBackend) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured("isekai")
	if err != nil {
		return fmt.Errorf("backend store needs the app isekai: %w", err)
	}
	found, err := newStoreBackend(ctx, app.(*App).gatewayConfig().DSN)
	if err != nil {
		return err
	}
	*s = *found
	return nil
}

// Key implements ratelimit.BackendModule.
func (s *storeBackend) Key() string { return s.module.Key() }

// Open implements ratelimit.BackendModule.
func (s *storeBackend) Open(log func() *zap.Logger) (ratelimit.Remote, error) {
	return s.module.Open(log)
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	store
func (*storeBackend) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if d.NextArg() || d.NextBlock(d.Nesting()) {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*storeBackend)(nil)
	_ caddyfile.Unmarshaler   = (*storeBackend)(nil)
	_ ratelimit.BackendModule = (*storeBackend)(nil)
)
