// Package isekai is an API gateway that lives inside Caddy. Its routes are rows
// in PostgreSQL or SQLite; a row that is added, by the admin API or in plain
// SQL, is served without a reload.
//
// It registers these Caddy modules:
//
//   - isekai, the app: store, cache, workers and settings;
//   - http.handlers.isekai, which matches requests against the routes and
//     forwards them;
//   - http.handlers.isekai_problem, which writes the gateway's errors unless a
//     site handles them itself;
//   - http.handlers.isekai_rate_limit, a rate limit for a whole site;
//   - http.handlers.isekai_auth, authentication for a whole site, and the same as
//     http.authentication.providers.isekai for Caddy's own handler;
//   - http.handlers.isekai_cors, cross-origin resource sharing for a whole site;
//   - http.handlers.isekai_forward_auth, which asks another service about every
//     request, for a whole site or as a route's plugin;
//   - http.handlers.isekai_mirror, copies of a whole site's requests for another
//     server;
//   - http.handlers.isekai_admin, the admin API on a site, behind tokens;
//   - isekai.rate_limit.backends.store and .postgres, counters that replicas share;
//   - tls.permission.isekai, on-demand certificates for hosts that routes name;
//   - caddy.storage.isekai, certificates and locks in PostgreSQL, for all replicas;
//   - admin.api.isekai, the admin API on Caddy's admin endpoint.
package isekai

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/refcount"
	"github.com/isekai-gateway/isekai/ondemand"
	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/requestlog"

	// Site-wide policies are modules of their own, which one --with brings along.
	_ "github.com/isekai-gateway/isekai/certstore"
	_ "github.com/isekai-gateway/isekai/cors"
	_ "github.com/isekai-gateway/isekai/forwardauth"
)

func init() {
	caddy.RegisterModule(new(App))
}

// App is the gateway's settings and its part of one Caddy configuration. What
// must survive a reload, such as the routes and the rate limits' counters, is
// shared by all configurations that name the same store.
type App struct {
	// Where the routes are kept.
	Store StoreConfig `json:"store,omitzero"`

	// A file of routes, as a JSON array in the form of the admin API, to insert
	// into a store that has never had any. Later changes to the file have no
	// effect.
	Seed string `json:"seed,omitempty"`

	// The file in which the last known routes are kept, so that a start while the
	// database is down can serve them, or `off`. It holds what the rows hold, secrets
	// included, and the hashes of API keys; only its owner may read it. Default: with PostgreSQL,
	// `isekai/snapshot-<hash of the database's address>.json` in Caddy's data
	// directory; with SQLite none.
	Snapshot string `json:"snapshot,omitempty"`

	// What the snapshot is sealed with (AES-256-GCM): 32 bytes in base64, as `openssl
	// rand -base64 32` makes them. Placeholders such as `{env.ISEKAI_SNAPSHOT_KEY}` are
	// resolved. Default: none, the file is in the clear.
	SnapshotKey string `json:"snapshot_key,omitempty"`

	// The cache of compiled routes.
	Cache CacheConfig `json:"cache,omitzero"`

	// The handler modules that routes may use as plugins, by their names without
	// "http.handlers.". Further modules that may stand in them, such as matchers,
	// are listed by their whole ids, e.g. "http.matchers.vars". A route is code:
	// whoever can write routes can do with a listed module whatever the module can
	// do. The default ones, and the matchers, encoders and the password check that
	// may stand in them in any case, can read no file and no environment and
	// connect nowhere but where the targets setting allows it. Default: headers,
	// encode, rewrite, request_body, subroute, static_response, error, intercept,
	// authentication, isekai_forward_auth.
	Plugins []string `json:"plugins,omitempty"`

	// Where the counters of the routes' rate limits are kept, and how clients are
	// told of them.
	RateLimit RateLimitConfig `json:"rate_limit,omitzero"`

	// Which addresses routes may forward to.
	Targets TargetsConfig `json:"targets,omitzero"`

	// The log of all requests, in the store.
	RequestLog RequestLogConfig `json:"request_log,omitzero"`

	// How requests can say who makes them, for routes with auth, and how upstreams are
	// told.
	Auth auth.Config `json:"auth,omitzero"`

	// The most routes whose requests are counted apart, in /api/stats and in the
	// metrics; those of the others, which are asked for less, are counted together. One
	// takes about 10 KB. Also the most hosts whose certificates are in the metrics: those
	// that expire first. At most 1,000,000. Default: 1000.
	MaxSeries int `json:"max_series,omitempty"`

	// How often the health of the store and of the cache is checked. Default: 30s.
	HealthInterval caddy.Duration `json:"health_interval,omitempty"`

	// How often a line with the counters is logged. Default: 1m.
	StatsInterval caddy.Duration `json:"stats_interval,omitempty"`

	// How long revisions are kept in the history; 0 keeps them for ever. Routes that
	// were deleted can be restored beyond that. Default: 90d.
	HistoryRetention *caddy.Duration `json:"history_retention,omitempty"`

	// How long streams, such as WebSockets, of a route that was changed or deleted
	// may go on, and its requests if it has no timeout. Default: 5m.
	DrainTimeout caddy.Duration `json:"drain_timeout,omitempty"`

	// The most requests that may be in flight; more are answered 503. WebSockets
	// and other streams count as long as they are open. Default: 0, no bound.
	MaxConcurrent int `json:"max_concurrent,omitempty"`

	// The most bytes of a request's body, for routes whose limits.body_max does not
	// say otherwise; larger ones are answered 413. Default: 0, no bound.
	BodyMax int64 `json:"body_max,omitempty"`

	// Whether simple requests to HTTP/1.1 upstreams are forwarded by the gateway's own
	// client, which takes less CPU time, instead of Caddy's reverse_proxy.
	// Both answer the same; set it to false to rule one out. Default: true.
	FastLane *bool `json:"fast_lane,omitempty"`

	// How many bytes of garbage may gather beyond what Go's collector would allow, so
	// that it has to work less often; up to an eighth of GOMEMLIMIT. 0 leaves it as it
	// is, and so does GOGC in the environment. At most 64 GiB. Default: 64 MiB.
	GCHeadroom *int64 `json:"gc_headroom,omitempty"`

	gateway     *gateway.Gateway
	gatewayKey  string
	limits      *limits
	pipelines   *pipeline.Set
	verifier    *auth.Verifier
	redactor    *requestlog.Redactor
	failures    *ondemand.Failures
	api         http.Handler
	unsubscribe func()
	logger      *zap.Logger
	errors      *errorLog
	headroom    int64 // bytes

	refs refcount.Count // one for the configuration, one per request
}

