package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

// Types that describe the store's own, as in status.go, without the hash.
type (
	apiKey struct {
		ID         string     `json:"id" doc:"The public part of the key." example:"mfrggzdfmztwq2lk"`
		ConsumerID int64      `json:"consumer_id" doc:"The consumer whose key it is."`
		Name       string     `json:"name,omitempty" doc:"A name for people."`
		Enabled    bool       `json:"enabled" doc:"Whether the key is accepted."`
		ExpiresAt  *time.Time `json:"expires_at,omitempty" doc:"When the key ends. Absent for never."`
		LastUsedAt *time.Time `json:"last_used_at,omitempty" doc:"When the key was last accepted, to about a minute. Absent for never."`
		Revision   int64      `json:"revision" doc:"The number of the last change to this key."`
		CreatedAt  time.Time  `json:"created_at" doc:"When the key was made, in UTC."`
		UpdatedAt  time.Time  `json:"updated_at" doc:"When the key was last changed, in UTC."`
	}
	newAPIKey struct {
		ID  string `json:"id" doc:"The public part of the key." example:"mfrggzdfmztwq2lk"`
		Key string `json:"key" doc:"The whole key, which is shown this once: nobody can read it again."`
	}
	keyRequest struct {
		Name      string `json:"name,omitempty" maxLength:"200" doc:"A name for people, at most 200 bytes. Default: none."`
		Enabled   *bool  `json:"enabled,omitempty" doc:"Whether the key is accepted. Default: true."`
		ExpiresAt string `json:"expires_at,omitempty" maxLength:"64" doc:"When the key ends, as in RFC 3339. Default: never." example:"2030-01-02T00:00:00Z"`
	}
	keyList struct {
		Items []apiKey `json:"items" doc:"The keys, oldest first. There are at most 100."`
	}

	keysInput struct {
		ID int64 `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
	}
	keysOutput     struct{ Body keyList }
	createKeyInput struct {
		ID      int64 `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
		Content requestBody
	}
	createKeyOutput struct {
		Location string `header:"Location" doc:"The new key's path."`
		Body     newAPIKey
	}
	keyInput struct {
		ID  int64  `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
		Key string `path:"key" doc:"The public part of the key." example:"mfrggzdfmztwq2lk"`
	}
	patchKeyInput struct {
		ID      int64  `path:"id" minimum:"1" maximum:"2147483647" doc:"The consumer's number." example:"1"`
		Key     string `path:"key" doc:"The public part of the key." example:"mfrggzdfmztwq2lk"`
		Content requestBody
	}
	keyOutput struct{ Body apiKey }
)

func newKey(k *store.APIKey) apiKey {
	return apiKey{
		ID: k.ID, ConsumerID: k.ConsumerID, Name: k.Name, Enabled: k.Enabled, ExpiresAt: k.ExpiresAt,
		LastUsedAt: k.LastUsedAt, Revision: k.Revision, CreatedAt: k.CreatedAt, UpdatedAt: k.UpdatedAt,
	}
}

func (s *server) registerKeys(api huma.API) {
	const many, one = consumerPath + "/keys", consumerPath + "/keys/{key}"
	tags := []string{"consumers"}
	register(s, api, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: many, Tags: tags,
		Summary:     "List the keys of a consumer",
		Description: "Lists keys without their secret parts, which nobody has but their holders.",
		Errors:      []int{400, 404, 503},
	}, s.listKeys)
	registerWrite(s, api, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: many, Tags: tags,
		Summary: "Create a key",
		Description: "Makes a key and shows it, once. To rotate keys, make a second one, hand it out, and delete the first when last_used_at says that it is no longer needed. " +
			"The body may be empty.",
		DefaultStatus: http.StatusCreated,
		Errors:        []int{400, 404, 408, 409, 413, 415, 422, 503},
	}, s.createKey)
	registerWrite(s, api, huma.Operation{
		OperationID: "patch-key", Method: http.MethodPatch, Path: one, Tags: tags,
		Summary:     "Change a key",
		Description: "Applies a JSON merge patch (RFC 7396) to name, enabled and expires_at. It takes effect before the answer. Patches of different fields at the same time all take effect.",
		Errors:      []int{400, 404, 408, 409, 413, 415, 422, 503},
	}, s.patchKey)
	registerWrite(s, api, huma.Operation{
		OperationID: "delete-key", Method: http.MethodDelete, Path: one, Tags: tags,
		Summary:     "Revoke a key",
		Description: "The key is refused before the answer, and on other nodes as soon as they see the revision.",
		Errors:      []int{400, 404, 503},
	}, s.deleteKey)
}

func (s *server) listKeys(ctx context.Context, in *keysInput) (*keysOutput, error) {
	keys, err := s.cfg.Gateway.Keys(ctx, in.ID)
	if err != nil {
		return nil, noSuch("consumer", err)
	}
	out := &keysOutput{Body: keyList{Items: []apiKey{}}}
	for _, k := range keys {
		out.Body.Items = append(out.Body.Items, newKey(k))
	}
	return out, nil
}

func (s *server) createKey(ctx context.Context, in *createKeyInput) (*createKeyOutput, error) {
	row := &store.APIKey{ConsumerID: in.ID, Enabled: true}
	if in.Content.r.ContentLength != 0 {
		doc, err := in.Content.object(mediaJSON)
		if err != nil {
			return nil, err
		}
		if err := s.applyKey(row, doc, s.key); err != nil {
			return nil, err
		}
	}
	text, secret := auth.NewSecret(auth.PrefixKey)
	row.ID, row.Hash = secret.ID, secret.Hash[:]
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	row, err := s.cfg.Gateway.CreateKey(ctx, row, author(ctx))
	if errors.Is(err, store.ErrTooMany) {
		return nil, newConflict(fmt.Sprintf("the consumer has %d keys already; delete one that is not used", store.MaxKeys))
	}
	if err != nil {
		return nil, noSuch("consumer", err)
	}
	return &createKeyOutput{
		Location: fmt.Sprintf("%s/%d/keys/%s", consumersPath, in.ID, row.ID),
		Body:     newAPIKey{ID: row.ID, Key: text},
	}, nil
}

func (s *server) patchKey(ctx context.Context, in *patchKeyInput) (*keyOutput, error) {
	patch, err := in.Content.object(mediaMerge, mediaJSON)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		row, err := s.currentKey(ctx, in.ID, in.Key)
		if err != nil {
			return nil, err
		}
		if err := s.applyKey(row, patch, s.keyPatch); err != nil {
			return nil, err
		}
		// The row tells at which revision it was read, so that nobody's change is undone.
		row, err = s.cfg.Gateway.UpdateKey(ctx, row, author(ctx))
		switch {
		case err == nil:
			return &keyOutput{Body: newKey(row)}, nil
		case !errors.Is(err, store.ErrStale) || attempt == maxPatchAttempts:
			return nil, noSuch("key", err)
		}
	}
}

// currentKey returns the key that a request is about to change.
func (s *server) currentKey(ctx context.Context, consumer int64, id string) (*store.APIKey, error) {
	keys, err := s.cfg.Gateway.Keys(ctx, consumer)
	if err != nil {
		return nil, noSuch("consumer", err)
	}
	for _, row := range keys {
		if row.ID == id {
			return row, nil
		}
	}
	return nil, noSuch("key", store.ErrNotFound)
}

func (s *server) deleteKey(ctx context.Context, in *keyInput) (*struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return nil, noSuch("key", s.cfg.Gateway.DeleteKey(ctx, in.ID, in.Key, author(ctx)))
}

// applyKey sets what a document says of a key. null is the default.
func (s *server) applyKey(row *store.APIKey, doc map[string]any, c checker) error {
	if details := c.check(doc); len(details) > 0 {
		return invalid(details)
	}
	if name, ok := doc["name"]; ok {
		row.Name, _ = name.(string)
	}
	if enabled, ok := doc["enabled"]; ok {
		row.Enabled = enabled == nil || enabled == true
	}
	if at, ok := doc["expires_at"]; ok {
		expiry, err := parseExpiry(at)
		if err != nil {
			return err
		}
		row.ExpiresAt = expiry
	}
	return nil
}

// parseExpiry reads the end of a key or token; null and the empty text are never.
func parseExpiry(value any) (*time.Time, error) {
	text, _ := value.(string)
	if text == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return nil, invalid([]*huma.ErrorDetail{{Location: "body.expires_at", Message: "must be a time as in RFC 3339, e.g. 2030-01-02T00:00:00Z", Value: echo(text)}})
	}
	return &at, nil
}
