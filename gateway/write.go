package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// ErrStoreDown says that a write was not done because the database failed or
// could not be reached. The cause is in the chain and must not reach a client.
var ErrStoreDown = errors.New("the route store is not available")

// Create stores a new route and serves it before it returns. Warnings tell of
// routes that can never match. Errors: store.FieldErrors, store.ErrConflict,
// ErrNotReady, ErrStoreDown.
func (g *Gateway) Create(ctx context.Context, row *store.Route, by store.Author) (*store.Route, []string, error) {
	row, err := g.prepareWrite(ctx, row)
	if err != nil {
		return nil, nil, err
	}
	written, err := g.store.Create(ctx, row, by)
	if err != nil {
		return nil, nil, g.writeError(ctx, err)
	}
	return written, g.served(ctx, written), nil
}

// Update replaces the route with row.ID, if it is still at revision
// ifRevision (0: whatever it is at), and serves it before it returns. Errors as
// Create, and store.ErrNotFound, store.ErrStale.
func (g *Gateway) Update(ctx context.Context, row *store.Route, ifRevision int64, by store.Author) (*store.Route, []string, error) {
	row, err := g.prepareWrite(ctx, row)
	if err != nil {
		return nil, nil, err
	}
	written, err := g.store.Update(ctx, row, ifRevision, by)
	if err != nil {
		return nil, nil, g.writeError(ctx, err)
	}
	return written, g.served(ctx, written), nil
}

// Delete removes the route under the same condition as Update and stops serving
// it before it returns.
func (g *Gateway) Delete(ctx context.Context, id, ifRevision int64, by store.Author) error {
	if g.Table() == nil {
		return ErrNotReady
	}
	revision, err := g.store.Delete(ctx, id, ifRevision, by)
	if err != nil {
		return g.writeError(ctx, err)
	}
	now := time.Now()
	g.apply(ctx, revision, &store.Route{ID: id, Revision: revision, DeletedAt: &now})
	return nil
}

// Get returns the live route with this id as this node knows it, and why it is
// not served although enabled, if so.
func (g *Gateway) Get(id int64) (row *store.Route, problem error, err error) {
	table := g.Table()
	if table == nil {
		return nil, nil, ErrNotReady
	}
	row, problem, ok := table.Get(id)
	if !ok {
		return nil, nil, store.ErrNotFound
	}
	return row, problem, nil
}

// prepareWrite validates row and returns a copy that is ready for the store.
func (g *Gateway) prepareWrite(ctx context.Context, row *store.Route) (*store.Route, error) {
	table := g.Table()
	if table == nil {
		return nil, ErrNotReady
	}
	compiled, err := routing.Compile(row)
	if err != nil {
		return nil, err
	}
	other := table.Conflict(compiled)
	if other != nil && g.sync(ctx) == nil {
		// Another node may have removed it a moment ago.
		other = g.Table().Conflict(compiled)
	}
	if other != nil {
		return nil, &store.ConflictError{ID: other.ID}
	}
	normal := compiled.Normalized()
	normal.MatchKey, err = routing.MatchKey(normal)
	if err != nil {
		return nil, fmt.Errorf("making match key: %w", err)
	}
	return normal, nil
}

// served makes a written route visible and returns the warnings about it.
func (g *Gateway) served(ctx context.Context, written *store.Route) []string {
	g.apply(ctx, written.Revision, written)
	table := g.Table()
	if compiled := table.Compiled(written.ID); compiled != nil {
		return table.Warnings(compiled)
	}
	return nil
}

// apply brings the table to the revision of a committed write. The write stands
// whatever happens here, so a store that fails just now is worked around where
// that is safe and otherwise left to the watcher.
func (g *Gateway) apply(ctx context.Context, revision int64, written ...*store.Route) {
	committed := time.Now()
	if g.applyNext(revision, committed, written) {
		return
	}
	// The client may be gone already, but its write must become visible.
	err := g.sync(context.WithoutCancel(ctx))
	if err == nil {
		return
	}
	g.noteStore(err)
	if !g.applyNext(revision, committed, written) {
		g.cfg.Log().Warn("a write is committed but not yet served, since the store failed after it",
			zap.Int64("revision", revision), zap.Error(err))
	}
}

// applyNext reports whether the table has the revision. If it has the one before, the
// rows that were written are all that is missing, and the store need not be asked.
func (g *Gateway) applyNext(revision int64, committed time.Time, written []*store.Route) bool {
	g.syncing <- struct{}{}
	defer func() { <-g.syncing }()
	old := g.table.Load()
	switch {
	case g.stale.Load():
		return false
	case revision <= old.Revision() && hasAll(old, written):
		return true // whoever wrote after this has read it, too
	case revision != old.Revision()+1:
		return false
	}
	g.noteStore(nil)
	g.publish(old, old.Apply(written, revision), ids(written))
	g.Propagation.Observe(time.Since(committed).Seconds())
	return true
}

// hasAll reports whether a table has rows as they were written, or as they became later.
func hasAll(table *routing.Table, rows []*store.Route) bool {
	for _, row := range rows {
		if has, _, ok := table.Get(row.ID); ok != (row.DeletedAt == nil) || ok && has.Revision < row.Revision {
			return false
		}
	}
	return true
}

// writeError is storeError for writes of routes.
func (g *Gateway) writeError(ctx context.Context, err error) error {
	if errors.Is(err, store.ErrStale) {
		// Somebody else wrote: let the client's next read on this node show it.
		if err := g.sync(ctx); err != nil {
			g.noteStore(err)
		}
	}
	return g.storeError(err)
}
