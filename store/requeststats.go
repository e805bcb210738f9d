package store

import (
	"context"
	"database/sql"
	"time"
)

// StatsDocument is what one replica counted in one period of time.
type StatsDocument struct {
	ID       int64 // assigned by the store
	Replica  string
	Period   time.Duration // whole seconds
	Start    time.Time     // UTC
	Document []byte        // in a form that the store does not know
}

// RequestStats keeps what the replicas have counted, so that a restart and other
// replicas know it.
type RequestStats interface {
	// SaveStats writes documents, each in the place of the one for the same replica,
	// period and start, and moves the times of the routes' last hits forward. With
	// a document go those that the same replica wrote for shorter periods before its
	// start.
	SaveStats(ctx context.Context, documents []*StatsDocument, hits map[int64]time.Time) error

	// RequestStats returns the documents of other replicas with ids above after, for
	// periods that begin at since or later, ordered by id. Ids are given before commits,
	// so that one a little below the highest may yet appear.
	RequestStats(ctx context.Context, besides string, after int64, since time.Time) ([]*StatsDocument, error)

	// LastHits returns when each route was last asked for, without those that never
	// were.
	LastHits(ctx context.Context) (map[int64]time.Time, error)

	// PruneStats removes documents for periods that began before the time given.
	PruneStats(ctx context.Context, before time.Time) error
}

// SaveStats implements RequestStats.
func (s *sqlStore) SaveStats(ctx context.Context, documents []*StatsDocument, hits map[int64]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	return s.explain(ctx, "writing statistics", s.saveStats(ctx, documents, hits))
}

func (s *sqlStore) saveStats(ctx context.Context, documents []*StatsDocument, hits map[int64]time.Time) error {
	tx, err := s.writer.BeginTx(ctx, &sql.TxOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	for _, d := range documents {
		start, seconds := d.Start.UTC().Truncate(time.Second), int64(d.Period/time.Second)
		_, err := tx.ExecContext(ctx, `INSERT INTO request_stats (replica, period, start, document) VALUES ($1, $2, $3, $4)
			ON CONFLICT (replica, period, start) DO UPDATE SET document = excluded.document`,
			d.Replica, seconds, start, d.Document)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM request_stats WHERE replica = $1 AND period < $2 AND start < $3", d.Replica, seconds, start)
		if err != nil {
			return err
		}
	}
	if err := s.saveHits(ctx, tx, hits); err != nil {
		return err
	}
	return tx.Commit()
}

// saveHits leaves out routes that are not there.
func (s *sqlStore) saveHits(ctx context.Context, tx *sql.Tx, hits map[int64]time.Time) error {
	if len(hits) == 0 {
		return nil
	}
	statement, err := tx.PrepareContext(ctx, `INSERT INTO route_hits (route_id, last_hit)
		SELECT id, $2 FROM routes WHERE id = $1
		ON CONFLICT (route_id) DO UPDATE SET last_hit = excluded.last_hit WHERE route_hits.last_hit < excluded.last_hit`)
	if err != nil {
		return err
	}
	defer statement.Close()
	for id, at := range hits {
		if !validID(id) {
			continue
		}
		if _, err := statement.ExecContext(ctx, id, at.UTC().Truncate(time.Microsecond)); err != nil {
			return err
		}
	}
	return nil
}

const statsColumns = "id, replica, period, start, document"

func scanStats(scan func(dest ...any) error) (*StatsDocument, error) {
	var (
		d       StatsDocument
		seconds int64
		start   timestamp
	)
	if err := scan(&d.ID, &d.Replica, &seconds, &start, &d.Document); err != nil {
		return nil, err
	}
	d.Period, d.Start = time.Duration(seconds)*time.Second, start.Time
	return &d, nil
}

// RequestStats implements RequestStats.
func (s *sqlStore) RequestStats(ctx context.Context, besides string, after int64, since time.Time) (list []*StatsDocument, err error) {
	err = s.query(ctx, "reading statistics", func(ctx context.Context, q querier) (err error) {
		list, err = readAll(ctx, q, scanStats, "SELECT "+statsColumns+" FROM request_stats WHERE replica <> $1 AND id > $2 AND start >= $3 ORDER BY id",
			besides, after, since.UTC().Truncate(time.Second))
		return err
	})
	return list, err
}

// LastHits implements RequestStats.
func (s *sqlStore) LastHits(ctx context.Context) (map[int64]time.Time, error) {
	hits := make(map[int64]time.Time)
	err := s.query(ctx, "reading the routes' last hits", func(ctx context.Context, q querier) error {
		clear(hits)
		rows, err := q.QueryContext(ctx, "SELECT route_id, last_hit FROM route_hits")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var (
				id int64
				at timestamp
			)
			if err := rows.Scan(&id, &at); err != nil {
				return err
			}
			hits[id] = at.Time
		}
		return rows.Err()
	})
	return hits, err
}

// PruneStats implements RequestStats.
func (s *sqlStore) PruneStats(ctx context.Context, before time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	_, err := s.writer.ExecContext(ctx, "DELETE FROM request_stats WHERE start < $1", before.UTC().Truncate(time.Second))
	return s.explain(ctx, "removing old statistics", err)
}
