package api

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/store"
)

// What a revision can do to a route, a consumer, a key or a token.
const (
	actionCreated  = "created"
	actionUpdated  = "updated"
	actionDeleted  = "deleted"
	actionRestored = "restored"
)

type (
	// FieldChange is what a revision did to one field.
	FieldChange struct {
		Field string `json:"field" doc:"Which field, as a path." example:"limits.window"`
		From  any    `json:"from,omitempty" doc:"What it was. Absent if it was not there. A secret is ***."`
		To    any    `json:"to,omitempty" doc:"What it is. Absent if it is not there any more. A secret is ***."`
	}
	// RouteChange is what a revision did to a route.
	RouteChange struct {
		ID       int64         `json:"id,omitempty" doc:"The route's number. Absent for a route that a dry run would create."`
		Action   string        `json:"action" enum:"created,updated,deleted,restored" doc:"What was done to it. A restored route was deleted before."`
		Name     string        `json:"name,omitempty" doc:"Its name."`
		Host     string        `json:"host,omitempty" doc:"Its host."`
		Path     string        `json:"path" doc:"Its path pattern."`
		Method   string        `json:"method" doc:"Its methods."`
		Fields   []FieldChange `json:"fields" doc:"What is otherwise, field by field."`
		Warnings []string      `json:"warnings,omitempty" doc:"Why it, or another because of it, can never match. Absent if more than 1,000 routes were changed, and in a dry run."`
	}
)

// changeOf tells what was done to a route. One of the rows may be nil.
func changeOf(before, after *store.Route, restored bool) (RouteChange, error) {
	shown := after
	action := actionUpdated
	switch {
	case after == nil:
		shown, action = before, actionDeleted
	case before == nil && restored:
		action = actionRestored
	case before == nil:
		action = actionCreated
	}
	c := RouteChange{ID: shown.ID, Action: action, Name: shown.Name, Host: shown.Host, Path: shown.Path, Method: shown.Method}
	was, wasShown, err := contents(before)
	if err != nil {
		return c, err
	}
	is, isShown, err := contents(after)
	if err != nil {
		return c, err
	}
	d := differ{fields: []FieldChange{}}
	d.objects("", was, is, wasShown, isShown)
	c.Fields = d.fields
	return c, nil
}

// contents returns what a row says, apart from what only the store writes, as it is
// and as it may be shown. Of no row it is empty.
func contents(row *store.Route) (whole, shown map[string]any, err error) {
	if row == nil {
		return nil, nil, nil
	}
	if whole, err = document(row); err != nil {
		return nil, nil, err
	}
	if shown, err = document(row.Redacted()); err != nil {
		return nil, nil, err
	}
	for _, doc := range []map[string]any{whole, shown} {
		for _, name := range []string{"id", "revision", "created_at", "updated_at"} {
			delete(doc, name)
		}
	}
	if row.DecodeError != "" {
		whole["spec"], shown["spec"] = row.DecodeError, row.DecodeError
	}
	return whole, shown, nil
}

// differ compares documents. It looks at what they are, and notes what may be shown.
type differ struct{ fields []FieldChange }

func (d *differ) objects(at string, was, is, wasShown, isShown map[string]any) {
	names := make(map[string]bool)
	for name := range was {
		names[name] = true
	}
	for name := range is {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		field := name
		if at != "" {
			field = at + "." + name
		}
		d.values(field, was[name], is[name], wasShown[name], isShown[name])
	}
}

func (d *differ) values(at string, was, is, wasShown, isShown any) {
	if reflect.DeepEqual(was, is) {
		return
	}
	switch a := was.(type) {
	case map[string]any:
		if b, ok := is.(map[string]any); ok {
			aShown, _ := wasShown.(map[string]any)
			bShown, _ := isShown.(map[string]any)
			d.objects(at, a, b, aShown, bShown)
			return
		}
	case []any:
		b, ok := is.([]any)
		aShown, _ := wasShown.([]any)
		bShown, _ := isShown.([]any)
		if ok && len(a) == len(b) && len(aShown) == len(a) && len(bShown) == len(b) {
			for i := range a {
				d.values(fmt.Sprintf("%s[%d]", at, i), a[i], b[i], aShown[i], bShown[i])
			}
			return
		}
	}
	d.fields = append(d.fields, FieldChange{Field: at, From: wasShown, To: isShown})
}

// Changeset is what a change of many routes answers. It is exported, as the others
// here are, since huma passes over embedded types that are not.
type Changeset struct {
	Changed  bool          `json:"changed" doc:"Whether anything was changed, or would be."`
	DryRun   bool          `json:"dry_run" doc:"Whether this only tells what would be done."`
	Revision int64         `json:"revision" doc:"The number of the change. If nothing was changed, that of the present state."`
	Created  int           `json:"created" doc:"How many routes are new."`
	Updated  int           `json:"updated" doc:"How many routes are otherwise."`
	Deleted  int           `json:"deleted" doc:"How many routes are gone."`
	Restored int           `json:"restored" doc:"How many deleted routes are back."`
	Changes  []RouteChange `json:"changes" doc:"All of them, with what is otherwise."`
}

// maxWarned bounds for how many routes of one change warnings are looked for.
const maxWarned = 1000

func newChangeset(done *gateway.Rewritten, dryRun bool) (*Changeset, error) {
	set := &Changeset{
		Changed: len(done.Edits) > 0, DryRun: dryRun, Revision: done.Revision,
		Changes: make([]RouteChange, 0, len(done.Edits)),
	}
	for i := range done.Edits {
		e := &done.Edits[i]
		c, err := changeOf(e.Before, e.After, e.Restored)
		if err != nil {
			return nil, err
		}
		switch c.Action {
		case actionCreated:
			set.Created++
		case actionUpdated:
			set.Updated++
		case actionDeleted:
			set.Deleted++
		case actionRestored:
			set.Restored++
		}
		if e.After != nil && !dryRun && len(done.Edits) <= maxWarned {
			if compiled := done.Table.Compiled(e.After.ID); compiled != nil {
				c.Warnings = done.Table.Warnings(compiled)
			}
		}
		set.Changes = append(set.Changes, c)
	}
	return set, nil
}
