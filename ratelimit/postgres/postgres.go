// Package postgres keeps the counters of rate limits in PostgreSQL, where all
// replicas of a gateway share them. It is the Caddy module
// isekai.rate_limit.backends.postgres.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/internal/slide"
	"github.com/isekai-gateway/isekai/store/migrations"
)

const (
	// DefaultMaxConns is how many connections a Backend has unless told otherwise. A
	// decision takes well under a millisecond of one.
	DefaultMaxConns = 8

	// DefaultSweepInterval is how often expired counters are removed unless told
	// otherwise.
	DefaultSweepInterval = time.Minute

	connectTimeout = 5 * time.Second
	sweepTimeout   = 5 * time.Second
	prepareTimeout = 30 * time.Second
	sweepChunk     = 1000
)

// Options sets up a Backend. DSN and Log are required.
type Options struct {
	// The database, as in store.Open.
	DSN string

	// The most connections. They are the backend's own, so that limits never keep
	// the routes waiting. Default: DefaultMaxConns.
	MaxConns int

	// How often expired counters are removed. Default: DefaultSweepInterval.
	SweepInterval time.Duration

	// Returns the logger to use now.
	Log func() *zap.Logger

	// Now tells the time instead of the server's clock. Default: nil.
	Now func() time.Time
}

// Backend keeps counters in a table. It is safe for concurrent use. Make one with
// Open and end it with Close.
type Backend struct {
	pool    *pgxpool.Pool
	now     func() time.Time
	log     func() *zap.Logger
	workers *worker.Group

	preparing sync.Mutex // held while the table is made
}

// Open returns a backend on the database. It does not wait for the server: only a
// DSN that can't be read is an error, and that error does not repeat it. If the
// table is missing when the first charge is made, the backend makes it.
func Open(opts Options) (*Backend, error) {
	config, err := pgxpool.ParseConfig(opts.DSN)
	if err != nil || opts.DSN == "" {
		// Not wrapped: the parser hides a password only as well as it can.
		return nil, errors.New(`the PostgreSQL DSN cannot be parsed; accepted are "postgres://user:password@host:5432/database?sslmode=require", ` +
			`with special characters of the password percent-encoded, and "host=... dbname=..."`)
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = DefaultMaxConns
	}
	if opts.SweepInterval <= 0 {
		opts.SweepInterval = DefaultSweepInterval
	}
	config.MaxConns = int32(min(opts.MaxConns, 1<<15))
	config.MinConns = min(config.MaxConns, 2) // a request has no time to wait for the first
	if config.ConnConfig.ConnectTimeout <= 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "isekai rate limits"
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("opening the rate limits' database: %w", err)
	}
	b := &Backend{pool: pool, now: opts.Now, log: opts.Log, workers: worker.New(opts.Log)}
	b.workers.Every("rate limit sweeper", opts.SweepInterval, func(ctx context.Context) {
		if err := b.Sweep(ctx); err != nil && ctx.Err() == nil && !isMissing(err) {
			b.log().Warn("removing expired rate limit counters", zap.Error(err))
		}
	})
	return b, nil
}

// Close stops the sweeper and closes all connections.
func (b *Backend) Close() error {
	b.workers.Stop()
	b.pool.Close()
	return nil
}

// Take implements ratelimit.Backend in one statement, which locks the counters in a
// fixed order, so that callers never wait for each other in a circle.
func (b *Backend) Take(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge) ([]ratelimit.Decision, bool, error) {
	return b.take(ctx, dst, charges, true)
}

// Peek implements ratelimit.Backend.
func (b *Backend) Peek(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge) ([]ratelimit.Decision, error) {
	dst, _, err := b.take(ctx, dst, charges, false)
	return dst, err
}

