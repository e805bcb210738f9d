package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Edits is what one revision does to routes. No route may be in it twice.
type Edits struct {
	// New routes.
	Create []*Route

	// The new states of routes, by their ids. Deleted ones are live again.
	Update []*Route

	// Live routes to mark deleted.
	Delete []int64
}

// Applied is what came of Edits.
type Applied struct {
	// The number of the change.
	Revision int64

	// The ids of Edits.Create, in its order.
	Created []int64

	// Every route that was changed as it is now, deleted ones with DeletedAt set, by id.
	Routes []*Route
}

const (
	// bulkTimeout bounds a change of many routes, unless that of a statement is longer.
	bulkTimeout = time.Minute

	// chunk is how many values one statement lists.
	chunk = 500
)

// Apply implements Histories.
func (s *sqlStore) Apply(ctx context.Context, edits Edits, at int64, by Author) (*Applied, error) {
	if err := checkAuthor(by); err != nil {
		return nil, err
	}
	encoded := func(routes []*Route) ([]bulkRow, error) {
		rows := make([]bulkRow, len(routes))
		for i, route := range routes {
			spec, err := encode(route, by)
			if err != nil {
				return nil, fmt.Errorf("route %s%s: %w", route.Host, route.Path, err)
			}
			rows[i] = bulkRow{route, spec}
		}
		return rows, nil
	}
	created, err := encoded(edits.Create)
	if err != nil {
		return nil, err
	}
	updated, err := encoded(edits.Update)
	if err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, max(bulkTimeout, s.queryTimeout))
	defer cancel()
	var done Applied
	err = s.transact(ctx, func(ctx context.Context, tx *sql.Tx, revision int64) error {
		if revision != at+1 {
			return ErrStale
		}
		sign := signature{revision, by, now()}
		done = Applied{Revision: revision}
		if err := markDeleted(ctx, tx, edits.Delete, sign); err != nil {
			return err
		}
		inTheWay, err := displaced(ctx, tx, &edits)
		if err != nil {
			return err
		}
		if err := markDeleted(ctx, tx, inTheWay, sign); err != nil {
			return err
		}
		if err := s.updateRoutes(ctx, tx, updated, sign); err != nil {
			return err
		}
		if done.Created, err = s.insertRoutes(ctx, tx, created, sign); err != nil {
			return err
		}
		done.Routes, err = readRoutes(ctx, tx, func() {},
			"SELECT "+columns+" FROM routes WHERE id IN (SELECT route_id FROM revisions WHERE revision = $1) ORDER BY id", revision)
		return err
	})
	if err := s.explain(ctx, "changing routes", err); err != nil {
		return nil, err
	}
	return &done, nil
}

// signature is what every row of a change is signed with.
type signature struct {
	revision int64
	by       Author
	at       time.Time
}

// bulkRow is one of many rows to write.
type bulkRow struct {
	*Route
	spec string
}

func markDeleted(ctx context.Context, tx *sql.Tx, ids []int64, sign signature) error {
	for part := range slices.Chunk(ids, chunk) {
		args := []any{sign.at, sign.revision, sign.by.Actor, sign.by.Source}
		//nolint:gosec // The list has placeholders.
		statement := `UPDATE routes SET
				deleted_at = $1, updated_at = $1, revision = $2, updated_by = $3, updated_from = $4
			WHERE deleted_at IS NULL AND id IN ` + list(&args, part)
		result, err := tx.ExecContext(ctx, statement, args...)
		if err := affected(result, err, len(part)); err != nil {
			return err
		}
	}
	return nil
}

// displaced returns the routes to update that stand, as they are now, where another
// of the edits wants to be. The databases check that after every row, so these must
// make room first.
func displaced(ctx context.Context, tx *sql.Tx, edits *Edits) ([]int64, error) {
	type place struct {
		host, path, method string
		priority           int
	}
	claims := make(map[place][]int64)
	ids := make([]int64, len(edits.Update))
	for i, r := range edits.Update {
		ids[i] = r.ID
		at := place{r.Host, r.Path, r.Method, r.Priority}
		claims[at] = append(claims[at], r.ID)
	}
	for _, r := range edits.Create {
		at := place{r.Host, r.Path, r.Method, r.Priority}
		claims[at] = append(claims[at], 0)
	}
	var found []int64
	for part := range slices.Chunk(ids, chunk) {
		var args []any
		rows, err := readAll(ctx, tx, func(scan func(...any) error) (*Route, error) {
			r := new(Route)
			return r, scan(&r.ID, &r.Host, &r.Path, &r.Method, &r.Priority)
		}, "SELECT id, host, path, method, priority FROM routes WHERE deleted_at IS NULL AND id IN "+list(&args, part), args...)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			by := claims[place{r.Host, r.Path, r.Method, r.Priority}]
			if slices.ContainsFunc(by, func(id int64) bool { return id != r.ID }) {
				found = append(found, r.ID)
			}
		}
	}
	return found, nil
}

// insertEach inserts rows one by one, which costs little where the database is in
// this process.
func insertEach(ctx context.Context, tx *sql.Tx, rows []bulkRow, sign signature) ([]int64, error) {
	ids := make([]int64, len(rows))
	if len(rows) == 0 {
		return ids, nil
	}
	insert, err := tx.PrepareContext(ctx, `INSERT INTO routes (
			name, host, path, method, target_url, enabled, rate_limit, timeout, priority, spec, match_key,
			revision, updated_by, updated_from, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15) RETURNING id`)
	if err != nil {
		return nil, err
	}
	defer insert.Close()
	for i, r := range rows {
		err := insert.QueryRowContext(ctx, r.Name, r.Host, r.Path, r.Method, r.TargetURL, r.Enabled, r.RateLimit,
			r.Timeout, r.Priority, r.spec, r.MatchKey, sign.revision, sign.by.Actor, sign.by.Source, sign.at).Scan(&ids[i])
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// updateEach updates rows one by one.
func updateEach(ctx context.Context, tx *sql.Tx, rows []bulkRow, sign signature) error {
	if len(rows) == 0 {
		return nil
	}
	update, err := tx.PrepareContext(ctx, `UPDATE routes SET
			name = $2, host = $3, path = $4, method = $5, target_url = $6, enabled = $7,
			rate_limit = $8, timeout = $9, priority = $10, spec = $11, match_key = $12,
			revision = $13, updated_by = $14, updated_from = $15, updated_at = $16, deleted_at = NULL
		WHERE id = $1`)
	if err != nil {
		return err
	}
	defer update.Close()
	for _, r := range rows {
		result, err := update.ExecContext(ctx, r.ID, r.Name, r.Host, r.Path, r.Method, r.TargetURL, r.Enabled, r.RateLimit,
			r.Timeout, r.Priority, r.spec, r.MatchKey, sign.revision, sign.by.Actor, sign.by.Source, sign.at)
		if err := affected(result, err, 1); err != nil {
			return err
		}
	}
	return nil
}

// affected fails with ErrNotFound unless a statement has changed as many rows.
func affected(result sql.Result, err error, want int) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n != int64(want) {
		return ErrNotFound
	}
	return err
}

// list returns "($3, $4)" for values, which it appends to args.
func list(args *[]any, values []int64) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(", $" + strconv.Itoa(len(*args)+1))
		*args = append(*args, v)
	}
	return "(" + strings.TrimPrefix(b.String(), ", ") + ")"
}
