package store

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"
)

// tickEvery is how many rows are read between two signs of progress.
const tickEvery = 256

// Revision implements Store.
func (s *sqlStore) Revision(ctx context.Context) (int64, error) {
	var revision int64
	err := s.query(ctx, "reading the revision", func(ctx context.Context, q querier) error {
		return q.QueryRowContext(ctx, "SELECT revision FROM revision_counter").Scan(&revision)
	})
	return revision, err
}

// RevisionMark implements Store. The mark is when the change was committed.
func (s *sqlStore) RevisionMark(ctx context.Context) (revision int64, mark string, err error) {
	err = s.query(ctx, "reading the revision", func(ctx context.Context, q querier) error {
		return q.QueryRowContext(ctx, "SELECT revision, COALESCE(CAST(changed_at AS text), '') FROM revision_counter").Scan(&revision, &mark)
	})
	return revision, mark, err
}

// Load implements Store.
func (s *sqlStore) Load(ctx context.Context) ([]*Route, int64, error) {
	var (
		routes   []*Route
		revision int64
	)
	err := s.readMany(ctx, "loading routes", func(ctx context.Context, tick func()) (err error) {
		routes, revision, err = s.load(ctx, tick)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return routes, revision, nil
}

// loadAny is Load for any database.
func (s *sqlStore) loadAny(ctx context.Context, tick func()) (routes []*Route, revision int64, err error) {
	err = s.snapshotOf(ctx, tick, func(ctx context.Context, q querier, tick func()) error {
		if err := q.QueryRowContext(ctx, "SELECT revision FROM revision_counter").Scan(&revision); err != nil {
			return err
		}
		routes, err = readRoutes(ctx, q, tick, "SELECT "+columns+" FROM routes WHERE deleted_at IS NULL ORDER BY id")
		return err
	})
	return routes, revision, err
}

// Changes implements Store.
func (s *sqlStore) Changes(ctx context.Context, since int64) (*Changes, error) {
	var c *Changes
	err := s.querySnapshot(ctx, "loading changes", func(ctx context.Context, q querier, tick func()) error {
		c = new(Changes)
		var (
			told int64    // revisions after since whose changes the history tells
			age  *float64 // of the revision, in seconds
		)
		err := q.QueryRowContext(ctx, `SELECT revision, (SELECT count(*) FROM (
				SELECT revision FROM revisions WHERE revision > $1
				UNION SELECT revision FROM credential_revisions WHERE revision > $1) AS told), `+s.since("changed_at")+`
			FROM revision_counter`, since).Scan(&c.Revision, &told, &age)
		if age != nil {
			c.Committed = time.Now().Add(-seconds(*age))
		}
		switch {
		case err != nil:
			return err
		case c.Revision == since:
			return nil
		case told != c.Revision-since:
			return ErrResync
		}
		tick()
		c.Routes, err = readRoutes(ctx, q, tick,
			"SELECT "+columns+` FROM routes
				WHERE id IN (SELECT route_id FROM revisions WHERE revision > $1) ORDER BY id`, since)
		if err != nil {
			return err
		}
		tick()
		c.Credentials, err = readCredentialChanges(ctx, q, since)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func readCredentialChanges(ctx context.Context, q querier, since int64) ([]CredentialChange, error) {
	rows, err := q.QueryContext(ctx,
		"SELECT DISTINCT kind, object_id FROM credential_revisions WHERE revision > $1", since)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []CredentialChange
	for rows.Next() {
		var c CredentialChange
		if err := rows.Scan(&c.Kind, &c.ID); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// Get implements Store.
func (s *sqlStore) Get(ctx context.Context, id int64) (*Route, error) {
	if !validID(id) {
		return nil, ErrNotFound
	}
	var route *Route
	err := s.query(ctx, "reading a route", func(ctx context.Context, q querier) (err error) {
		route, err = scanRoute(q.QueryRowContext(ctx,
			"SELECT "+columns+" FROM routes WHERE id = $1 AND deleted_at IS NULL", id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return route, err
}

// History implements Store.
func (s *sqlStore) History(ctx context.Context, before int64, limit int) ([]Change, error) {
	if limit <= 0 {
		return nil, nil
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	var changes []Change
	err := s.query(ctx, "reading the history", func(ctx context.Context, q querier) error {
		changes = nil
		rows, err := q.QueryContext(ctx, `SELECT revision, route_id, op, actor, source, before, after, created_at
			FROM revisions WHERE revision < $1 ORDER BY revision DESC, route_id LIMIT $2`, before, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			change, err := scanChange(rows.Scan)
			if err != nil {
				return err
			}
			changes = append(changes, change)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return changes, nil
}

func scanChange(scan func(dest ...any) error) (Change, error) {
	var (
		c          Change
		was, isNow []byte
		created    timestamp
	)
	err := scan(&c.Revision, &c.RouteID, &c.Op, &c.Actor, &c.Source, &was, &isNow, &created)
	if err != nil {
		return Change{}, err
	}
	c.CreatedAt = created.Time
	if c.Before, err = routeOfDocument(was); err != nil {
		return Change{}, err
	}
	if c.After, err = routeOfDocument(isNow); err != nil {
		return Change{}, err
	}
	return c, nil
}

func readRoutes(ctx context.Context, q querier, tick func(), query string, args ...any) ([]*Route, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var routes []*Route
	for rows.Next() {
		route, err := scanRoute(rows.Scan)
		if err != nil {
			return nil, err
		}
		routes = append(routes, route)
		if len(routes)%tickEvery == 0 {
			tick()
		}
	}
	return routes, rows.Err()
}

// validID tells whether the column can hold id at all: PostgreSQL fails, rather
// than finds nothing, if asked for a number out of its type's range.
func validID(id int64) bool { return 0 < id && id <= math.MaxInt32 }
