package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that a Store's callers can tell apart with errors.Is. All others mean
// that the database failed or could not be reached.
var (
	// ErrNotFound: there is no live route with this id.
	ErrNotFound = errors.New("no such route")

	// ErrConflict: another live route already claims the same requests. The
	// error is a *ConflictError that names it.
	ErrConflict = errors.New("route conflicts with another")

	// ErrStale: the route was changed since the revision that the caller named.
	ErrStale = errors.New("route has changed in the meantime")

	// ErrNoRevision: there was no such revision yet.
	ErrNoRevision = errors.New("no such revision")

	// ErrHistoryGone: the history does not reach back to the revision any more.
	ErrHistoryGone = errors.New("the history does not reach back that far")

	// ErrNotPermitted: the database's role may not do this.
	ErrNotPermitted = errors.New("the database's role lacks the right")

	// ErrInvalid: the database refused the values themselves, e.g. a NUL
	// character in a text.
	ErrInvalid = errors.New("invalid value")
)

// ConflictError names the live route that stands in the way of a write. It
// matches ErrConflict.
type ConflictError struct {
	ID int64 // the other route, 0 if the database did not say
}

// Store keeps routes, their history and the request log in PostgreSQL or
// SQLite. All methods are safe for concurrent use, honour their context, and
// return an error rather than wait without bound when the database is down.
type Store interface {
	// Migrate brings the schema up to date. It is safe to call from any number
	// of processes at once.
	Migrate(ctx context.Context) error

	// Ping asks whether the database answers.
	Ping(ctx context.Context) error

	// Revision returns the number of the last committed change, 0 before the first.
	Revision(ctx context.Context) (int64, error)

	// RevisionMark is Revision with what tells the change apart from another one of the
	// same number, as there may be once a dump was restored.
	RevisionMark(ctx context.Context) (revision int64, mark string, err error)

	// Load returns all live routes, ordered by id, and the revision that they
	// are at, both from one snapshot of the database.
	Load(ctx context.Context) (routes []*Route, revision int64, err error)

	// Changes returns what was changed after revision since, all from one snapshot.
	// It returns ErrResync if the history since then is not complete (it was pruned,
	// or the store is at an earlier revision because a dump was restored): the caller
	// must Load.
	Changes(ctx context.Context, since int64) (*Changes, error)

	// Get returns the live route with this id, or ErrNotFound.
	Get(ctx context.Context, id int64) (*Route, error)

	// Create inserts the route and returns it with its id, revision and times.
	// ErrConflict if a live route has the same match key and a method in common.
	Create(ctx context.Context, route *Route, by Author) (*Route, error)

	// Update replaces the live route that has route.ID. If ifRevision is not 0
	// and the route is at another revision: ErrStale. Otherwise as Create.
	Update(ctx context.Context, route *Route, ifRevision int64, by Author) (*Route, error)

	// Delete marks the route deleted. ErrNotFound, or ErrStale as in Update.
	// It returns the revision of the change.
	Delete(ctx context.Context, id int64, ifRevision int64, by Author) (revision int64, err error)

	// Seed inserts the routes as one revision if the store has never had any
	// route, not even a deleted one, and reports whether it did. Of several
	// processes that seed at once, one does.
	Seed(ctx context.Context, routes []*Route, by Author) (bool, error)

	// History returns up to limit changes with a revision below before (0 for
	// the newest), newest first.
	History(ctx context.Context, before int64, limit int) ([]Change, error)

	// Listen tells of revisions as they are committed, whoever makes them, until ctx is
	// done or the connection is lost, and returns why. It holds a connection of its own
	// beside the pool. A connection that has fallen silent is noticed within two
	// heartbeats. Errors: errors.ErrUnsupported on SQLite; ErrNotListening.
	Listen(ctx context.Context, heartbeat time.Duration, on Listener) error

	Histories

	Credentials

	RequestLogs

	Replicas

	RequestStats

	// Stats describes the connection pool.
	Stats() Stats

	// Close closes all connections, after those in use are given back.
	Close() error
}

// ErrResync says that changes since a revision cannot be told one by one.
var ErrResync = errors.New("full load needed")

// Changes is what was changed since a revision.
type Changes struct {
	// The present state of every route that was changed, deleted ones with DeletedAt
	// set, ordered by id.
	Routes []*Route

	// The consumers, keys and tokens that were changed, in no order.
	Credentials []CredentialChange

	// The revision that all of it is at.
	Revision int64

	// When that revision was committed, on this process's clock: the database tells how
	// long ago it was, so that the two clocks need not agree. Zero if it does not know.
	Committed time.Time
}

// Author is who makes a change, for the history.
type Author struct {
	Actor  string // e.g. "admin", "seed", "sql:postgres"
	Source string // the client's address, or empty
}

// Change is one route's part in one revision.
type Change struct {
	Revision  int64
	RouteID   int64
	Op        string // "create", "update" or "delete"
	Actor     string
	Source    string
	Before    *Route // nil for a create
	After     *Route // nil for a delete
	CreatedAt time.Time

	// Whether a "create" brought a deleted route back. History leaves it out.
	Restored bool
}

// Stats describes a store's connection pool at one moment.
type Stats struct {
	Driver   string `json:"driver"`    // "postgres" or "sqlite"
	MaxConns int    `json:"max_conns"` // the bound of the pool
	Open     int    `json:"open"`      // connections open now
	InUse    int    `json:"in_use"`    // of these, in use now

	// The version of the database's schema, and the newest that this program knows; 0
	// before Migrate. A newer one is that of a newer program, and works.
	Schema      int64 `json:"schema"`
	SchemaKnown int64 `json:"schema_known"`
}

func (e *ConflictError) Error() string {
	if e.ID == 0 {
		return ErrConflict.Error()
	}
	return fmt.Sprintf("route conflicts with route %d", e.ID)
}

// Unwrap makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Unwrap() error { return ErrConflict }
