package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/store"
)

// maxPatchAttempts bounds how often a patch is applied anew because others change
// the same row at the same time. Of several that meet, one succeeds each time.
const maxPatchAttempts = 16

// route is a route as clients read and write it: the row without its secrets, and
// what the gateway has to say about it.
type route struct {
	store.Route
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`
}

func newRoute(row *store.Route, problem error, warnings []string) *route {
	r := &route{Route: *row.Redacted(), Warnings: warnings}
	if problem != nil {
		r.Error = problem.Error()
	}
	return r
}

type (
	getInput struct {
		ID          int64  `path:"id" minimum:"1" maximum:"2147483647" doc:"The route's number." example:"1"`
		IfNoneMatch string `header:"If-None-Match" doc:"Entity tags that the client has. If one is the route's, the answer is 304."`
	}
	createInput struct {
		Content requestBody
	}
	changeInput struct {
		ID      int64   `path:"id" minimum:"1" maximum:"2147483647" doc:"The route's number." example:"1"`
		IfMatch ifMatch `header:"If-Match" doc:"Entity tags of the versions that may be changed, or * for any. If the route is at another: 412."`
		Content requestBody
	}
	deleteInput struct {
		ID      int64   `path:"id" minimum:"1" maximum:"2147483647" doc:"The route's number." example:"1"`
		IfMatch ifMatch `header:"If-Match" doc:"Entity tags of the versions that may be deleted, or * for any. If the route is at another: 412."`
	}
	routeOutput struct {
		Status int
		ETag   string `header:"ETag" doc:"The route's version, for If-Match and If-None-Match."`
		Body   *route
	}
	createOutput struct {
		Location string `header:"Location" doc:"The new route's path."`
		ETag     string `header:"ETag" doc:"The route's version, for If-Match and If-None-Match."`
		Body     *route
	}
)

func (s *server) registerRoutes(api huma.API) {
	const many, one = "/api/routes", "/api/routes/{id}"
	tags := []string{"routes"}
	register(s, api, huma.Operation{
		OperationID: "list-routes", Method: http.MethodGet, Path: many, Tags: tags,
		Summary:     "List routes",
		Description: "Lists the routes that this node knows, by id, in pages. Filters add up: a route must match all of them. It works from memory, also while the store is down.",
		Errors:      []int{400, 503},
	}, s.list)
	registerWrite(s, api, huma.Operation{
		OperationID: "create-route", Method: http.MethodPost, Path: many, Tags: tags,
		Summary:       "Create a route",
		Description:   "Stores a new route and serves it before the answer.",
		DefaultStatus: http.StatusCreated,
		Errors:        []int{400, 408, 413, 415, 422, 503},
	}, s.create)
	register(s, api, huma.Operation{
		OperationID: "get-route", Method: http.MethodGet, Path: one, Tags: tags,
		Summary: "Read a route",
		Errors:  []int{400, 404, 503},
	}, s.get)
	registerWrite(s, api, huma.Operation{
		OperationID: "replace-route", Method: http.MethodPut, Path: one, Tags: tags,
		Summary:     "Replace a route",
		Description: "Replaces all of a route; fields that are left out get their defaults. Without If-Match it fails with 409 if another writer changes the route meanwhile.",
		Errors:      []int{400, 404, 408, 412, 413, 415, 503},
	}, s.replace)
	registerWrite(s, api, huma.Operation{
		OperationID: "patch-route", Method: http.MethodPatch, Path: one, Tags: tags,
		Summary:     "Change some fields of a route",
		Description: "Applies a JSON merge patch (RFC 7396): fields that are there replace the route's, null resets a field to its default. Without If-Match, patches of different fields at the same time all take effect.",
		Errors:      []int{400, 404, 408, 412, 413, 415, 503},
	}, s.patchRoute)
	registerWrite(s, api, huma.Operation{
		OperationID: "delete-route", Method: http.MethodDelete, Path: one, Tags: tags,
		Summary:     "Delete a route",
		Description: "Stops serving a route before the answer. Its number is not used again, and the request log keeps it.",
		Errors:      []int{400, 404, 412, 503},
	}, s.delete)
}

func (s *server) get(_ context.Context, in *getInput) (*routeOutput, error) {
	row, problem, err := s.cfg.Gateway.Get(in.ID)
	if err != nil {
		return nil, err
	}
	out := &routeOutput{Status: http.StatusOK, ETag: etag(row.ID, row.Revision)}
	if notModified(in.IfNoneMatch, out.ETag) {
		out.Status = http.StatusNotModified
		return out, nil
	}
	out.Body = newRoute(row, problem, nil)
	return out, nil
}

func (s *server) create(ctx context.Context, in *createInput) (*createOutput, error) {
	doc, err := in.Content.object(mediaJSON)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	row, err := s.decode(ctx, doc, nil, nil)
	if err != nil {
		return nil, err
	}
	row, warnings, err := s.cfg.Gateway.Create(ctx, row, author(ctx))
	if err != nil {
		return nil, err
	}
	return &createOutput{
		Location: fmt.Sprintf("/api/routes/%d", row.ID),
		ETag:     etag(row.ID, row.Revision),
		Body:     newRoute(row, nil, warnings),
	}, nil
}

func (s *server) replace(ctx context.Context, in *changeInput) (*routeOutput, error) {
	// Before the body, so that whoever writes while it arrives is noticed.
	old, err := s.current(ctx, in.ID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	doc, err := in.Content.object(mediaJSON)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	row, err := s.decode(ctx, doc, old, nil)
	if err != nil {
		return nil, err
	}
	return s.update(ctx, row, old, in.IfMatch)
}

func (s *server) patchRoute(ctx context.Context, in *changeInput) (*routeOutput, error) {
	old, err := s.current(ctx, in.ID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	patch, err := in.Content.object(mediaMerge, mediaJSON)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	details := s.patch.check(patch)
	for attempt := 1; ; attempt++ {
		row, err := s.patched(ctx, old, patch, details)
		if err != nil {
			return nil, err
		}
		out, err := s.update(ctx, row, old, in.IfMatch)
		if !errors.Is(err, store.ErrStale) || attempt == maxPatchAttempts {
			return out, err
		}
		if old, err = s.current(ctx, in.ID, in.IfMatch); err != nil {
			return nil, err
		}
	}
}

// patched returns the row that a patch makes of another.
func (s *server) patched(ctx context.Context, old *store.Route, patch map[string]any, details []*huma.ErrorDetail) (*store.Route, error) {
	if old.DecodeError != "" {
		return nil, newConflict("what is stored of this route can't be read, so there is nothing to patch; replace the whole route with PUT: " + old.DecodeError)
	}
	doc, err := document(old)
	if err != nil {
		return nil, err
	}
	mergePatch(doc, patch)
	return s.decode(ctx, doc, old, details)
}

// update writes the row in the place of old, if that is still the route's state.
func (s *server) update(ctx context.Context, row, old *store.Route, match ifMatch) (*routeOutput, error) {
	row.ID = old.ID
	row, warnings, err := s.cfg.Gateway.Update(ctx, row, old.Revision, author(ctx))
	if err != nil {
		return nil, failedMatch(err, match)
	}
	return &routeOutput{Status: http.StatusOK, ETag: etag(row.ID, row.Revision), Body: newRoute(row, nil, warnings)}, nil
}

func (s *server) delete(ctx context.Context, in *deleteInput) (*struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	old, err := s.current(ctx, in.ID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	var revision int64 // whatever it is at
	if in.IfMatch.named() {
		revision = old.Revision
	}
	return nil, failedMatch(s.cfg.Gateway.Delete(ctx, in.ID, revision, author(ctx)), in.IfMatch)
}

// current returns the route that a request is about to change, if it is in a state
// that the request's condition allows. What another node has written a moment ago
// may not have come to this one; if the request speaks of it, the store knows.
func (s *server) current(ctx context.Context, id int64, match ifMatch) (*store.Route, error) {
	row, _, err := s.cfg.Gateway.Get(id)
	if errors.Is(err, store.ErrNotFound) || err == nil && match.newerThan(row) {
		row, err = s.cfg.Gateway.Store().Get(ctx, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("%w: %w", gateway.ErrStoreDown, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if !match.holds(etag(row.ID, row.Revision)) {
		return nil, errPrecondition
	}
	return row, nil
}

// failedMatch tells a client that has named a version that it is not the route's any
// more.
func failedMatch(err error, match ifMatch) error {
	if errors.Is(err, store.ErrStale) && match.named() {
		return errPrecondition
	}
	return err
}
