package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
)

// Create implements Store.
func (s *sqlStore) Create(ctx context.Context, route *Route, by Author) (*Route, error) {
	spec, err := encode(route, by)
	if err != nil {
		return nil, err
	}
	var created *Route
	_, err = s.changeBy(ctx, "creating a route", noConflict(route, 0), insertion(route, spec, by, &created))
	if err != nil {
		return nil, err
	}
	return created, nil
}

// Update implements Store.
func (s *sqlStore) Update(ctx context.Context, route *Route, ifRevision int64, by Author) (*Route, error) {
	spec, err := encode(route, by)
	if err != nil {
		return nil, err
	}
	if !validID(route.ID) {
		return nil, ErrNotFound
	}
	var updated *Route
	_, err = s.changeBy(ctx, "updating a route", atRevision("routes", route.ID, ifRevision), noConflict(route, route.ID), step{
		query: `UPDATE routes SET
				name = $2, host = $3, path = $4, method = $5, target_url = $6, enabled = $7,
				rate_limit = $8, timeout = $9, priority = $10, spec = $11, match_key = $12,
				revision = ` + thisRevision + `, updated_by = $13, updated_from = $14, updated_at = $15
			WHERE id = $1 RETURNING ` + columns,
		args: []any{
			route.ID, route.Name, route.Host, route.Path, route.Method, route.TargetURL, route.Enabled,
			route.RateLimit, route.Timeout, route.Priority, spec, route.MatchKey, by.Actor, by.Source, now(),
		},
		read: readInto(&updated),
	})
	if err != nil {
		return nil, err
	}
	return updated, nil
}

// Delete implements Store.
func (s *sqlStore) Delete(ctx context.Context, id, ifRevision int64, by Author) (int64, error) {
	if err := checkAuthor(by); err != nil {
		return 0, err
	}
	if !validID(id) {
		return 0, ErrNotFound
	}
	var deleted *Route
	return s.changeBy(ctx, "deleting a route", atRevision("routes", id, ifRevision), step{
		query: `UPDATE routes SET
				deleted_at = $2, updated_at = $2, revision = ` + thisRevision + `, updated_by = $3, updated_from = $4
			WHERE id = $1 RETURNING ` + columns,
		args: []any{id, now(), by.Actor, by.Source},
		read: readInto(&deleted),
	})
}

// errAlreadySeeded ends the transaction of a Seed that comes too late.
var errAlreadySeeded = errors.New("the store has had routes")

// everHadRoutes asks whether there was ever a route. Other changes, such as the
// first admin token, don't count; a table that was emptied does.
const everHadRoutes = "SELECT EXISTS (SELECT 1 FROM routes) OR EXISTS (SELECT 1 FROM revisions)"

