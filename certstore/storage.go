// Package certstore keeps certificates, their keys and the locks around their
// issuance in PostgreSQL, where all replicas of a gateway share them. It is a
// certmagic.Storage, and the Caddy module caddy.storage.isekai.
package certstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/store/migrations"
)

// Defaults of Options.
const (
	DefaultMaxConns     = 4
	DefaultQueryTimeout = 10 * time.Second
	DefaultLockLease    = 15 * time.Second
)

const (
	connectTimeout = 5 * time.Second
	prepareTimeout = 30 * time.Second
	closeTimeout   = 5 * time.Second
	keeperIdle     = time.Minute

	// retries is how often a statement is tried again whose connection was lost, as
	// happens when the server restarts; retryPause is how long after the first time.
	retries    = 2
	retryPause = 100 * time.Millisecond
)

// Options sets up a Storage. DSN and Log are required.
type Options struct {
	// The database, as in store.Open; it must be PostgreSQL.
	DSN string

	// The most connections. They are the storage's own. Default: DefaultMaxConns.
	MaxConns int

	// How long one statement may take, with the wait for a connection, unless the
	// caller is less patient. Default: DefaultQueryTimeout.
	QueryTimeout time.Duration

	// How long a lock outlives the process that holds it. While the process runs, the
	// lock is renewed. Default: DefaultLockLease.
	LockLease time.Duration

	// Keys to seal values with, each of KeySize bytes: the first one seals; all of
	// them open. None: values are stored in the clear.
	Keys [][]byte

	// A folder of this machine for copies of what is loaded and stored, sealed if values
	// are: certificates that were served from here can be while the database is down,
	// also after a restart. "" keeps none.
	Copies string

	// Returns the logger to use now.
	Log func() *zap.Logger
}

// ErrClosed says that the storage was closed.
var ErrClosed = errors.New("the certificate storage is closed")

// Storage keeps values and locks in two tables, which it makes if they are missing.
// It is safe for concurrent use. Make one with Open and end it with Close.
type Storage struct {
	pool    *pgxpool.Pool
	keeper  *pgxpool.Pool // of one connection, so that no flood keeps locks from being renewed
	where   string        // for people: server and database
	opts    Options
	seals   *seals
	locks   locks
	copies  *copies
	workers *worker.Group

	preparing chan struct{} // holds one token while the tables are made

	admit sync.Mutex // held to begin a call, and to close
	calls sync.WaitGroup
	life  context.Context // done when closed
	end   context.CancelFunc
}

// Open returns a storage on the database. It does not wait for the server: only
// options that can't work are an error, which does not repeat the DSN.
func Open(opts Options) (*Storage, error) {
	config, err := parseDSN(opts.DSN)
	if err != nil {
		return nil, err
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = DefaultMaxConns
	}
	if opts.QueryTimeout <= 0 {
		opts.QueryTimeout = DefaultQueryTimeout
	}
	if opts.LockLease <= 0 {
		opts.LockLease = DefaultLockLease
	}
	seals, err := newSeals(opts.Keys)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(min(opts.MaxConns, 1<<15))
	if config.ConnConfig.ConnectTimeout <= 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "isekai certificates"
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("opening the certificates' database: %w", err)
	}
	config = config.Copy()
	config.MinConns, config.MinIdleConns, config.MaxConns, config.MaxConnIdleTime = 0, 0, 1, keeperIdle
	keeper, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("opening the certificates' database: %w", err)
	}
	s := &Storage{
		pool: pool, keeper: keeper, opts: opts, seals: seals,
		where:     fmt.Sprintf("%s/%s", config.ConnConfig.Host, config.ConnConfig.Database),
		workers:   worker.New(opts.Log),
		preparing: make(chan struct{}, 1),
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.opts.DSN, s.opts.Keys = "", nil // they are not needed any more
	s.locks.init()
	s.workers.Go("certificate locks", s.keepLocks)
	if s.copies = newCopies(opts.Copies, opts.Log); s.copies != nil {
		s.workers.Every("local copies of certificates", copySweep, s.copies.sweep)
	}
	return s, nil
}

// String names the storage in logs, without its password.
func (s *Storage) String() string { return "PostgreSQL " + s.where }

// Close breaks off what runs, releases the locks that are held and closes the
// connections. What is called after that fails with ErrClosed.
func (s *Storage) Close() error {
	s.admit.Lock()
	ended := s.life.Err() != nil
	s.end()
	s.admit.Unlock()
	if ended {
		return nil
	}
	s.calls.Wait()
	s.workers.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	s.releaseAll(ctx)
	s.keeper.Close()
	s.pool.Close()
	return nil
}

// call runs fn, which Close breaks off and waits for.
func (s *Storage) call(ctx context.Context, fn func(context.Context) error) error {
	s.admit.Lock()
	if s.life.Err() != nil {
		s.admit.Unlock()
		return ErrClosed
	}
	s.calls.Add(1)
	s.admit.Unlock()
	defer s.calls.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	return fn(ctx)
}

// run runs a statement within the time that one may take. If the tables are missing
// they are made, and if the connection was lost the statement is tried again: all
// statements here may be run twice.
func (s *Storage) run(ctx context.Context, what string, statement func(context.Context) error) error {
	bounded := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, s.opts.QueryTimeout)
		defer cancel()
		err := statement(ctx)
		for try := 0; try < retries && isLost(err); try++ {
			if !worker.Sleep(ctx, retryPause<<try) {
				break
			}
			err = statement(ctx)
		}
		return err
	}
	err := s.call(ctx, func(ctx context.Context) error {
		err := bounded(ctx)
		if !isMissing(err) {
			return err
		}
		if err := s.prepare(ctx); err != nil {
			return fmt.Errorf("making the tables: %w", err)
		}
		return bounded(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// prepare runs the store's migration of the tables. One call does so at a time.
func (s *Storage) prepare(ctx context.Context) error {
	select {
	case s.preparing <- struct{}{}:
		defer func() { <-s.preparing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// The time of one statement may be too short.
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	return migrations.ApplyPostgres(ctx, s.pool, "00007_certificates.sql")
}

// isMissing reports whether err says that a table is not there.
func isMissing(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "42P01"
}

// maybeSent reports whether the statement that failed may have reached the server.
func maybeSent(err error) bool {
	_, unconnected := errors.AsType[*pgconn.ConnectError](err)
	return !unconnected && !pgconn.SafeToRetry(err)
}

// isLost reports whether err says that a connection of before was found broken. What
// the server itself has to say is no such error, but that it is going down.
func isLost(err error) bool {
	if err == nil {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code == "57P01" || pgErr.Code == "57P02"
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return false // a new connection has just been tried
	}
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return pgconn.SafeToRetry(err)
}

// Interface guards
var (
	_ certmagic.Storage          = (*Storage)(nil)
	_ certmagic.TryLocker        = (*Storage)(nil)
	_ certmagic.LockLeaseRenewer = (*Storage)(nil)
)