func (b *Backend) take(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge, cost bool) ([]ratelimit.Decision, bool, error) {
	dst, counters := slide.Plan(dst, charges, cost)
	if len(counters) == 0 {
		return dst, true, nil
	}
	n := len(counters)
	keys := make([][]byte, n)
	numbers := make([]int64, 3*n)
	windows, limits, costs := numbers[:n], numbers[n:2*n], numbers[2*n:]
	for i, c := range counters {
		keys[i], windows[i], limits[i], costs[i] = c.ID, c.Window, c.Limit, c.Cost
	}
	var times, previous, current []int64
	var fits []bool
	err := b.prepared(ctx, func() error {
		return b.pool.QueryRow(ctx, "SELECT times, previous, current, fits FROM isekai_rate_limit_take($1, $2, $3, $4, $5)",
			keys, windows, limits, costs, b.at()).Scan(&times, &previous, &current, &fits)
	})
	if err != nil {
		return dst, false, fmt.Errorf("charging rate limits: %w", err)
	}
	if len(times) != n || len(previous) != n || len(current) != n || len(fits) != n {
		return dst, false, fmt.Errorf("charging rate limits: %d counters have %d answers", n, len(fits))
	}
	allowed := true
	for _, f := range fits {
		allowed = allowed && f
	}
	for i, c := range counters {
		dst[c.Index] = c.Decide(slide.Reading{Now: times[i], Previous: previous[i], Current: current[i], Fits: fits[i]}, allowed)
	}
	return dst, allowed, nil
}

// Reset implements ratelimit.Backend.
func (b *Backend) Reset(ctx context.Context, charges []ratelimit.Charge) error {
	_, counters := slide.Plan(nil, charges, false)
	keys := make([][]byte, len(counters))
	for i, c := range counters {
		keys[i] = c.ID
	}
	err := b.prepared(ctx, func() error {
		// Locked in the order in which charges lock.
		_, err := b.pool.Exec(ctx, `DELETE FROM rate_limit_counters WHERE key = ANY (ARRAY(
			SELECT key FROM rate_limit_counters WHERE key = ANY ($1) ORDER BY key FOR UPDATE))`, keys)
		return err
	})
	if err != nil {
		return fmt.Errorf("resetting rate limits: %w", err)
	}
	return nil
}

// Sweep removes the counters of which nothing counts any more, some at a time. It
// waits for none that is in use.
func (b *Backend) Sweep(ctx context.Context) error {
	for {
		statement, cancel := context.WithTimeout(ctx, sweepTimeout)
		tag, err := b.pool.Exec(statement, `DELETE FROM rate_limit_counters WHERE key = ANY (ARRAY(
			SELECT key FROM rate_limit_counters
			WHERE expires <= coalesce($1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
			ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED))`, b.at(), sweepChunk)
		cancel()
		if err != nil {
			return fmt.Errorf("sweeping rate limits: %w", err)
		}
		if tag.RowsAffected() < sweepChunk {
			return nil
		}
	}
}

// at is the argument that stands for the time, nil for the server's.
func (b *Backend) at() *int64 {
	if b.now == nil {
		return nil
	}
	ms := b.now().UnixMilli()
	return &ms
}

// prepared runs a statement. If the database lacks what it needs, that is made, and
// the statement run again. One call does so at a time; others fail.
func (b *Backend) prepared(ctx context.Context, run func() error) error {
	err := run()
	if !isMissing(err) {
		return err
	}
	if !b.preparing.TryLock() {
		return err
	}
	defer b.preparing.Unlock()
	// Not bound to the caller's few milliseconds.
	if err := b.prepare(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("making the table of rate limits: %w", err)
	}
	return run()
}

// prepare runs the store's migration of the table.
func (b *Backend) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	return migrations.ApplyPostgres(ctx, b.pool, "00003_rate_limits.sql")
}

// isMissing reports whether err says that the table or the function is not there.
func isMissing(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "42P01" || pgErr.Code == "42883" && strings.Contains(pgErr.Message, "isekai_rate_limit_take"))
}

// Interface guards
var (
	_ ratelimit.Backend = (*Backend)(nil)
)