// Seed implements Store.
func (s *sqlStore) Seed(ctx context.Context, routes []*Route, by Author) (bool, error) {
	specs := make([]string, len(routes))
	for i, route := range routes {
		var err error
		if specs[i], err = encode(route, by); err != nil {
			return false, err
		}
	}
	// Almost every start finds a store with routes, and need not wait for writers.
	var ever bool
	err := s.query(ctx, "looking for routes", func(ctx context.Context, q querier) error {
		return q.QueryRowContext(ctx, everHadRoutes).Scan(&ever)
	})
	if err != nil || ever || len(routes) == 0 {
		return false, err
	}
	err = s.change(ctx, "seeding routes", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		if err := tx.QueryRowContext(ctx, everHadRoutes).Scan(&ever); err != nil {
			return err
		}
		if ever {
			return errAlreadySeeded
		}
		for i, route := range routes {
			var created *Route
			if err := inTurn(ctx, tx, []step{noConflict(route, 0), insertion(route, specs[i], by, &created)}); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errAlreadySeeded) {
		return false, nil
	}
	return err == nil, err
}

// insertion inserts a route and reads it into created.
func insertion(route *Route, spec string, by Author, created **Route) step {
	return step{
		query: `INSERT INTO routes (
				name, host, path, method, target_url, enabled, rate_limit, timeout, priority, spec, match_key,
				updated_by, updated_from, created_at, updated_at, revision)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, ` + thisRevision + `)
			RETURNING ` + columns,
		args: []any{
			route.Name, route.Host, route.Path, route.Method, route.TargetURL, route.Enabled,
			route.RateLimit, route.Timeout, route.Priority, spec, route.MatchKey, by.Actor, by.Source, now(),
		},
		read: readInto(created),
	}
}

// readInto reads a row of columns.
func readInto(route **Route) func(rowReader) error {
	return one(func(scan func(dest ...any) error) (err error) {
		*route, err = scanRoute(scan)
		return err
	})
}

// atRevision fails unless there is a live row with this id, which must be a valid one, in
// the table, at ifRevision if that is not 0. Since the transaction holds the counter, the
// answer stays true until its end.
func atRevision(table string, id, ifRevision int64) step {
	return foundAtRevision(ifRevision, "SELECT revision FROM "+table+" WHERE id = $1 AND deleted_at IS NULL", id)
}

// foundAtRevision is atRevision for the row whose revision the query reads.
func foundAtRevision(ifRevision int64, query string, args ...any) step {
	return step{
		query: query,
		args:  args,
		read: func(rows rowReader) error {
			var at int64
			err := one(func(scan func(dest ...any) error) error { return scan(&at) })(rows)
			switch {
			case errors.Is(err, sql.ErrNoRows):
				return ErrNotFound
			case err != nil:
				return err
			case ifRevision != 0 && ifRevision != at:
				return ErrStale
			}
			return nil
		},
	}
}

// checkRevision is atRevision for a change whose statements depend on each other.
func checkRevision(ctx context.Context, tx *sql.Tx, table string, id, ifRevision int64) error {
	if !validID(id) {
		return ErrNotFound
	}
	return inTurn(ctx, tx, []step{atRevision(table, id, ifRevision)})
}

// noConflict fails with a *ConflictError if a live route other than except
// stands in the way of route: one with the same match key and a method in
// common, or one that the unique index of live routes would refuse.
func noConflict(route *Route, except int64) step {
	return step{
		// A union, since SQLite would read the whole table for an OR.
		query: `SELECT id, host, path, method, priority, spec, match_key
			FROM routes WHERE id <> $1 AND id IN (
				SELECT id FROM routes WHERE deleted_at IS NULL AND match_key = $2 AND match_key <> ''
				UNION ALL
				SELECT id FROM routes WHERE deleted_at IS NULL
					AND host = $3 AND path = $4 AND method = $5 AND priority = $6)
			ORDER BY id`,
		args: []any{except, route.MatchKey, route.Host, route.Path, route.Method, route.Priority},
		read: func(rows rowReader) error {
			for rows.Next() {
				var (
					other Route
					spec  []byte
				)
				err := rows.Scan(&other.ID, &other.Host, &other.Path, &other.Method, &other.Priority, &spec, &other.MatchKey)
				if err != nil {
					return err
				}
				other.setSpec(spec)
				if conflict(route, &other) {
					return &ConflictError{ID: other.ID}
				}
			}
			return rows.Err()
		},
	}
}

func conflict(route, other *Route) bool {
	if route.MatchKey != "" && route.MatchKey == other.MatchKey {
		return methodInCommon(route.Method, other.Method)
	}
	return other.DecodeError == "" &&
		route.Host == other.Host && route.Path == other.Path &&
		route.Method == other.Method && route.Priority == other.Priority &&
		maps.Equal(route.Headers, other.Headers) && maps.Equal(route.Query, other.Query)
}

// methodInCommon compares two comma-separated lists. "*" is a method like the
// others here: a route for all methods stands behind one that names its own.
func methodInCommon(a, b string) bool {
	of := strings.Split(b, ",")
	return slices.ContainsFunc(strings.Split(a, ","), func(method string) bool {
		return slices.ContainsFunc(of, func(other string) bool {
			return strings.TrimSpace(method) == strings.TrimSpace(other)
		})
	})
}
