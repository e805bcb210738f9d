package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// Edit is what a revision does to one route.
type Edit struct {
	// What names the edit in errors, e.g. its place in a request.
	Ref int

	// The live route, nil if there is none.
	Before *store.Route

	// What it is to be, nil to delete it. With the id of a deleted route it brings
	// that back; with none it makes a new one.
	After *store.Route

	// Whether it brings a deleted route back. Set by Rewrite.
	Restored bool
}

// Rewrite is a change of many routes at once.
type Rewrite struct {
	// Plan says what to change in a table. It is called again if others have changed
	// the routes meanwhile, so it must not depend on what it was asked before. An
	// error ends the whole; store.ErrStale asks for another attempt.
	Plan func(ctx context.Context, table *routing.Table) (*Plan, error)

	// Only find out what would be done.
	DryRun bool
}

// Plan is what to change.
type Plan struct {
	// The edits, none of which may change nothing.
	Edits []Edit

	// Whether the planner itself has found something wrong, so that nothing must be
	// changed; what the gateway finds is told nevertheless.
	Invalid bool
}

// Rewritten is what came of a Rewrite.
type Rewritten struct {
	// The revision of the change; of the state that there was, if nothing is changed.
	Revision int64

	// What is changed, or would be. After a change, After is as it is stored.
	Edits []Edit

	// The routes as they are now, or would be. New ones have no real ids in a dry run.
	Table *routing.Table
}

// RefusedError says that nothing was changed, and why as far as it is the edits.
type RefusedError struct {
	Problems []EditProblem // by Ref
}

// EditProblem is what is wrong with one edit.
type EditProblem struct {
	Ref int

	// What is wrong with its fields, as store.FieldErrors, or a *store.ConflictError.
	Err error

	// The Ref of the other edit, if it is a conflict with one.
	With    int
	HasWith bool
}

func (e *RefusedError) Error() string {
	texts := []string{"the edits are refused"}
	for _, p := range e.Problems {
		texts = append(texts, fmt.Sprintf("%d: %v", p.Ref, p.Err))
	}
	return strings.Join(texts, "; ")
}

const (
	// maxRewriteAttempts bounds how often a rewrite is planned anew because others
	// write too.
	maxRewriteAttempts = 16

	// firstTemporaryID begins the ids that new routes have while they are looked at.
	firstTemporaryID = 1 << 40
)

// Rewrite changes many routes as one revision, and serves them before it returns. It
// changes all or nothing. Errors: those of Plan, *RefusedError, ErrNotReady,
// ErrStoreDown, store.ErrStale if others never stop to write, and what Create returns
// if the database refuses a row.
func (g *Gateway) Rewrite(ctx context.Context, r Rewrite, by store.Author) (*Rewritten, error) {
	for attempt := 1; ; attempt++ {
		done, err := g.rewrite(ctx, r, by)
		if !errors.Is(err, store.ErrStale) || attempt == maxRewriteAttempts {
			return done, err
		}
	}
}

func (g *Gateway) rewrite(ctx context.Context, r Rewrite, by store.Author) (*Rewritten, error) {
	if g.Table() == nil {
		return nil, ErrNotReady
	}
	if err := g.sync(ctx); err != nil {
		return nil, g.writeError(ctx, err)
	}
	table := g.Table()
	plan, err := r.Plan(ctx, table)
	if err != nil {
		return nil, err
	}
	next, err := tryOut(table, plan)
	if err != nil {
		return nil, err
	}
	done := &Rewritten{Revision: table.Revision(), Edits: plan.Edits, Table: next}
	if r.DryRun || len(plan.Edits) == 0 {
		return done, nil
	}

	var edits store.Edits
	for _, e := range plan.Edits {
		switch {
		case e.After == nil:
			edits.Delete = append(edits.Delete, e.Before.ID)
		case e.After.ID == 0:
			edits.Create = append(edits.Create, e.After)
		default:
			edits.Update = append(edits.Update, e.After)
		}
	}
	applied, err := g.store.Apply(ctx, edits, table.Revision(), by)
	if err != nil {
		return nil, g.writeError(ctx, err)
	}
	g.apply(ctx, applied.Revision, applied.Routes...)
	done.Revision, done.Table = applied.Revision, g.Table()
	done.Edits = written(plan.Edits, applied)
	return done, nil
}

