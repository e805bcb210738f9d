package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Histories is the history by revisions, and changes of many routes at once.
type Histories interface {
	// Revisions returns up to limit revisions with a number below before (0 for the
	// newest), newest first, with up to perRevision changes of routes and of
	// credentials each. With a filter by route, only the changes of that.
	Revisions(ctx context.Context, filter RevisionFilter, before int64, limit, perRevision int) ([]*Revision, error)

	// RevisionChanges returns one revision with up to limit changes of routes whose
	// ids are above after, and up to 10,000 changes of credentials. ErrNoRevision if the
	// history has nothing of it.
	RevisionChanges(ctx context.Context, number, after int64, limit int) (*Revision, error)

	// Past returns what is now otherwise than at a revision, from one snapshot.
	// ErrNoRevision if the store has not come that far; ErrHistoryGone if the history
	// does not tell everything since.
	Past(ctx context.Context, revision int64) (*Past, error)

	// Row returns the route with this id, also a deleted one, or ErrNotFound.
	Row(ctx context.Context, id int64) (*Route, error)

	// Apply makes all edits as one revision, or none of them. The caller has looked
	// for conflicts in the state of revision at: if the store is at another, ErrStale.
	// ErrNotFound if one of the routes is not there.
	Apply(ctx context.Context, edits Edits, at int64, by Author) (*Applied, error)

	// PruneHistory removes revisions made before a time, and all earlier ones, and
	// returns how many. Of several processes that do so at once, one works. The routes
	// themselves stay, deleted ones as well. ErrNotPermitted if the database's role may
	// not delete from the history.
	PruneHistory(ctx context.Context, before time.Time) (int, error)
}

// RevisionFilter says which revisions are asked for. Its conditions add up; the zero
// value asks for all.
type RevisionFilter struct {
	RouteID int64     // those that changed this route
	Actor   string    // by exactly this actor
	From    time.Time // made at this time or later
	To      time.Time // made before this time
}

// Revision is one number of the history and what it did.
type Revision struct {
	Number    int64
	Actor     string
	Source    string
	CreatedAt time.Time

	Routes      []Change             // by the routes' ids
	Credentials []CredentialRevision // by kind and id

	// How many changes there are, also if not all are in Routes and Credentials.
	TotalRoutes, TotalCredentials int
}

// CredentialRevision is what a revision did to a consumer, a key or a token.
type CredentialRevision struct {
	Kind   CredentialKind
	ID     string
	Op     string          // "create", "update" or "delete"
	Before json.RawMessage // the row as a JSON object without the hash; nil for a create
	After  json.RawMessage // the same, nil for a delete
}

// Past is a state of the routes, told by how it differs from the present one.
type Past struct {
	// What each of the routes that were changed since was then: nil if it was not
	// there.
	Routes map[int64]*Route

	// The present revision.
	Now int64
}

// maxCredentialChanges bounds what is told of one revision. Only plain SQL changes more.
const maxCredentialChanges = 10_000

// conditions builds a WHERE clause. Every condition holds one question mark for each
// of its values.
type conditions struct {
	texts []string
	args  []any
}

