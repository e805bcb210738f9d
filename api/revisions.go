package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// shownPerRevision bounds what the list of revisions tells of one.
const shownPerRevision = 20

type (
	// RevisionHead is who made a revision, when and from where.
	RevisionHead struct {
		Revision         int64     `json:"revision" doc:"The number of the change."`
		Time             time.Time `json:"time" doc:"When it was made, in UTC."`
		Actor            string    `json:"actor" doc:"Who made it: the name of a token, admin for the admin endpoint, seed, or sql and the role for plain SQL." example:"admin"`
		Source           string    `json:"source,omitempty" doc:"The address that it was made from, if it is known." example:"192.0.2.7"`
		TotalRoutes      int       `json:"total_routes" doc:"How many routes it changed; with the filter route, only that one counts."`
		TotalCredentials int       `json:"total_credentials" doc:"How many consumers, keys and tokens it changed."`
	}
	revisionSummary struct {
		RevisionHead
		Routes      []RouteChange      `json:"routes" doc:"The first 20 of the routes that it changed, by id."`
		Credentials []credentialChange `json:"credentials" doc:"The first 20 of the consumers, keys and tokens that it changed."`
	}
	credentialChange struct {
		Kind   store.CredentialKind `json:"kind" enum:"consumer,api_key,admin_token" doc:"What it is."`
		ID     string               `json:"id" doc:"Its id, which is the public part of a key or token."`
		Action string               `json:"action" enum:"created,updated,deleted" doc:"What was done to it."`
		Name   string               `json:"name,omitempty" doc:"Its name."`
		Fields []FieldChange        `json:"fields" doc:"What is otherwise, field by field. Secrets are not in the history."`
	}
	revisionPage struct {
		Items []revisionSummary `json:"items" doc:"The revisions, newest first."`
		Next  string            `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
	revisionsInput struct {
		Limit  int       `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"The most revisions in one answer."`
		Cursor string    `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
		Route  int64     `query:"route" minimum:"1" maximum:"2147483647" doc:"Only revisions that changed the route with this number, and only what they did to it."`
		Actor  string    `query:"actor" doc:"Only revisions by exactly this actor." example:"admin"`
		From   time.Time `query:"from" doc:"Only revisions made at this time or later, as in RFC 3339."`
		To     time.Time `query:"to" doc:"Only revisions made before this time."`
	}
	revisionsOutput struct{ Body revisionPage }

	revisionRoute struct {
		RouteChange
		Before *route `json:"before,omitempty" doc:"The route before the change. Absent for a new or restored one."`
		After  *route `json:"after,omitempty" doc:"The route after the change. Absent for a deleted one."`
	}
	wholeRevision struct {
		RevisionHead
		Routes      []revisionRoute    `json:"routes" doc:"The routes that it changed, by id, in pages."`
		Credentials []credentialChange `json:"credentials" doc:"The consumers, keys and tokens that it changed, at most 10,000."`
		Next        string             `json:"next,omitempty" doc:"The cursor of the next page of routes. Absent at the end."`
	}
	revisionInput struct {
		N      int64  `path:"n" minimum:"1" doc:"The revision's number." example:"42"`
		Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"The most routes in one answer."`
		Cursor string `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
	}
	revisionOutput struct{ Body wholeRevision }

	rollbackInput struct {
		N          int64 `path:"n" minimum:"1" doc:"The revision to go back to." example:"42"`
		DryRun     bool  `query:"dry_run" doc:"Only tell what would be done."`
		IfRevision int64 `query:"if_revision" minimum:"1" doc:"Refuse with 412 unless this is the present revision."`
	}
	changesetOutput struct{ Body *Changeset }
	restoreInput    struct {
		ID int64 `path:"id" minimum:"1" maximum:"2147483647" doc:"The route's number." example:"1"`
	}
)

