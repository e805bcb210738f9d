package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
)

// sqlStore is the Store of both databases: the statements are the same, and
// dialect holds what is not.
type sqlStore struct {
	dialect

	reader *sql.DB
	writer *sql.DB // the same as reader where any number may write

	queryTimeout time.Duration
	observer     func(call Call, took time.Duration, failed bool)

	schema, schemaKnown atomic.Int64 // set by Migrate
}

// dialect is how a kind of database differs from the other.
type dialect struct {
	name  string // as in Stats.Driver, and the folder of the migrations
	goose goose.Dialect

	snapshot sql.TxOptions // of a transaction that sees one state
	write    sql.TxOptions // of a transaction that sees what was committed last

	// Takes the next revision for the transaction and locks out other writers
	// until its end; returns the number.
	takeRevision string
	// Ends what takeRevision began; may be empty.
	releaseWriter string

	// Executes steps in a transaction, in one exchange with the database, and returns
	// what commits it. Nil where a statement costs no exchange.
	pipeline func(ctx context.Context, steps []step) (commit func(context.Context) error, err error)

	classify func(error) errorClass

	// The present by the database's own clock, and the seconds since a time.
	clock string
	since func(expression string) string
	// Ends a statement whose loss in a crash does no harm: its commit waits for no disk.
	commitLazily string

	// Implements Listen; nil where it can't be had.
	listen func(ctx context.Context, heartbeat time.Duration, on Listener) error

	// Keeps other processes from migrating until release is called.
	lockMigrations func(ctx context.Context) (release func(), err error)

	// Lets go of idle connections, which may be as broken as the one that was
	// just seen broken.
	dropIdle func()

	// Reads all live routes and their revision from one state of the database.
	load func(ctx context.Context, tick func()) (routes []*Route, revision int64, err error)

	// Write many routes of one revision. The former returns the new ids in the order
	// of the rows.
	insertRoutes func(ctx context.Context, tx *sql.Tx, rows []bulkRow, sign signature) ([]int64, error)
	updateRoutes func(ctx context.Context, tx *sql.Tx, rows []bulkRow, sign signature) error

	// Lets one process at a time prune the history, until the transaction's end;
	// reports whether this is the one. May be empty.
	lockPruning string

	insertLogs   func(ctx context.Context, writer string, number int64, rows []RequestLog) error
	maintainLogs func(ctx context.Context, now time.Time, keep time.Duration) error

	stats func() Stats
	close func() error
}

// errorClass is what a database's error means to a caller.
type errorClass int

const (
	errOther errorClass = iota
	errUnique
	errBadValue
	errNotPermitted
	errConnectionLost // the connection that had been made is of no use; a new one may work
)

// querier is a database, or a transaction in it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Ping implements Store.
func (s *sqlStore) Ping(ctx context.Context) error {
	return s.query(ctx, "asking whether the database answers", func(ctx context.Context, q querier) error {
		var one int
		return q.QueryRowContext(ctx, "SELECT 1").Scan(&one)
	})
}

// Stats implements Store.
func (s *sqlStore) Stats() Stats {
	stats := s.dialect.stats()
	stats.Schema, stats.SchemaKnown = s.schema.Load(), s.schemaKnown.Load()
	return stats
}

// Close implements Store.
func (s *sqlStore) Close() error { return s.dialect.close() }

// observe tells of a call that began at start and ends with *err.
func (s *sqlStore) observe(call Call, start time.Time, err *error) {
	if s.observer != nil {
		s.observer(call, time.Since(start), *err != nil && !isAnswer(*err) && !errors.Is(*err, context.Canceled))
	}
}

// query runs fn, which reads, on any connection.
func (s *sqlStore) query(ctx context.Context, doing string, fn func(context.Context, querier) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	defer s.observe(CallRead, time.Now(), &err)
	err = s.retryOnce(ctx, func() error { return fn(ctx, s.reader) })
	return s.explain(ctx, doing, err)
}

// querySnapshot runs fn, which reads many rows, in a transaction that sees one state of
// the database; see readMany.
func (s *sqlStore) querySnapshot(ctx context.Context, doing string, fn func(ctx context.Context, q querier, tick func()) error) error {
	return s.readMany(ctx, doing, func(ctx context.Context, tick func()) error { return s.snapshotOf(ctx, tick, fn) })
}

func (s *sqlStore) snapshotOf(ctx context.Context, tick func(), fn func(ctx context.Context, q querier, tick func()) error) error {
	tx, err := s.reader.BeginTx(ctx, &s.dialect.snapshot)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after reading there is nothing to commit
	return fn(ctx, tx, tick)
}

// readMany runs fn, which calls tick as rows arrive: what is bounded is the wait for the
// next, so that a table of any size can be read.
func (s *sqlStore) readMany(ctx context.Context, doing string, fn func(ctx context.Context, tick func()) error) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.observe(CallLoad, time.Now(), &err)
	timer := time.AfterFunc(s.queryTimeout, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	tick := func() { timer.Reset(s.queryTimeout) }

	err = s.retryOnce(ctx, func() error { return fn(ctx, tick) })
	return s.explain(ctx, doing, err)
}

// change runs fn in a transaction that holds the next revision.
func (s *sqlStore) change(ctx context.Context, doing string, fn func(ctx context.Context, tx *sql.Tx, revision int64) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	defer s.observe(CallWrite, time.Now(), &err)
	return s.explain(ctx, doing, s.transact(ctx, fn))
}

func (s *sqlStore) transact(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx, revision int64) error) error {
	var (
		tx       *sql.Tx
		revision int64
	)
	// The beginning may be retried, since nothing has been written yet. It shows, too,
	// whether the server still takes writes: one that was the primary may not.
	err := s.retryOnce(ctx, func() (err error) {
		if tx, err = s.writer.BeginTx(ctx, &s.dialect.write); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, s.takeRevision).Scan(&revision); err != nil {
			_ = tx.Rollback() // what matters is the error before it
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit

	if err := fn(ctx, tx, revision); err != nil {
		return err
	}
	if s.releaseWriter != "" {
		if _, err := tx.ExecContext(ctx, s.releaseWriter); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// retryOnce runs fn again if the connection was of no more use, as all pooled ones are
// when the server has restarted.
func (s *sqlStore) retryOnce(ctx context.Context, fn func() error) error {
	err := fn()
	if err != nil && ctx.Err() == nil && s.classify(err) == errConnectionLost {
		s.dropIdle()
		err = fn()
	}
	return err
}

// isAnswer says whether an error is no failure of the database, but what it has to say.
func isAnswer(err error) bool {
	for _, known := range []error{ErrNotFound, ErrConflict, ErrStale, ErrInvalid, ErrNoRevision, ErrHistoryGone, ErrResync, ErrTooMany, errAlreadySeeded} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// explain turns what a database said into this package's errors.
func (s *sqlStore) explain(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if isAnswer(err) {
		return err
	}
	if ctx.Err() != nil {
		// Drivers report this in many ways.
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	switch s.classify(err) {
	case errUnique:
		return &ConflictError{}
	case errNotPermitted:
		return fmt.Errorf("%s: %w: %w", doing, ErrNotPermitted, err)
	case errBadValue:
		return fmt.Errorf("%s: %w: %w", doing, ErrInvalid, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}
