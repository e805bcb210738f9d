package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// What an operation of a batch does, as far as it is not just "update".
const (
	opCreate = "create"
	opPatch  = "patch"
	opDelete = "delete"
)

type (
	batchRequest struct {
		Operations []batchOperation `json:"operations" maxItems:"10000" doc:"What to do, in order. Each sees what those before it have done."`
	}
	batchOperation struct {
		Op      string         `json:"op" enum:"create,update,patch,delete" doc:"What to do: make a route, replace one, apply a merge patch to one, delete one." example:"create"`
		ID      int64          `json:"id,omitempty" minimum:"1" maximum:"2147483647" doc:"The route's number. For all but create."`
		Route   map[string]any `json:"route,omitempty" doc:"A Route to create, or to put in the place of one; a RoutePatch for patch."`
		IfMatch int64          `json:"if_match,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Refuse the batch with 412 unless this is the route's revision."`
	}
	batchInput struct {
		DryRun  bool `query:"dry_run" doc:"Only check, and tell what would be done."`
		Content requestBody
	}
	batchItem struct {
		ID       int64 `json:"id,omitempty" doc:"The route's number. Absent for a route that a dry run would create."`
		Revision int64 `json:"revision,omitempty" doc:"The number of the last change to the route. Absent if it is deleted, and for what a dry run would change."`
	}
	batchAnswer struct {
		Changeset
		Items []batchItem `json:"items" doc:"The routes of the operations, in their order."`
	}
	batchOutput struct{ Body batchAnswer }
)

func (s *server) registerBatch(api huma.API) {
	registerWrite(s, api, huma.Operation{
		OperationID: "batch-routes", Method: http.MethodPost, Path: "/api/routes/batch", Tags: []string{"routes"},
		Summary: "Change many routes at once",
		Description: "Does up to 10,000 operations as one revision, or none of them: if something is wrong, the errors name the operations by their index. " +
			"The routes are served before the answer. Only the end counts for conflicts, so routes may change places. 404, 409 and 412 mean that all errors are of that kind; else it is 422.",
		Errors: []int{400, 404, 408, 409, 412, 413, 415, 422, 503},
	}, s.batch)
}

// operation is one of a batch, and what came of it in the last attempt.
type operation struct {
	op      string
	id      int64
	ifMatch int64
	doc     map[string]any
	details []*huma.ErrorDetail // of a patch itself

	done bool         // row and err are for old
	old  *store.Route // what it was done to
	row  *store.Route
	err  error
}

func (s *server) batch(ctx context.Context, in *batchInput) (*batchOutput, error) {
	if err := checkMediaType(in.Content.r.Header, []string{mediaJSON}); err != nil {
		return nil, err
	}
	ctx, text, done, err := s.bulkBody(ctx, &in.Content)
	if err != nil {
		return nil, err
	}
	defer done()
	doc, err := objectIn(text)
	if err != nil {
		return nil, err
	}
	operations, err := s.operations(doc)
	if err != nil {
		return nil, err
	}

	var (
		found bulkProblems
		run   batchRun
	)
	rewritten, err := s.cfg.Gateway.Rewrite(ctx, gateway.Rewrite{DryRun: in.DryRun, Plan: func(ctx context.Context, table *routing.Table) (*gateway.Plan, error) {
		run = batchRun{server: s, table: table, now: make(map[int64]*state), found: bulkProblems{}}
		for i := range operations {
			if err := run.do(ctx, i, &operations[i]); err != nil {
				return nil, err
			}
		}
		found = run.found
		return run.plan(), nil
	}}, author(ctx))
	if err != nil {
		return nil, s.refused(err, &found, atOperation)
	}
	set, err := newChangeset(rewritten, in.DryRun)
	if err != nil {
		return nil, err
	}
	answer := batchAnswer{Changeset: *set, Items: make([]batchItem, len(operations))}
	for i := range operations {
		answer.Items[i].ID = operations[i].id
		if row, _, ok := rewritten.Table.Get(operations[i].id); ok && !in.DryRun {
			answer.Items[i].Revision = row.Revision
		}
	}
	for _, e := range rewritten.Edits {
		if e.Before == nil && !in.DryRun {
			answer.Items[e.Ref] = batchItem{ID: e.After.ID, Revision: e.After.Revision}
		}
	}
	return &batchOutput{Body: answer}, nil
}

