package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// step is one statement of a change that is known before the change begins, so that the
// database can be sent all of them at once. It may be executed, and read, again.
type step struct {
	query string
	args  []any
	read  func(rows rowReader) error // of what it returns; an error undoes the change
}

// rowReader is the rows of a statement, whichever driver reads them.
type rowReader interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
}

// thisRevision is the number of the transaction that has taken one, in a statement.
const thisRevision = "(SELECT revision FROM revision_counter)"

// changeBy makes a change of steps, in a transaction that holds the next revision, and
// returns that. What a step must not do is found out by the reading of one before it:
// the database may have executed both by then, and undoes them.
func (s *sqlStore) changeBy(ctx context.Context, doing string, steps ...step) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	defer s.observe(CallWrite, time.Now(), &err)
	if s.pipeline == nil {
		err = s.transact(ctx, func(ctx context.Context, tx *sql.Tx, number int64) error {
			revision = number
			return inTurn(ctx, tx, steps)
		})
		return revision, s.explain(ctx, doing, err)
	}
	first := step{query: s.takeRevision, read: one(func(scan func(...any) error) error { return scan(&revision) })}
	steps = append([]step{first}, steps...)
	var commit func(context.Context) error
	err = s.retryOnce(ctx, func() (err error) { // nothing is committed yet
		commit, err = s.pipeline(ctx, steps)
		return err
	})
	if err == nil {
		err = commit(ctx)
	}
	return revision, s.explain(ctx, doing, err)
}

// inTurn executes steps one after the other.
func inTurn(ctx context.Context, tx *sql.Tx, steps []step) error {
	for _, s := range steps {
		if err := s.in(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) in(ctx context.Context, tx *sql.Tx) (err error) {
	rows, err := tx.QueryContext(ctx, s.query, s.args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if err := s.read(rows); err != nil {
		return err
	}
	return rows.Err()
}

// one reads the only row of a statement; sql.ErrNoRows if there is none.
func one(scan func(scan func(dest ...any) error) error) func(rowReader) error {
	return func(rows rowReader) error {
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return err
			}
			return fmt.Errorf("reading a row: %w", sql.ErrNoRows)
		}
		if err := scan(rows.Scan); err != nil {
			return err
		}
		for rows.Next() { // to its end, where a statement may still fail
		}
		return rows.Err()
	}
}