// defaultDSN is the embedded store of whoever names none.
const defaultDSN = "sqlite://data/isekai.db"

// firstLoadTimeout bounds how long a start or reload waits for the routes. It
// goes on without them after that, not ready.
const firstLoadTimeout = 3 * time.Second

// gateways holds one gateway per store and settings, across configurations.
var gateways = caddy.NewUsagePool()

// pooledGateway is a gateway in the pool, and what configurations that share it
// have in common beside it.
type pooledGateway struct {
	*gateway.Gateway
	upstreams *proxy.States
	failures  *ondemand.Failures // of certificates
}

// Destruct implements caddy.Destructor.
func (p pooledGateway) Destruct() error { return p.Close() }

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "isekai", New: func() caddy.Module { return new(App) }}
}

// Provision takes part in the store's gateway, which starts its workers if this
// is the first to do so, and waits a moment for the routes. A database that is
// down is no error: the gateway goes on trying.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	a.errors = newErrorLog(a.logger)
	if err := a.validate(); err != nil {
		return err
	}
	policy, err := a.Targets.policy()
	if err != nil {
		return err
	}
	// The forwarders, made when requests come, need this app; loading it then
	// would race with Caddy.
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading events app: %w", err)
	}

	cfg := a.gatewayConfig()
	if err := a.checkLimits(cfg.DSN); err != nil {
		return err
	}
	key, err := cfg.key()
	if err != nil {
		return err
	}
	pooled, _, err := gateways.LoadOrNew(key, func() (caddy.Destructor, error) {
		seed, err := readSeed(a.Seed, a.plugins(), policy, a.Auth.Methods())
		if err != nil {
			return nil, err
		}
		cfg.Seed = seed
		g, err := gateway.Open(cfg.Config)
		return pooledGateway{g, new(proxy.States), new(ondemand.Failures)}, err
	})
	if err != nil {
		return err
	}
	shared := pooled.(pooledGateway)
	a.gateway, a.gatewayKey = shared.Gateway, key
	a.refs.Start()
	if err := a.reserveHeadroom(); err != nil {
		return err
	}

	if a.limits, err = a.openLimits(ctx, cfg.DSN); err != nil {
		return err
	}
	a.verifier, err = auth.New(a.Auth, auth.Options{
		Credentials: a.gateway.Credentials,
		Guesses:     a.gateway.Guesses,
		Logger:      a.logger.Named("auth"),
	})
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	a.redactor = a.newRedactor()
	a.pipelines, err = pipeline.NewSet(ctx, pipeline.Options{
		TTL:             time.Duration(a.Cache.TTL),
		CleanupInterval: time.Duration(a.Cache.CleanupInterval),
		MaxSize:         a.Cache.MaxSize,
		Plugins:         a.Plugins,
		Policy:          policy,
		DrainTimeout:    time.Duration(a.DrainTimeout),
		Limits:          a.limits,
		LimitHeaders:    a.RateLimit.Headers,
		Decisions:       &a.gateway.Decisions,
		States:          shared.upstreams,
		Mirror:          a.gateway.Mirror,
		InFlight:        &a.gateway.InFlight,
		BodyMax:         a.BodyMax,
		FastLane:        a.FastLane == nil || *a.FastLane,
		Verifier:        a.verifier,
	})
	if err != nil {
		return err
	}
	a.failures = shared.failures
	if err := registerMetrics(ctx, collector{a.gateway, a.pipelines.Upstreams, a.newCertificateSurvey()}); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	// The histogram is the gateway's, since it outlives configurations and their registries.
	if err := ctx.GetMetricsRegistry().Register(a.gateway.Propagation); err != nil {
		return fmt.Errorf("registering metrics of propagation: %w", err)
	}
	if err := (certificateEvents{a.failures}).follow(events); err != nil {
		return fmt.Errorf("following events: %w", err)
	}
	a.api = a.newAPI()
	a.unsubscribe = a.gateway.Subscribe(&gateway.Subscriber{
		Changed:    a.pipelines.Change,
		CacheStats: a.pipelines.CacheStats,
	})
	wait, cancel := context.WithTimeout(ctx, firstLoadTimeout)
	defer cancel()
	a.gateway.WaitLoaded(wait)
	return nil
}

