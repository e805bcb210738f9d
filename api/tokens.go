package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

// tokensPath is where tokens are managed, which takes the role admin.
const tokensPath = "/api/tokens"

// RequiredRole returns the role that a caller needs for a request to the API.
func RequiredRole(r *http.Request) store.Role {
	switch {
	case r.URL.Path == tokensPath || strings.HasPrefix(r.URL.Path, tokensPath+"/"):
		return store.RoleAdmin
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return store.RoleRead
	}
	return store.RoleWrite
}

type (
	adminToken struct {
		ID         string     `json:"id" doc:"The public part of the token." example:"mfrggzdfmztwq2lk"`
		Name       string     `json:"name" doc:"A unique name, which the history has as the author of changes."`
		Role       store.Role `json:"role" enum:"read,write,admin" doc:"What its holder may do: read everything; change routes and consumers too; manage tokens too."`
		ExpiresAt  *time.Time `json:"expires_at,omitempty" doc:"When the token ends. Absent for never."`
		LastUsedAt *time.Time `json:"last_used_at,omitempty" doc:"When the token was last accepted, to about a minute. Absent for never."`
		Revision   int64      `json:"revision" doc:"The number of the change that made it."`
		CreatedAt  time.Time  `json:"created_at" doc:"When the token was made, in UTC."`
	}
	newAdminToken struct {
		ID    string `json:"id" doc:"The public part of the token." example:"mfrggzdfmztwq2lk"`
		Token string `json:"token" doc:"The whole token, which is shown this once: nobody can read it again."`
	}
	tokenRequest struct {
		Name      string `json:"name" maxLength:"100" doc:"A unique name: 1 to 100 letters, digits or any of _-.@:" example:"ci"`
		Role      string `json:"role" enum:"read,write,admin" doc:"What its holder may do." example:"write"`
		ExpiresAt string `json:"expires_at,omitempty" maxLength:"64" doc:"When the token ends, as in RFC 3339. Default: never." example:"2030-01-02T00:00:00Z"`
	}
	tokenList struct {
		Items []adminToken `json:"items" doc:"The tokens, oldest first."`
	}
	tokensOutput      struct{ Body tokenList }
	createTokenOutput struct {
		Location string `header:"Location" doc:"The new token's path."`
		Body     newAdminToken
	}
	tokenInput struct {
		ID string `path:"id" doc:"The public part of the token." example:"mfrggzdfmztwq2lk"`
	}
)

func newToken(t *store.AdminToken) adminToken {
	return adminToken{t.ID, t.Name, t.Role, t.ExpiresAt, t.LastUsedAt, t.Revision, t.CreatedAt}
}

func (s *server) registerTokens(api huma.API) {
	tags := []string{"tokens"}
	register(s, api, huma.Operation{
		OperationID: "list-tokens", Method: http.MethodGet, Path: tokensPath, Tags: tags,
		Summary:     "List the tokens for this API on a site",
		Description: "Lists tokens without their secret parts.",
		Errors:      []int{400, 422, 503},
	}, func(ctx context.Context, _ *struct{}) (*tokensOutput, error) {
		tokens, err := s.cfg.Gateway.Tokens(ctx)
		out := &tokensOutput{Body: tokenList{Items: []adminToken{}}}
		for _, t := range tokens {
			out.Body.Items = append(out.Body.Items, newToken(t))
		}
		return out, err
	})
	registerWrite(s, api, huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: tokensPath, Tags: tags,
		Summary:       "Create a token",
		Description:   "Makes a token for this API where the handler isekai_admin serves it, and shows it, once.",
		DefaultStatus: http.StatusCreated,
		Errors:        []int{400, 408, 409, 413, 415, 422, 503},
	}, s.createToken)
	registerWrite(s, api, huma.Operation{
		OperationID: "delete-token", Method: http.MethodDelete, Path: tokensPath + "/{id}", Tags: tags,
		Summary: "Revoke a token",
		Errors:  []int{400, 404, 503},
	}, func(ctx context.Context, in *tokenInput) (*struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		return nil, noSuch("token", s.cfg.Gateway.DeleteToken(ctx, in.ID, author(ctx)))
	})
}

func (s *server) createToken(ctx context.Context, in *struct{ Content requestBody }) (*createTokenOutput, error) {
	doc, err := in.Content.object(mediaJSON)
	if err != nil {
		return nil, err
	}
	if details := s.token.check(doc); len(details) > 0 {
		return nil, invalid(details)
	}
	name, _ := doc["name"].(string)
	role, _ := doc["role"].(string)
	expiry, err := parseExpiry(doc["expires_at"])
	if err != nil {
		return nil, err
	}
	text, secret := auth.NewSecret(auth.PrefixToken)
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	row, err := s.cfg.Gateway.CreateToken(ctx, &store.AdminToken{
		ID: secret.ID, Name: name, Role: store.Role(role), Hash: secret.Hash[:], ExpiresAt: expiry,
	}, author(ctx))
	if err != nil {
		return nil, err
	}
	return &createTokenOutput{
		Location: tokensPath + "/" + row.ID,
		Body:     newAdminToken{ID: row.ID, Token: text},
	}, nil
}
