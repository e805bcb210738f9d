package isekai

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/store"
)

// StoreConfig names the database that keeps the routes.
type StoreConfig struct {
	// The database: "postgres://user:password@host/name", "sqlite://path" (relative
	// to the working directory; "sqlite:///path" is absolute). Placeholders such
	// as {env.ISEKAI_DATABASE_URL} are resolved when the configuration is loaded
	// and never appear in Caddy's /config. Default, also if the text is empty
	// after that: "sqlite://data/isekai.db".
	DSN string `json:"dsn,omitempty"`

	// Where to listen for changes, if dsn leads to a pooler that can't be listened
	// through, such as PgBouncer in its mode transaction: the same database without it.
	// One connection is made to it. Placeholders as in dsn. PostgreSQL only. Default: dsn.
	ListenDSN string `json:"listen_dsn,omitempty"`

	// The most connections to the database, at most 10,000. Default: 16.
	MaxConns int `json:"max_conns,omitempty"`

	// How long to wait for a connection. Default: 5s.
	ConnectTimeout caddy.Duration `json:"connect_timeout,omitempty"`

	// How long a statement may take. Default: 5s.
	QueryTimeout caddy.Duration `json:"query_timeout,omitempty"`

	// How often the database is asked whether the routes have changed. Default: 1s;
	// with PostgreSQL, which announces changes, 5s as long as that works.
	PollInterval caddy.Duration `json:"poll_interval,omitempty"`
}

// CacheConfig bounds the cache of compiled routes. A route that is not in it is
// compiled on its next request, which takes well under a millisecond.
type CacheConfig struct {
	// How long a compiled route is kept after its last request. Default: 5m.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// How often expired ones are removed. Default: 1m.
	CleanupInterval caddy.Duration `json:"cleanup_interval,omitempty"`

	// The most compiled routes, at most 100,000,000. Default: 10000.
	MaxSize int `json:"max_size,omitempty"`
}

// RequestLogConfig sets up the log of all requests in the store's table request_logs.
// Rows are written in the background; a request never waits for them.
type RequestLogConfig struct {
	// Whether nothing is logged. Default: false.
	Off bool `json:"off,omitempty"`

	// The part of the requests that is logged, above 0 and at most 1, by lot. A
	// route's own log.sample goes before. Default: 1.
	Sample *float64 `json:"sample,omitempty"`

	// How long rows are kept. PostgreSQL drops whole days. Default: 7d.
	Retention caddy.Duration `json:"retention,omitempty"`

	// The most records that wait to be written, at about half a kilobyte each. More
	// are dropped and counted. At most 10,000,000. Default: 65536.
	Queue int `json:"queue,omitempty"`

	// The most rows in one write, at most 100,000. Default: 1000.
	Batch int `json:"batch,omitempty"`

	// How long a record waits at most for others to be written with. Default: 1s.
	FlushInterval caddy.Duration `json:"flush_interval,omitempty"`

	// The names of header fields whose values are never logged, also if a route's
	// log.headers names them. Authorization, Proxy-Authorization, Cookie, Set-Cookie,
	// and those that may hold an API key are among them in any case. Default: none
	// beside these.
	RedactHeaders []string `json:"redact_headers,omitempty"`

	// The names of query parameters, of any case, whose values are never logged. Those
	// that may hold an API key are among them in any case. Default: access_token,
	// api_key, apikey, code, id_token, key, password, refresh_token, secret, sig,
	// signature, token.
	RedactQuery []string `json:"redact_query,omitempty"`
}

// TargetsConfig restricts the addresses that routes may forward to. They are
// checked when a route is written and, after name resolution, whenever a
// connection is made.
type TargetsConfig struct {
	// If not empty, only these IP addresses and CIDR ranges are allowed. By
	// default all are but link-local (with the clouds' metadata services),
	// unspecified, multicast and reserved ones.
	Allow []string `json:"allow,omitempty"`

	// IP addresses and CIDR ranges that are refused, also if allowed above. This
	// process's own admin endpoint is always refused.
	Deny []string `json:"deny,omitempty"`
}

// Bounds of settings. They are far from what anybody needs, and keep a slip, such as
// nanoseconds for seconds, from taking all of the processor or the memory.
const (
	minDuration   = time.Millisecond
	maxConns      = 10_000
	maxCache      = 100_000_000
	maxQueue      = 10_000_000
	maxBatch      = 100_000
	maxSeries     = 1_000_000
	maxGCHeadroom = 64 << 30
)