// tryOut brings the rows of a plan into the form to store and returns the table that
// they would make, or says what is wrong with them. The rows of the plan are replaced,
// not changed.
func tryOut(table *routing.Table, plan *Plan) (*routing.Table, error) {
	var problems []EditProblem
	changed := make([]*store.Route, 0, len(plan.Edits))
	refs := make(map[int64]int, len(plan.Edits)) // by id
	deleted := time.Now()
	for i := range plan.Edits {
		e := &plan.Edits[i]
		if e.After == nil {
			gone := *e.Before
			gone.DeletedAt = &deleted
			changed = append(changed, &gone)
			continue
		}
		e.Restored = e.Before == nil && e.After.ID != 0
		compiled, err := routing.Compile(e.After)
		if err != nil {
			problems = append(problems, EditProblem{Ref: e.Ref, Err: err})
			continue
		}
		e.After = compiled.Normalized()
		if e.After.MatchKey, err = routing.MatchKey(e.After); err != nil {
			return nil, fmt.Errorf("making match key: %w", err)
		}
		e.After.DeletedAt = nil
		shown := *e.After
		// No revision that there was, so that no row is taken for unchanged.
		shown.Revision = table.Revision() + 1
		if shown.ID == 0 {
			shown.ID = firstTemporaryID + int64(i)
		}
		refs[shown.ID] = e.Ref
		changed = append(changed, &shown)
	}
	next := table.Apply(changed, table.Revision())
	for _, row := range changed {
		compiled := next.Compiled(row.ID)
		if compiled == nil || row.DeletedAt != nil {
			continue
		}
		if other := next.Conflict(compiled); other != nil {
			with, isEdit := refs[other.ID]
			// Of two edits, the one that comes later is told.
			if isEdit && with > refs[row.ID] {
				continue
			}
			problems = append(problems, EditProblem{
				Ref: refs[row.ID], Err: &store.ConflictError{ID: other.ID}, With: with, HasWith: isEdit,
			})
		}
	}
	if plan.Invalid || len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b EditProblem) int { return cmp.Compare(a.Ref, b.Ref) })
		return nil, &RefusedError{Problems: problems}
	}
	return next, nil
}

// written returns the edits with the rows as they were stored.
func written(edits []Edit, applied *store.Applied) []Edit {
	rows := make(map[int64]*store.Route, len(applied.Routes))
	for _, row := range applied.Routes {
		rows[row.ID] = row
	}
	edits = slices.Clone(edits)
	created := 0
	for i := range edits {
		after := edits[i].After
		switch {
		case after == nil:
		case after.ID == 0:
			edits[i].After = rows[applied.Created[created]]
			created++
		default:
			edits[i].After = rows[after.ID]
		}
	}
	return edits
}

// SameContent reports whether two rows say the same: all but ids, revisions, times and
// what is derived.
func SameContent(a, b *store.Route) bool {
	return a.Name == b.Name && a.Host == b.Host && a.Path == b.Path && a.Method == b.Method &&
		a.TargetURL == b.TargetURL && a.Enabled == b.Enabled && a.RateLimit == b.RateLimit &&
		a.Timeout == b.Timeout && a.Priority == b.Priority && a.DecodeError == b.DecodeError &&
		sameSpec(&a.Spec, &b.Spec)
}

// Past returns what each of the routes that were changed since a revision was at it,
// nil if it was not there. Errors: store.ErrNoRevision, store.ErrHistoryGone,
// ErrStoreDown, and store.ErrStale if table is not at the store's present revision.
func (g *Gateway) Past(ctx context.Context, table *routing.Table, revision int64) (map[int64]*store.Route, error) {
	past, err := g.store.Past(ctx, revision)
	switch {
	case errors.Is(err, store.ErrNoRevision), errors.Is(err, store.ErrHistoryGone):
		return nil, err
	case err != nil:
		return nil, g.writeError(ctx, err)
	case past.Now != table.Revision():
		return nil, store.ErrStale
	}
	return past.Routes, nil
}

// RoutesAt returns all routes as they were at a revision, in any order. Errors as Past.
func (g *Gateway) RoutesAt(ctx context.Context, revision int64) ([]*store.Route, error) {
	var rows []*store.Route
	_, err := g.Rewrite(ctx, Rewrite{DryRun: true, Plan: func(ctx context.Context, table *routing.Table) (*Plan, error) {
		past, err := g.Past(ctx, table, revision)
		if err != nil {
			return nil, err
		}
		rows = nil
		for row := range table.All() {
			if _, changed := past[row.ID]; !changed {
				rows = append(rows, row)
			}
		}
		for _, row := range past {
			if row != nil {
				rows = append(rows, row)
			}
		}
		return new(Plan), nil
	}}, store.Author{})
	return rows, err
}