func atOperation(i int) string { return fmt.Sprintf("body.operations[%d]", i) }

// operations reads a checked request.
func (s *server) operations(doc map[string]any) ([]operation, error) {
	var found bulkProblems
	if details := s.batches.check(doc); len(details) > 0 {
		found.note(http.StatusUnprocessableEntity, details...)
		return nil, found.answer()
	}
	items, _ := doc["operations"].([]any)
	operations := make([]operation, len(items))
	for i, item := range items {
		o, fields := &operations[i], item.(map[string]any)
		o.op, _ = fields["op"].(string)
		o.id, o.ifMatch = integer(fields["id"]), integer(fields["if_match"])
		o.doc, _ = fields["route"].(map[string]any)
		wrong := func(field, message string) {
			found.note(http.StatusUnprocessableEntity, &huma.ErrorDetail{Location: atOperation(i) + "." + field, Message: message})
		}
		switch {
		case o.op == opCreate && o.id != 0:
			wrong("id", "must not be there: a new route gets its number from the store")
		case o.op != opCreate && o.id == 0:
			wrong("id", "is required")
		}
		if o.op == opCreate && o.ifMatch != 0 {
			wrong("if_match", "must not be there: a new route has no revision")
		}
		switch {
		case o.op == opDelete && o.doc != nil:
			wrong("route", "must not be there")
		case o.op != opDelete && o.doc == nil:
			wrong("route", "is required")
		}
		if o.op == opPatch && o.doc != nil {
			o.details = s.patch.check(o.doc)
		}
	}
	if found.status != 0 {
		return nil, found.answer()
	}
	return operations, nil
}

func integer(value any) int64 {
	number, _ := value.(json.Number)
	n, _ := number.Int64()
	return n
}

// batchRun does the operations of a batch in memory.
type batchRun struct {
	server *server
	table  *routing.Table
	now    map[int64]*state // what was done to routes so far
	made   []gateway.Edit
	order  []int64 // of the ids in now
	found  bulkProblems
}

// state is what a batch has made of a route so far.
type state struct {
	ref           int          // the last operation on it
	before, after *store.Route // after is nil if it is deleted
}

// do does one operation. Problems with it are noted.
func (b *batchRun) do(ctx context.Context, i int, o *operation) error {
	at := atOperation(i)
	if o.op == opCreate {
		row, err := b.row(ctx, o, nil)
		if err != nil {
			return b.found.add(at+".route", err)
		}
		b.made = append(b.made, gateway.Edit{Ref: i, After: row})
		return nil
	}
	now, touched := b.now[o.id]
	if !touched {
		before, _, _ := b.table.Get(o.id)
		now = &state{before: before, after: before}
	}
	old := now.after
	switch {
	case old == nil:
		return b.found.add(at, store.ErrNotFound)
	case o.ifMatch != 0 && o.ifMatch != now.before.Revision:
		return b.found.add(at, errPrecondition)
	}
	if !touched {
		b.now[o.id] = now
		b.order = append(b.order, o.id)
	}
	now.ref = i
	if o.op == opDelete {
		now.after = nil
		return nil
	}
	row, err := b.row(ctx, o, old)
	if err != nil {
		return b.found.add(at+".route", err)
	}
	now.after = row
	return nil
}

// row returns the row that an operation makes of another, which may have been found
// out before.
func (b *batchRun) row(ctx context.Context, o *operation, old *store.Route) (*store.Route, error) {
	if o.done && o.old == old {
		return o.row, o.err
	}
	o.done, o.old = true, old
	if o.op == opPatch {
		o.row, o.err = b.server.patched(ctx, old, o.doc, o.details)
	} else {
		o.row, o.err = b.server.decode(ctx, o.doc, old, nil)
	}
	if o.err == nil && old != nil {
		o.row.ID, o.row.Revision, o.row.CreatedAt = old.ID, old.Revision, old.CreatedAt
	}
	return o.row, o.err
}

// plan returns what the operations change in the end.
func (b *batchRun) plan() *gateway.Plan {
	plan := &gateway.Plan{Edits: b.made, Invalid: b.found.status != 0}
	for _, id := range b.order {
		now := b.now[id]
		if now.after != nil && gateway.SameContent(now.before, now.after) {
			continue
		}
		plan.Edits = append(plan.Edits, gateway.Edit{Ref: now.ref, Before: now.before, After: now.after})
	}
	return plan
}