// validate checks the settings' ranges.
func (a *App) validate() error {
	for name, value := range map[string]caddy.Duration{
		"health_interval": a.HealthInterval, "stats_interval": a.StatsInterval, "drain_timeout": a.DrainTimeout,
		"cache.ttl": a.Cache.TTL, "cache.cleanup_interval": a.Cache.CleanupInterval,
		"store.connect_timeout": a.Store.ConnectTimeout, "store.query_timeout": a.Store.QueryTimeout,
		"store.poll_interval": a.Store.PollInterval, "request_log.retention": a.RequestLog.Retention,
		"request_log.flush_interval": a.RequestLog.FlushInterval,
		"history_retention":          a.historyRetention(),
	} {
		switch {
		case value < 0:
			return fmt.Errorf("%s must not be negative", name)
		case value > 0 && time.Duration(value) < minDuration:
			return fmt.Errorf("%s must be at least %v, not %v (a number without a unit is nanoseconds)", name, minDuration, time.Duration(value))
		}
	}
	for name, setting := range map[string]struct{ value, most int64 }{
		"max_concurrent":    {int64(a.MaxConcurrent), math.MaxInt64},
		"body_max":          {a.BodyMax, math.MaxInt64},
		"max_series":        {int64(a.MaxSeries), maxSeries},
		"cache.max_size":    {int64(a.Cache.MaxSize), maxCache},
		"store.max_conns":   {int64(a.Store.MaxConns), maxConns},
		"request_log.queue": {int64(a.RequestLog.Queue), maxQueue},
		"request_log.batch": {int64(a.RequestLog.Batch), maxBatch},
	} {
		switch {
		case setting.value < 0:
			return fmt.Errorf("%s must not be negative", name)
		case setting.value > setting.most:
			return fmt.Errorf("%s must be at most %d", name, setting.most)
		}
	}
	if a.GCHeadroom != nil && *a.GCHeadroom < 0 {
		return errors.New("gc_headroom must not be negative; 0 is none")
	}
	if a.GCHeadroom != nil && *a.GCHeadroom > maxGCHeadroom {
		return errors.New("gc_headroom must be at most 64 GiB")
	}
	if _, err := snapshotKey(a.SnapshotKey); err != nil {
		return fmt.Errorf("snapshot_key %w", err)
	}
	if sample := a.RequestLog.Sample; sample != nil && (*sample <= 0 || *sample > 1) {
		return errors.New("request_log.sample must be above 0 and at most 1; for none, set request_log.off")
	}
	return pipeline.CheckAllowList(a.plugins())
}

func (a *App) historyRetention() caddy.Duration {
	if a.HistoryRetention == nil {
		return caddy.Duration(gateway.DefaultHistoryRetention)
	}
	return *a.HistoryRetention
}

func (a *App) plugins() []string {
	if a.Plugins == nil {
		return pipeline.DefaultPlugins
	}
	return a.Plugins
}

// sharedConfig is what configurations must have in common to share a gateway.
type sharedConfig struct{ gateway.Config }

func (a *App) gatewayConfig() sharedConfig {
	dsn := caddy.NewReplacer().ReplaceKnown(a.Store.DSN, "")
	if dsn == "" {
		dsn = defaultDSN
	}
	key, _ := snapshotKey(a.SnapshotKey) // which was checked
	return sharedConfig{gateway.Config{
		DSN: dsn,
		Store: store.Options{
			ListenDSN:      caddy.NewReplacer().ReplaceKnown(a.Store.ListenDSN, ""),
			MaxConns:       a.Store.MaxConns,
			ConnectTimeout: time.Duration(a.Store.ConnectTimeout),
			QueryTimeout:   time.Duration(a.Store.QueryTimeout),
		},
		RequestLog: requestlog.Config{
			Queue:         a.RequestLog.Queue,
			Batch:         a.RequestLog.Batch,
			FlushInterval: time.Duration(a.RequestLog.FlushInterval),
			Retention:     time.Duration(a.RequestLog.Retention),
		},
		HistoryRetention: time.Duration(a.historyRetention()),
		MaxSeries:        a.MaxSeries,
		PollInterval:     time.Duration(a.Store.PollInterval),
		HealthInterval:   time.Duration(a.HealthInterval),
		StatsInterval:    time.Duration(a.StatsInterval),
		Snapshot:         snapshotFile(a.Snapshot, dsn),
		SnapshotKey:      key,
		Version:          version(),
		Log:              func() *zap.Logger { return caddy.Log().Named("isekai") },
	}}
}

// key identifies a gateway in the pool by all that makes it, without showing
// the password that a DSN may have.
func (c sharedConfig) key() (string, error) {
	encoded, err := json.Marshal([]any{
		c.DSN, c.Store, c.RequestLog, c.MaxSeries, c.HistoryRetention, c.PollInterval, c.HealthInterval, c.StatsInterval, c.Snapshot, c.SnapshotKey,
	})
	if err != nil {
		return "", fmt.Errorf("encoding gateway settings: %w", err)
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:]), nil
}
