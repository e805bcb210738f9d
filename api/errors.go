package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

// detailInvalid is the detail of a 422; what is wrong with what stands in errors.
const detailInvalid = "the request is understood but not valid, see \"errors\""

// maxDetails bounds the errors in one answer; more help nobody.
const maxDetails = 100

// retryAfter is when to try again, in seconds, once the store has failed.
const retryAfter = "5"

// errPrecondition says that the route is not at a version that If-Match names.
var errPrecondition = errors.New("the route has changed since")

// conflictProblem is the problem of a route that another stands in the way of.
type conflictProblem struct {
	huma.ErrorModel
	Conflict *conflictingRoute `json:"conflict,omitempty" doc:"The other route, if it is known. Absent if the conflict is with another writer of the same route."`
}

// conflictingRoute is what a client needs to know of the other route.
type conflictingRoute struct {
	ID     int64  `json:"id" doc:"The other route's number." example:"7"`
	Name   string `json:"name,omitempty" doc:"Its name."`
	Host   string `json:"host,omitempty" doc:"Its host."`
	Path   string `json:"path,omitempty" doc:"Its path pattern." example:"/orders/{id}"`
	Method string `json:"method,omitempty" doc:"Its methods." example:"GET,POST"`
}

// problem turns whatever an operation returns as an error into an answer. It is the
// one place that decides on a status; what it does not know is a 500 without a word
// about the cause, which goes to the log.
func (s *server) problem(operation string, err error) error {
	var (
		ready    huma.StatusError
		fields   store.FieldErrors
		conflict *store.ConflictError
	)
	switch {
	case errors.As(err, &ready):
		return err
	case errors.As(err, &fields):
		return invalid(bodyDetails(fields))
	case errors.As(err, &conflict):
		return s.conflict(conflict.ID)
	case errors.Is(err, store.ErrConflict):
		return s.conflict(0)
	case errors.Is(err, store.ErrNameTaken):
		return newConflict("another one has this name")
	case errors.Is(err, store.ErrInvalid):
		return huma.Error422UnprocessableEntity("the database refuses a value in the request, e.g. a number in a plugin beyond its range, or predicates that are too long together")
	case errors.Is(err, store.ErrNotFound):
		return huma.Error404NotFound("there is no such route")
	case errors.Is(err, store.ErrNoRevision):
		return huma.Error404NotFound("the history has no such revision")
	case errors.Is(err, store.ErrHistoryGone):
		return huma.Error404NotFound("the history does not reach back to this revision: what was changed since is not all there any more")
	case errors.Is(err, errPrecondition):
		return huma.Error412PreconditionFailed("it is not at a version that If-Match names, read it again and retry")
	case errors.Is(err, store.ErrStale):
		return newConflict("it was changed by another writer at the same time, read it again and retry")
	case errors.Is(err, gateway.ErrNotReady):
		return unavailable("the routes are not loaded yet")
	case errors.Is(err, gateway.ErrStoreDown):
		s.cfg.Log().Warn("admin API: the route store failed", zap.String("operation", operation), zap.Error(err))
		return unavailable("the route store is not available; the routes are served from memory but can't be changed now")
	case errors.Is(err, ratelimit.ErrUnavailable):
		s.cfg.Log().Warn("admin API: the rate limits' backend failed", zap.String("operation", operation), zap.Error(err))
		return unavailable("the rate limits' counters are not available now")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("the request was given up before it was done")
	}
	s.cfg.Log().Error("admin API failed", zap.String("operation", operation), zap.Error(err))
	return huma.Error500InternalServerError("")
}

// conflict names the route that stands in the way, as far as this node knows it.
func (s *server) conflict(id int64) error {
	if id == 0 {
		return newConflict("another route matches exactly the same requests")
	}
	p := newConflict(fmt.Sprintf("route %d matches exactly the same requests", id))
	p.Conflict = &conflictingRoute{ID: id}
	if other, _, err := s.cfg.Gateway.Get(id); err == nil {
		p.Conflict.Name, p.Conflict.Host, p.Conflict.Path, p.Conflict.Method = other.Name, other.Host, other.Path, other.Method
		p.Detail = fmt.Sprintf("route %d (%s %s%s) matches exactly the same requests; change that one, or give this one another priority or more predicates",
			id, other.Method, other.Host, other.Path)
	}
	return p
}

func newConflict(detail string) *conflictProblem {
	return &conflictProblem{ErrorModel: huma.ErrorModel{
		Title:  http.StatusText(http.StatusConflict),
		Status: http.StatusConflict,
		Detail: detail,
	}}
}

func unavailable(detail string) error {
	return huma.ErrorWithHeaders(huma.Error503ServiceUnavailable(detail), http.Header{"Retry-After": {retryAfter}})
}

// invalid is a 422 with what is wrong where.
func invalid(details []*huma.ErrorDetail) error {
	p := &huma.ErrorModel{
		Title:  http.StatusText(http.StatusUnprocessableEntity),
		Status: http.StatusUnprocessableEntity,
		Detail: detailInvalid,
		Errors: details,
	}
	if len(details) > maxDetails {
		p.Errors = details[:maxDetails]
	}
	return p
}

// bodyDetails places the errors of a route's fields in the request body.
func bodyDetails(fields store.FieldErrors) []*huma.ErrorDetail {
	details := make([]*huma.ErrorDetail, len(fields))
	for i, f := range fields {
		details[i] = &huma.ErrorDetail{
			Location: shorten("body."+f.Field, maxLocation),
			Message:  shorten(f.Message, maxMessage),
		}
	}
	return details
}

// writeProblem answers outside of an operation.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// An error means that the client has left.
	_ = json.NewEncoder(w).Encode(&huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail})
}
