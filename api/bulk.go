package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/store"
)

// Bounds of a change of many routes.
const (
	maxBulkBody     = 64 << 20 // bytes
	maxBulkBodies   = 4        // at a time
	bulkBodyTimeout = time.Minute
	bulkTimeout     = time.Minute
	maxBulkDetails  = 1000
)

// bulkRoom waits until there is room in memory for the body of a change of many routes.
// The caller must call release at the end of the change.
func (s *server) bulkRoom(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	select {
	case s.bulkBodies <- struct{}{}:
		return func() { <-s.bulkBodies }, nil
	case <-ctx.Done():
		return nil, unavailable("too many other changes of many routes are arriving")
	}
}

// bulk waits until no other change of many routes is under way, since one may take a
// good part of the memory, and bounds the time that this one has. The caller must call
// done.
func (s *server) bulk(ctx context.Context) (bounded context.Context, done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	select {
	case s.bulks <- struct{}{}:
		return ctx, func() { <-s.bulks; cancel() }, nil
	case <-ctx.Done():
		cancel()
		return nil, nil, unavailable("another change of many routes is under way")
	}
}

// bulkBody is bulk for a change whose body is read first, since a client that sends slowly
// must not keep others from their turn.
func (s *server) bulkBody(ctx context.Context, body *requestBody) (bounded context.Context, text []byte, done func(), err error) {
	release, err := s.bulkRoom(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	text, err = body.read(maxBulkBody, bulkBodyTimeout)
	if err != nil {
		release()
		return nil, nil, nil, err
	}
	bounded, end, err := s.bulk(ctx)
	if err != nil {
		release()
		return nil, nil, nil, err
	}
	return bounded, text, func() { end(); release() }, nil
}

// bulkProblems is what is wrong with the parts of a request.
type bulkProblems struct {
	details []*huma.ErrorDetail
	left    int // how many more there are
	status  int // of all of them, 422 if they differ; 0 for none
}

func (p *bulkProblems) note(status int, details ...*huma.ErrorDetail) {
	if p.status == 0 {
		p.status = status
	}
	if p.status != status {
		p.status = http.StatusUnprocessableEntity
	}
	for _, d := range details {
		if len(p.details) == maxBulkDetails {
			p.left++
			continue
		}
		p.details = append(p.details, d)
	}
}

// add notes what is wrong with the part at a location, or returns an error that is
// about no part.
func (p *bulkProblems) add(at string, err error) error {
	var (
		fields   store.FieldErrors
		model    *huma.ErrorModel
		conflict *conflictProblem
	)
	switch {
	case errors.As(err, &fields):
		p.note(http.StatusUnprocessableEntity, placed(at, bodyDetails(fields))...)
	case errors.As(err, &model) && model.Status == http.StatusUnprocessableEntity:
		p.note(model.Status, placed(at, model.Errors)...)
	case errors.As(err, &conflict):
		p.note(http.StatusConflict, &huma.ErrorDetail{Location: at, Message: conflict.Detail})
	case errors.Is(err, store.ErrNotFound):
		p.note(http.StatusNotFound, &huma.ErrorDetail{Location: at + ".id", Message: "there is no such route"})
	case errors.Is(err, errPrecondition):
		p.note(http.StatusPreconditionFailed, &huma.ErrorDetail{Location: at + ".if_match", Message: err.Error()})
	default:
		return err
	}
	return nil
}

// placed moves details of a body to where it stands in a larger one.
func placed(at string, details []*huma.ErrorDetail) []*huma.ErrorDetail {
	moved := make([]*huma.ErrorDetail, len(details))
	for i, d := range details {
		copied := *d
		copied.Location = at + strings.TrimPrefix(d.Location, "body")
		moved[i] = &copied
	}
	return moved
}

// answer returns the problems as one error.
func (p *bulkProblems) answer() error {
	detail := "nothing was changed, see \"errors\" for what is wrong"
	if p.left > 0 {
		detail += fmt.Sprintf("; there are %d more", p.left)
	}
	return &huma.ErrorModel{Title: http.StatusText(p.status), Status: p.status, Detail: detail, Errors: p.details}
}

// refused turns the error of a Rewrite into an answer, with what was found before. at
// names the place of an edit.
func (s *server) refused(err error, found *bulkProblems, at func(ref int) string) error {
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	for _, problem := range refused.Problems {
		var conflict *store.ConflictError
		if !errors.As(problem.Err, &conflict) {
			if err := found.add(at(problem.Ref), problem.Err); err != nil {
				return err
			}
			continue
		}
		message := "matches exactly the same requests as " + at(problem.With)
		if !problem.HasWith {
			if other, ok := errors.AsType[*conflictProblem](s.conflict(conflict.ID)); ok {
				message = other.Detail
			}
		}
		found.note(http.StatusConflict, &huma.ErrorDetail{Location: at(problem.Ref), Message: message})
	}
	return found.answer()
}