func (s *server) registerRevisions(api huma.API) {
	tags := []string{"history"}
	register(s, api, huma.Operation{
		OperationID: "list-revisions", Method: http.MethodGet, Path: "/api/revisions", Tags: tags,
		Summary: "List revisions",
		Description: "Lists the changes of routes, consumers, keys and tokens that the history has, newest first, in pages: who, when, from where, what. Filters add up. " +
			"It asks the store. Secrets are *** in it, or not there at all.",
		Errors: []int{400, 422, 503},
	}, s.revisions)
	register(s, api, huma.Operation{
		OperationID: "get-revision", Method: http.MethodGet, Path: "/api/revisions/{n}", Tags: tags,
		Summary:     "Read a revision",
		Description: "Tells all that a revision did to routes, each before and after it, and to consumers, keys and tokens.",
		Errors:      []int{400, 404, 422, 503},
	}, s.revision)
	registerWrite(s, api, huma.Operation{
		OperationID: "rollback", Method: http.MethodPost, Path: "/api/revisions/{n}/rollback", Tags: tags,
		Summary: "Go back to a revision",
		Description: "Makes a new revision in which the routes are as they were at this one: those that are new since are deleted, deleted ones restored with their ids, changed ones set back, secrets included. " +
			"It changes all or nothing; a route that would not be accepted any more is a 422 that names it, as routes.7.target_url. Consumers, keys and tokens stay as they are. If the routes are as they were, nothing is changed.",
		Errors: []int{400, 404, 409, 412, 422, 503},
	}, s.rollback)
	registerWrite(s, api, huma.Operation{
		OperationID: "restore-route", Method: http.MethodPost, Path: "/api/routes/{id}/restore", Tags: []string{"routes"},
		Summary:     "Restore a deleted route",
		Description: "Brings a deleted route back as it was, with its number, and serves it before the answer. 409 if it is not deleted, or if another route has its place.",
		Errors:      []int{400, 404, 409, 422, 503},
	}, s.restore)
}

func (s *server) revisions(ctx context.Context, in *revisionsInput) (*revisionsOutput, error) {
	before, ok := parseRevisionCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	filter := store.RevisionFilter{RouteID: in.Route, Actor: in.Actor, From: in.From, To: in.To}
	// One more than asked for tells whether there is a next page.
	list, err := s.cfg.Gateway.Revisions(ctx, filter, before, in.Limit+1, shownPerRevision)
	if err != nil {
		return nil, err
	}
	page := revisionPage{Items: []revisionSummary{}}
	for i, r := range list {
		if i == in.Limit {
			page.Next = revisionCursor(list[i-1].Number)
			break
		}
		summary := revisionSummary{RevisionHead: headOf(r), Routes: []RouteChange{}, Credentials: credentialChanges(r)}
		for _, c := range r.Routes {
			change, err := changeOf(c.Before, c.After, c.Restored)
			if err != nil {
				return nil, err
			}
			summary.Routes = append(summary.Routes, change)
		}
		page.Items = append(page.Items, summary)
	}
	return &revisionsOutput{Body: page}, nil
}

