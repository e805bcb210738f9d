package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/store"
)

// consumer is a consumer as clients read and write it.
type consumer struct {
	store.Consumer
	Error string `json:"error,omitempty"`
}

func newConsumer(row *store.Consumer) *consumer {
	return &consumer{Consumer: *row, Error: row.DecodeError}
}

type (
	consumersInput struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most consumers in one answer."`
		Cursor string `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
		Name   string `query:"name" doc:"Only the consumer with exactly this name." example:"shop"`
	}
	consumersOutput struct {
		Body consumerPage
	}
	consumerPage struct {
		Items []*consumer `json:"items" doc:"The consumers, by id."`
		Next  string      `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
	consumerInput struct {
		ID          int64  `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
		IfNoneMatch string `header:"If-None-Match" doc:"Entity tags that the client has. If one is the consumer's, the answer is 304."`
	}
	changeConsumerInput struct {
		ID      int64   `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
		IfMatch ifMatch `header:"If-Match" doc:"Entity tags of the versions that may be changed, or * for any. If the consumer is at another: 412."`
		Content requestBody
	}
	deleteConsumerInput struct {
		ID      int64   `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
		IfMatch ifMatch `header:"If-Match" doc:"Entity tags of the versions that may be deleted, or * for any. If the consumer is at another: 412."`
	}
	consumerOutput struct {
		Status int
		ETag   string `header:"ETag" doc:"The consumer's version, for If-Match and If-None-Match."`
		Body   *consumer
	}
	createConsumerOutput struct {
		Location string `header:"Location" doc:"The new consumer's path."`
		ETag     string `header:"ETag" doc:"The consumer's version, for If-Match and If-None-Match."`
		Body     *consumer
	}
)

const (
	consumersPath = "/api/consumers"
	consumerPath  = "/api/consumers/{id}"
)

func (s *server) registerConsumers(api huma.API) {
	tags := []string{"consumers"}
	register(s, api, huma.Operation{
		OperationID: "list-consumers", Method: http.MethodGet, Path: consumersPath, Tags: tags,
		Summary:     "List consumers",
		Description: "Lists consumers by id, in pages. It asks the store.",
		Errors:      []int{400, 503},
	}, s.listConsumers)
	registerWrite(s, api, huma.Operation{
		OperationID: "create-consumer", Method: http.MethodPost, Path: consumersPath, Tags: tags,
		Summary:       "Create a consumer",
		Description:   "Stores a new consumer. It can do nothing before it has a key.",
		DefaultStatus: http.StatusCreated,
		Errors:        []int{400, 408, 409, 413, 415, 422, 503},
	}, s.createConsumer)
	register(s, api, huma.Operation{
		OperationID: "get-consumer", Method: http.MethodGet, Path: consumerPath, Tags: tags,
		Summary: "Read a consumer",
		Errors:  []int{400, 404, 503},
	}, s.getConsumer)
	registerWrite(s, api, huma.Operation{
		OperationID: "replace-consumer", Method: http.MethodPut, Path: consumerPath, Tags: tags,
		Summary:     "Replace a consumer",
		Description: "Replaces all of a consumer but its keys; fields that are left out get their defaults. Its keys follow before the answer.",
		Errors:      []int{400, 404, 408, 409, 412, 413, 415, 503},
	}, s.replaceConsumer)
	registerWrite(s, api, huma.Operation{
		OperationID: "patch-consumer", Method: http.MethodPatch, Path: consumerPath, Tags: tags,
		Summary:     "Change some fields of a consumer",
		Description: "Applies a JSON merge patch (RFC 7396). Without If-Match, patches of different fields at the same time all take effect.",
		Errors:      []int{400, 404, 408, 409, 412, 413, 415, 503},
	}, s.patchConsumer)
	registerWrite(s, api, huma.Operation{
		OperationID: "delete-consumer", Method: http.MethodDelete, Path: consumerPath, Tags: tags,
		Summary:     "Delete a consumer",
		Description: "Deletes a consumer and revokes all its keys before the answer.",
		Errors:      []int{400, 404, 412, 503},
	}, s.deleteConsumer)
}

func (s *server) listConsumers(ctx context.Context, in *consumersInput) (*consumersOutput, error) {
	after, ok := parseCursor(in.Cursor)
	if !ok {
		return nil, invalid([]*huma.ErrorDetail{{Location: "query.cursor", Message: "is not a cursor of this list"}})
	}
	// One more than asked for tells whether there is a next page.
	rows, err := s.cfg.Gateway.Consumers(ctx, in.Name, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	page := consumerPage{Items: []*consumer{}}
	for _, row := range rows {
		if len(page.Items) == in.Limit {
			page.Next = cursor(page.Items[in.Limit-1].ID)
			break
		}
		page.Items = append(page.Items, newConsumer(row))
	}
	return &consumersOutput{Body: page}, nil
}

func (s *server) getConsumer(ctx context.Context, in *consumerInput) (*consumerOutput, error) {
	row, err := s.cfg.Gateway.Consumer(ctx, in.ID)
	if err != nil {
		return nil, noSuch("consumer", err)
	}
	out := &consumerOutput{Status: http.StatusOK, ETag: etag(row.ID, row.Revision)}
	if notModified(in.IfNoneMatch, out.ETag) {
		out.Status = http.StatusNotModified
		return out, nil
	}
	out.Body = newConsumer(row)
	return out, nil
}

func (s *server) createConsumer(ctx context.Context, in *struct{ Content requestBody }) (*createConsumerOutput, error) {
	doc, err := in.Content.object(mediaJSON)
	if err != nil {
		return nil, err
	}
	row, err := decodeConsumer(doc, s.consumer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if row, err = s.cfg.Gateway.CreateConsumer(ctx, row, author(ctx)); err != nil {
		return nil, err
	}
	return &createConsumerOutput{
		Location: fmt.Sprintf("%s/%d", consumersPath, row.ID),
		ETag:     etag(row.ID, row.Revision),
		Body:     newConsumer(row),
	}, nil
}

func (s *server) replaceConsumer(ctx context.Context, in *changeConsumerInput) (*consumerOutput, error) {
	old, err := s.currentConsumer(ctx, in.ID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	doc, err := in.Content.object(mediaJSON)
	if err != nil {
		return nil, err
	}
	row, err := decodeConsumer(doc, s.consumer)
	if err != nil {
		return nil, err
	}
	return s.updateConsumer(ctx, row, old, in.IfMatch)
}

func (s *server) patchConsumer(ctx context.Context, in *changeConsumerInput) (*consumerOutput, error) {
	old, err := s.currentConsumer(ctx, in.ID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	patch, err := in.Content.object(mediaMerge, mediaJSON)
	if err != nil {
		return nil, err
	}
	if details := s.consumerPatch.check(patch); len(details) > 0 {
		return nil, invalid(details)
	}
	for attempt := 1; ; attempt++ {
		if old.DecodeError != "" {
			return nil, newConflict("what is stored of this consumer can't be read, so there is nothing to patch; replace it with PUT: " + old.DecodeError)
		}
		var doc map[string]any
		if err := remarshal(newConsumer(old), &doc); err != nil {
			return nil, fmt.Errorf("encoding consumer: %w", err)
		}
		mergePatch(doc, patch)
		row, err := decodeConsumer(doc, s.consumer)
		if err != nil {
			return nil, err
		}
		out, err := s.updateConsumer(ctx, row, old, in.IfMatch)
		if !errors.Is(err, store.ErrStale) || attempt == maxPatchAttempts {
			return out, err
		}
		if old, err = s.currentConsumer(ctx, in.ID, in.IfMatch); err != nil {
			return nil, err
		}
	}
}

func (s *server) updateConsumer(ctx context.Context, row, old *store.Consumer, match ifMatch) (*consumerOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	row.ID = old.ID
	row, err := s.cfg.Gateway.UpdateConsumer(ctx, row, old.Revision, author(ctx))
	if err != nil {
		return nil, noSuch("consumer", failedMatch(err, match))
	}
	return &consumerOutput{Status: http.StatusOK, ETag: etag(row.ID, row.Revision), Body: newConsumer(row)}, nil
}

func (s *server) deleteConsumer(ctx context.Context, in *deleteConsumerInput) (*struct{}, error) {
	old, err := s.currentConsumer(ctx, in.ID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var revision int64 // whatever it is at
	if in.IfMatch.named() {
		revision = old.Revision
	}
	return nil, noSuch("consumer", failedMatch(s.cfg.Gateway.DeleteConsumer(ctx, in.ID, revision, author(ctx)), in.IfMatch))
}

// currentConsumer returns the consumer that a request is about to change, if the
// request's condition is true of it.
func (s *server) currentConsumer(ctx context.Context, id int64, match ifMatch) (*store.Consumer, error) {
	row, err := s.cfg.Gateway.Consumer(ctx, id)
	if err != nil {
		return nil, noSuch("consumer", err)
	}
	if !match.holds(etag(row.ID, row.Revision)) {
		return nil, errPrecondition
	}
	return row, nil
}

func decodeConsumer(doc map[string]any, c checker) (*store.Consumer, error) {
	if details := c.check(doc); len(details) > 0 {
		return nil, invalid(details)
	}
	row := &store.Consumer{Enabled: true}
	if err := remarshal(doc, row); err != nil {
		return nil, fmt.Errorf("decoding a checked consumer: %w", err)
	}
	return row, nil
}

// noSuch says what it is that was not found.
func noSuch(what string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return huma.Error404NotFound("there is no such " + what)
	}
	return err
}