// Start lets the gateway, whose workers run since Provision, write to the store:
// caddy validate provisions too, and must not change a database. It waits a
// moment for that. It also begins to ask for the health of targets.
func (a *App) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), firstLoadTimeout)
	defer cancel()
	a.gateway.Start(ctx)
	a.pipelines.Start(a.gateway.Table)
	return nil
}

// Stop implements caddy.App. Nothing may be torn down here: requests that came
// before a reload still use the app after it was stopped.
func (a *App) Stop() error { return nil }

// Cleanup lets go of what this configuration uses. Requests in flight keep it
// until they end; when the process exits they have ended, and open WebSockets
// are told.
func (a *App) Cleanup() error {
	if a.gateway == nil {
		return nil
	}
	if a.verifier != nil {
		a.verifier.Close()
	}
	if a.pipelines != nil {
		a.pipelines.Close(caddy.Exiting())
	}
	return a.release()
}

// AuthVerifier implements auth.App.
func (a *App) AuthVerifier() *auth.Verifier { return a.verifier }

// AuthCredentials implements auth.App.
func (a *App) AuthCredentials() auth.Credentials { return a.gateway.Credentials }

// acquire keeps the app's gateway open until release. It returns false once that was
// left: a request can come to a handler whose configuration has been cleaned up, since
// Caddy does not wait for the handlers before this one, nor for HTTP/2 connections.
func (a *App) acquire() bool { return a.refs.Acquire() }

// hold returns the app that is to serve a request, and whether it must be released
// after that. A request that comes too late for this app is served by the one that
// runs now, if that has the same routes. Otherwise it is served from memory, by what
// this one last knew, and refused where the store would be needed.
func (a *App) hold() (app *App, held bool) {
	if a.acquire() {
		return a, true
	}
	if now, err := activeApp(); err == nil && now.gatewayKey == a.gatewayKey && now.acquire() {
		return now, true
	}
	return a, false
}

// release gives up one reference. The last one leaves the gateway, which, if no
// other configuration uses it, stops its workers and closes the store.
func (a *App) release() error {
	if !a.refs.Release() {
		return nil
	}
	if a.unsubscribe != nil {
		a.unsubscribe()
	}
	leave := func() error {
		var err error
		if a.limits != nil {
			err = a.limits.release()
		}
		err = errors.Join(err, a.releaseHeadroom())
		if _, closing := gateways.Delete(a.gatewayKey); closing != nil {
			err = errors.Join(err, fmt.Errorf("closing gateway: %w", closing))
		}
		return err
	}
	if caddy.Exiting() {
		return leave()
	}
	// The last one may be a request, which must not wait for workers to end.
	go func() {
		if err := leave(); err != nil {
			caddy.Log().Named("isekai").Error("leaving a gateway", zap.Error(err))
		}
	}()
	return nil
}

// errNotRunning says that the active configuration has no isekai app.
var errNotRunning = errors.New("isekai is not configured")

// activeApp returns the app of the running configuration.
func activeApp() (*App, error) {
	// Asked anew every time: after a failed reload, what a module was provisioned
	// with is not what runs.
	app, err := caddy.ActiveContext().AppIfConfigured("isekai")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotRunning, err)
	}
	return app.(*App), nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
	_ auth.App           = (*App)(nil)
)