func (s *server) revision(ctx context.Context, in *revisionInput) (*revisionOutput, error) {
	after, ok := parseCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	r, err := s.cfg.Gateway.Revision(ctx, in.N, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	whole := wholeRevision{RevisionHead: headOf(r), Routes: []revisionRoute{}, Credentials: credentialChanges(r)}
	for i, c := range r.Routes {
		if i == in.Limit {
			whole.Next = cursor(r.Routes[i-1].RouteID)
			break
		}
		change, err := changeOf(c.Before, c.After, c.Restored)
		if err != nil {
			return nil, err
		}
		told := revisionRoute{RouteChange: change}
		if c.Before != nil {
			told.Before = newRoute(c.Before, decodeProblem(c.Before), nil)
		}
		if c.After != nil {
			told.After = newRoute(c.After, decodeProblem(c.After), nil)
		}
		whole.Routes = append(whole.Routes, told)
	}
	return &revisionOutput{Body: whole}, nil
}

func decodeProblem(row *store.Route) error {
	if row.DecodeError == "" {
		return nil
	}
	return errors.New(row.DecodeError)
}

func (s *server) rollback(ctx context.Context, in *rollbackInput) (*changesetOutput, error) {
	ctx, done, err := s.bulk(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var found bulkProblems
	rewritten, err := s.cfg.Gateway.Rewrite(ctx, gateway.Rewrite{DryRun: in.DryRun, Plan: func(ctx context.Context, table *routing.Table) (*gateway.Plan, error) {
		if in.IfRevision != 0 && in.IfRevision != table.Revision() {
			return nil, huma.Error412PreconditionFailed(fmt.Sprintf("the present revision is %d", table.Revision()))
		}
		past, err := s.cfg.Gateway.Past(ctx, table, in.N)
		if err != nil {
			return nil, err
		}
		plan := new(gateway.Plan)
		found = bulkProblems{}
		for _, id := range slices.Sorted(maps.Keys(past)) {
			now, _, _ := table.Get(id)
			was := past[id]
			edit := gateway.Edit{Ref: int(id), Before: now, After: was}
			if was == nil && now == nil || was != nil && now != nil && gateway.SameContent(was, now) {
				continue
			}
			if was != nil {
				if err := s.recheck(ctx, was, now); err != nil {
					plan.Invalid = true
					if err := found.add(atRoute(id), err); err != nil {
						return nil, err
					}
					continue
				}
			}
			plan.Edits = append(plan.Edits, edit)
		}
		return plan, nil
	}}, author(ctx))
	if err != nil {
		return nil, s.refused(err, &found, func(ref int) string { return atRoute(int64(ref)) })
	}
	set, err := newChangeset(rewritten, in.DryRun)
	return &changesetOutput{Body: set}, err
}

func atRoute(id int64) string { return "routes." + strconv.FormatInt(id, 10) }

// recheck says what is wrong, by what a write must be today, with a row that was
// accepted once. now is the route's present state, nil for none.
func (s *server) recheck(ctx context.Context, row, now *store.Route) error {
	if details := resolveSecrets(row, now); len(details) > 0 {
		return invalid(details)
	}
	if _, err := routing.Compile(row); err != nil {
		return err
	}
	if s.cfg.Check == nil {
		return nil
	}
	return s.cfg.Check(ctx, row)
}

func (s *server) restore(ctx context.Context, in *restoreInput) (*routeOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	row, err := s.cfg.Gateway.DeletedRoute(ctx, in.ID)
	if errors.Is(err, store.ErrConflict) {
		return nil, newConflict("the route is not deleted")
	}
	if err != nil {
		return nil, err
	}
	if err := s.recheck(ctx, row, nil); err != nil {
		return nil, err
	}
	done, err := s.cfg.Gateway.Rewrite(ctx, gateway.Rewrite{Plan: func(_ context.Context, table *routing.Table) (*gateway.Plan, error) {
		if _, _, live := table.Get(in.ID); live {
			return nil, newConflict("the route is not deleted")
		}
		return &gateway.Plan{Edits: []gateway.Edit{{After: row}}}, nil
	}}, author(ctx))
	var refused *gateway.RefusedError
	if errors.As(err, &refused) && len(refused.Problems) > 0 {
		return nil, refused.Problems[0].Err
	}
	if err != nil {
		return nil, err
	}
	row = done.Edits[0].After
	var warnings []string
	if compiled := done.Table.Compiled(row.ID); compiled != nil {
		warnings = done.Table.Warnings(compiled)
	}
	return &routeOutput{Status: http.StatusOK, ETag: etag(row.ID, row.Revision), Body: newRoute(row, nil, warnings)}, nil
}

func headOf(r *store.Revision) RevisionHead {
	return RevisionHead{
		Revision: r.Number, Time: r.CreatedAt, Actor: r.Actor, Source: r.Source,
		TotalRoutes: r.TotalRoutes, TotalCredentials: r.TotalCredentials,
	}
}

// credentialFields are the columns of consumers, keys and tokens that a change tells.
// What is not here is either derived or nobody's business.
var credentialFields = []string{"name", "enabled", "consumer_id", "role", "expires_at", "labels", "groups", "rate_limit", "window"}

func credentialChanges(r *store.Revision) []credentialChange {
	list := []credentialChange{}
	for _, c := range r.Credentials {
		was, is := credentialContents(c.Before), credentialContents(c.After)
		told := credentialChange{Kind: c.Kind, ID: c.ID, Action: actionUpdated}
		shown := is
		switch c.Op {
		case "create":
			told.Action = actionCreated
		case "delete":
			told.Action, shown = actionDeleted, was
		}
		told.Name, _ = shown["name"].(string)
		d := differ{fields: []FieldChange{}}
		d.objects("", was, is, was, is)
		told.Fields = d.fields
		list = append(list, told)
	}
	return list
}

func credentialContents(text []byte) map[string]any {
	var row map[string]any
	if text == nil || json.Unmarshal(text, &row) != nil {
		return nil
	}
	spec, _ := row["spec"].(map[string]any)
	contents := make(map[string]any)
	for _, name := range credentialFields {
		for _, from := range []map[string]any{row, spec} {
			if value, ok := from[name]; ok && value != nil && value != "" {
				contents[name] = value
			}
		}
	}
	if text, ok := contents["expires_at"].(string); ok {
		// SQLite's form of a time becomes JSON's.
		contents["expires_at"] = strings.Replace(text, " ", "T", 1)
	}
	return contents
}

const revisionCursorPrefix = "before:"

// revisionCursor stands for all revisions before one.
func revisionCursor(number int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(revisionCursorPrefix + strconv.FormatInt(number, 10)))
}

// parseRevisionCursor is the reverse of revisionCursor. No cursor is the beginning.
func parseRevisionCursor(text string) (before int64, ok bool) {
	if text == "" {
		return 0, true
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	digits, ok := strings.CutPrefix(string(plain), revisionCursorPrefix)
	if err != nil || !ok {
		return 0, false
	}
	before, err = strconv.ParseInt(digits, 10, 64)
	return before, err == nil && before > 0
}

func badCursor() error {
	return invalid([]*huma.ErrorDetail{{Location: "query.cursor", Message: "is not a cursor of this list"}})
}
