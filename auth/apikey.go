package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/store"
)

// Credentials looks up API keys.
type Credentials interface {
	// Key returns the credential of a key's public id as last known. Errors:
	// store.ErrNotFound if nobody has it; anything else means that it can't be known
	// now. The caller must not modify what is returned.
	Key(ctx context.Context, id string) (*store.Credential, error)

	// KeyUsed notes that a key was accepted. It never blocks.
	KeyUsed(id string)
}

// errNoStore is why keys can't be looked up where there is no isekai app.
var errNoStore = errors.New("there is no store of keys")

// NoCredentials is Credentials of which nothing can be known.
type NoCredentials struct{}

// Key implements Credentials.
func (NoCredentials) Key(context.Context, string) (*store.Credential, error) { return nil, errNoStore }

// KeyUsed implements Credentials.
func (NoCredentials) KeyUsed(string) {}

// KeyFields returns the names of the header fields and query parameters, beside
// Authorization, where API keys may stand.
func (v *Verifier) KeyFields() (headers, params []string) { return v.keyHeaders, v.keyParams }

// keys returns the texts that a request presents as API keys.
func (v *Verifier) keys(r *http.Request, a authorization) []string {
	var texts []string
	if text, ok := a.key(); ok {
		texts = append(texts, text)
	}
	for _, name := range v.keyHeaders {
		values := r.Header[name]
		if len(values) > 1 {
			// Which one counts depends on who reads it.
			return append(texts, "")
		}
		texts = append(texts, values...)
	}
	if r.URL.RawQuery == "" {
		return texts
	}
	for _, name := range v.keyParams {
		values := queryValues(r.URL.RawQuery, name)
		if len(values) > 1 {
			return append(texts, "")
		}
		texts = append(texts, values...)
	}
	return texts
}

// apiKey checks the API keys that a request presents. The first valid one counts.
func (v *Verifier) apiKey(r *http.Request, a authorization) (*Identity, error) {
	texts := v.keys(r, a)
	result := ErrNoCredentials
	for _, text := range texts {
		id, err := v.checkKey(r.Context(), strings.TrimSpace(text))
		if err == nil {
			return id, nil
		}
		result = worse(result, err)
	}
	return nil, result
}

func (v *Verifier) checkKey(ctx context.Context, text string) (*Identity, error) {
	secret, ok := ParseSecret(PrefixKey, text)
	if !ok {
		return nil, v.invalid(MethodAPIKey, "it has not the form of a key")
	}
	found, err := v.credentials.Key(ctx, secret.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, v.invalid(MethodAPIKey, "nobody has the key", zap.String("key_id", secret.ID))
	}
	if err != nil {
		v.unavailable(MethodAPIKey, err)
		return nil, ErrUnavailable
	}
	why := ""
	switch key := &found.Key; {
	case !secret.Matches(key.Hash):
		why = "the secret part is wrong"
	case !key.Enabled:
		why = "the key is disabled"
	case key.ExpiresAt != nil && !v.now().Before(*key.ExpiresAt):
		why = "the key has expired"
	case !found.Consumer.Enabled:
		why = "the consumer is disabled"
	}
	if why != "" {
		return nil, v.invalid(MethodAPIKey, why, zap.String("key_id", secret.ID))
	}
	v.credentials.KeyUsed(secret.ID)
	return consumerIdentity(found), nil
}

// APIKeyConfig says where API keys may stand beside Authorization: Bearer.
type APIKeyConfig struct {
	// Header fields, at most 8. Default: X-API-Key.
	Headers []string `json:"headers,omitempty"`

	// Parameters of the query, at most 8. Addresses end up in logs and histories, so
	// prefer header fields. Default: none.
	Query []string `json:"query,omitempty"`
}

// maxPlaces bounds where keys may stand.
const maxPlaces = 8

func (c *APIKeyConfig) validate() error {
	if len(c.Headers) > maxPlaces || len(c.Query) > maxPlaces {
		return fmt.Errorf("api_key: at most %d header fields and %d query parameters", maxPlaces, maxPlaces)
	}
	for _, name := range c.Headers {
		if err := checkField(name); err != nil {
			return fmt.Errorf("api_key.headers: %w", err)
		}
	}
	if slices.Contains(c.Query, "") {
		return errors.New("api_key.query: a name must not be empty")
	}
	return nil
}