func (c *conditions) and(condition string, values ...any) {
	for _, v := range values {
		c.args = append(c.args, v)
		condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	c.texts = append(c.texts, condition)
}

func (c *conditions) where() string { return strings.Join(c.texts, " AND ") }

// Revisions implements Histories.
func (s *sqlStore) Revisions(ctx context.Context, filter RevisionFilter, before int64, limit, perRevision int) ([]*Revision, error) {
	if limit <= 0 {
		return nil, nil
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	var list []*Revision
	err := s.querySnapshot(ctx, "reading the history", func(ctx context.Context, q querier, tick func()) error {
		numbers, err := revisionNumbers(ctx, q, filter, before, limit)
		if err != nil || len(numbers) == 0 {
			list = nil
			return err
		}
		tick()
		list, err = readRevisions(ctx, q, numbers, filter.RouteID, 0, perRevision, perRevision)
		return err
	})
	return list, err
}

// revisionNumbers returns the numbers of the newest revisions that are asked for.
func revisionNumbers(ctx context.Context, q querier, filter RevisionFilter, before int64, limit int) ([]int64, error) {
	var c conditions
	c.and("revision < ?", before)
	if filter.Actor != "" {
		c.and("actor = ?", filter.Actor)
	}
	if !filter.From.IsZero() {
		c.and("created_at >= ?", filter.From.UTC().Truncate(time.Microsecond))
	}
	if !filter.To.IsZero() {
		c.and("created_at < ?", filter.To.UTC().Truncate(time.Microsecond))
	}
	c.args = append(c.args, limit)
	last := " ORDER BY revision DESC LIMIT $" + strconv.Itoa(len(c.args))
	both := c.where()
	if filter.RouteID != 0 {
		c.and("route_id = ?", filter.RouteID)
	}
	query := "SELECT revision FROM (SELECT DISTINCT revision FROM revisions WHERE " + c.where() + last + ") AS r"
	if filter.RouteID == 0 {
		query += " UNION SELECT revision FROM (SELECT DISTINCT revision FROM credential_revisions WHERE " + both + last + ") AS c"
	}
	return readNumbers(ctx, q, query+last, c.args...)
}

// RevisionChanges implements Histories.
func (s *sqlStore) RevisionChanges(ctx context.Context, number, after int64, limit int) (*Revision, error) {
	var list []*Revision
	err := s.querySnapshot(ctx, "reading a revision", func(ctx context.Context, q querier, _ func()) (err error) {
		list, err = readRevisions(ctx, q, []int64{number}, 0, after, limit, maxCredentialChanges)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case len(list) == 0:
		return nil, ErrNoRevision
	}
	return list[0], nil
}

// readRevisions reads revisions by their numbers, which are in descending order.
// Those of which there is nothing are left out.
func readRevisions(ctx context.Context, q querier, numbers []int64, route, after int64, routes, credentials int) ([]*Revision, error) {
	byNumber := make(map[int64]*Revision, len(numbers))
	of := func(number int64, actor, source string, at time.Time) *Revision {
		r, ok := byNumber[number]
		if !ok {
			r = &Revision{Number: number, Actor: actor, Source: source, CreatedAt: at}
			byNumber[number] = r
		}
		return r
	}
	var args []any
	in := list(&args, numbers)
	args = append(args, after, routes)
	condition := ""
	if route != 0 {
		args = append(args, route)
		condition = " AND route_id = $" + strconv.Itoa(len(args))
	}
	place := func(back int) string { return "$" + strconv.Itoa(len(numbers)+back) }
	_, err := readAll(ctx, q, func(scan func(...any) error) (*Change, error) {
		var restored bool
		var total int
		c, err := scanChange(func(dest ...any) error { return scan(append(dest, &restored, &total)...) })
		if err != nil {
			return nil, err
		}
		c.Restored = restored && c.Op == "create"
		r := of(c.Revision, c.Actor, c.Source, c.CreatedAt)
		r.Routes, r.TotalRoutes = append(r.Routes, c), total
		return &c, nil
	}, `SELECT revision, route_id, op, actor, source, before, after, created_at, EXISTS (
				SELECT 1 FROM revisions AS e WHERE e.route_id = p.route_id AND e.revision < p.revision) AS restored, total
		FROM (
			SELECT h.*, count(*) OVER (PARTITION BY revision) AS total,
				-- Those up to the cursor come last.
				row_number() OVER (PARTITION BY revision ORDER BY route_id <= `+place(1)+`, route_id) AS place
			FROM revisions AS h WHERE revision IN `+in+condition+`) AS p
		WHERE route_id > `+place(1)+` AND place <= `+place(2)+` ORDER BY revision DESC, route_id`, args...)
	if err != nil {
		return nil, err
	}

	if route == 0 {
		args = args[:len(numbers)]
		args = append(args, credentials)
		_, err = readAll(ctx, q, func(scan func(...any) error) (*CredentialRevision, error) {
			var (
				c             CredentialRevision
				number        int64
				actor, source string
				was, isNow    []byte
				created       timestamp
				total         int
			)
			if err := scan(&number, &c.Kind, &c.ID, &c.Op, &actor, &source, &was, &isNow, &created, &total); err != nil {
				return nil, err
			}
			c.Before, c.After = was, isNow
			r := of(number, actor, source, created.Time)
			r.Credentials, r.TotalCredentials = append(r.Credentials, c), total
			return &c, nil
		}, `SELECT revision, kind, object_id, op, actor, source, before, after, created_at, total FROM (
				SELECT h.*, count(*) OVER (PARTITION BY revision) AS total,
					row_number() OVER (PARTITION BY revision ORDER BY kind, object_id) AS place
				FROM credential_revisions AS h WHERE revision IN `+in+`) AS p
			WHERE place <= `+place(1)+` ORDER BY revision DESC, kind, object_id`, args...)
		if err != nil {
			return nil, err
		}
	}
	var revisions []*Revision
	for _, number := range numbers {
		if r, ok := byNumber[number]; ok {
			revisions = append(revisions, r)
		}
	}
	return revisions, nil
}

// Past implements Histories.
func (s *sqlStore) Past(ctx context.Context, revision int64) (*Past, error) {
	var past *Past
	err := s.querySnapshot(ctx, "reading the history", func(ctx context.Context, q querier, tick func()) error {
		past = &Past{Routes: make(map[int64]*Route)}
		var told int64 // as in Changes
		err := q.QueryRowContext(ctx, `SELECT revision, (SELECT count(*) FROM (
				SELECT revision FROM revisions WHERE revision > $1
				UNION SELECT revision FROM credential_revisions WHERE revision > $1) AS told)
			FROM revision_counter`, revision).Scan(&past.Now, &told)
		switch {
		case err != nil:
			return err
		case revision > past.Now || revision < 0:
			return ErrNoRevision
		case told != past.Now-revision:
			return ErrHistoryGone
		}
		tick()
		// What a route was then is what the first change since has found.
		_, err = readAll(ctx, q, func(scan func(...any) error) (*Route, error) {
			var (
				id  int64
				was []byte
			)
			if err := scan(&id, &was); err != nil {
				return nil, err
			}
			route, err := routeOfDocument(was)
			past.Routes[id] = route
			if len(past.Routes)%tickEvery == 0 {
				tick()
			}
			return route, err
		}, `SELECT r.route_id, r.before FROM revisions AS r
			JOIN (SELECT route_id, min(revision) AS first FROM revisions WHERE revision > $1 GROUP BY route_id) AS f
				ON f.route_id = r.route_id AND f.first = r.revision`, revision)
		return err
	})
	if err != nil {
		return nil, err
	}
	return past, nil
}

// Row implements Histories.
func (s *sqlStore) Row(ctx context.Context, id int64) (*Route, error) {
	if !validID(id) {
		return nil, ErrNotFound
	}
	var route *Route
	err := s.query(ctx, "reading a route", func(ctx context.Context, q querier) (err error) {
		route, err = scanRoute(q.QueryRowContext(ctx, "SELECT "+columns+" FROM routes WHERE id = $1", id).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	return route, err
}

func readNumbers(ctx context.Context, q querier, query string, args ...any) ([]int64, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var numbers []int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, rows.Err()
}
