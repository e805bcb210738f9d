package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// loadPostgres is Load past database/sql, which makes a value of its own of every
// column: with many routes that is most of a start. It tells of its progress by tick.
func loadPostgres(ctx context.Context, pool *pgxpool.Pool, tick func()) (routes []*Route, revision int64, err error) {
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after reading there is nothing to commit
	if err := tx.QueryRow(ctx, "SELECT revision FROM revision_counter").Scan(&revision); err != nil {
		return nil, 0, err
	}
	rows, err := tx.Query(ctx, `SELECT id, name, host, path, method, target_url, enabled,
		COALESCE(rate_limit, 0), COALESCE(timeout, 30), priority, spec, match_key, revision, created_at, updated_at
		FROM routes WHERE deleted_at IS NULL ORDER BY id`)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	var scan routeScan
	for rows.Next() {
		route, err := scan.route(rows)
		if err != nil {
			return nil, 0, err
		}
		if routes = append(routes, route); len(routes)%tickEvery == 0 {
			tick()
		}
	}
	return routes, revision, rows.Err()
}

// routeScan reads rows of routes. What many of them say alike, they share; what one says
// alone is one text in memory, since many small ones cost more.
type routeScan struct {
	name, host, path, method, target, spec, key scanned

	own    []byte
	shared map[string]string
}

func (s *routeScan) route(rows pgx.Rows) (*Route, error) {
	r := new(Route)
	err := rows.Scan(&r.ID, &s.name, &s.host, &s.path, &s.method, &s.target, &r.Enabled,
		&r.RateLimit, &r.Timeout, &r.Priority, &s.spec, &s.key, &r.Revision, &r.CreatedAt, &r.UpdatedAt)
	if err != nil {
		return nil, fmt.Errorf("reading route: %w", err)
	}
	r.Host, r.Method, r.TargetURL = s.share(s.host), s.share(s.method), s.share(s.target)
	s.own = append(append(append(s.own[:0], s.name...), s.path...), s.key...)
	text := string(s.own)
	r.Name, text = text[:len(s.name)], text[len(s.name):]
	r.Path, r.MatchKey = text[:len(s.path)], text[len(s.path):]
	r.CreatedAt, r.UpdatedAt = r.CreatedAt.UTC().Truncate(time.Microsecond), r.UpdatedAt.UTC().Truncate(time.Microsecond)
	r.setSpec(s.spec)
	return r, nil
}

// share returns the text, of which there is one for all rows.
func (s *routeScan) share(text []byte) string {
	known, ok := s.shared[string(text)]
	if !ok {
		if s.shared == nil {
			s.shared = make(map[string]string)
		}
		known = string(text)
		s.shared[known] = known
	}
	return known
}

// scanned is a column as it came, until the next row is read.
type scanned []byte

// ScanBytes implements pgtype.BytesScanner.
func (s *scanned) ScanBytes(text []byte) error {
	*s = text
	return nil
}
