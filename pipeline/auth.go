package pipeline

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"go.opentelemetry.io/otel/attribute"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/quota"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// defaultMethods need no setting.
var defaultMethods = []string{auth.MethodAPIKey}

// validateAuth checks a row's auth where these methods are configured.
func validateAuth(errs *store.FieldErrors, row *store.Route, configured []string) {
	if row.Auth == nil {
		return
	}
	fields, _ := errors.AsType[store.FieldErrors](auth.Check(row.Auth, configured))
	for _, e := range fields {
		errs.Add("auth."+e.Field, e.Message)
	}
}

// newAuth returns the policy of a route that has one, else nil.
func (c *compiler) newAuth(route *routing.Route) (*auth.Policy, error) {
	settings := route.Spec().Auth
	if settings == nil {
		return nil, nil
	}
	if c.verifier == nil {
		return nil, errors.New("compiling auth: nothing can be verified here")
	}
	policy, err := c.verifier.Policy(settings)
	if err != nil {
		return nil, fmt.Errorf("compiling auth: %w", err)
	}
	return policy, nil
}

// authenticate finds out who makes the request, takes the credentials out of it, and
// refuses it if nobody may or the wrong one does.
func (x *Exchange) authenticate(w http.ResponseWriter, r *http.Request, policy *auth.Policy, repl *caddy.Replacer) (err error) {
	if x.Span != nil {
		span := step(r, "auth")
		defer func() { endStep(span, err, attribute.String("isekai.consumer", x.Consumer())) }()
	}
	id, err := policy.Authenticate(r, repl)
	if id != nil {
		auth.Log(r, id)
	}
	x.identify(id)
	if err != nil {
		return auth.Refuse(w.Header(), err)
	}
	return nil
}

// identify notes who makes the request, nil for nobody.
func (x *Exchange) identify(id *auth.Identity) {
	x.identity = id
	if id != nil && id.Consumer != nil {
		x.consumer = quota.OfConsumer(id.Consumer)
	}
}

// Identity returns who makes the request; nil if neither the route nor the site asks,
// or nobody said.
func (x *Exchange) Identity() *auth.Identity { return x.identity }

// Consumer returns the name of who makes the request, empty for nobody.
func (x *Exchange) Consumer() string {
	if x.identity == nil {
		return ""
	}
	return x.identity.Name
}

// Caller returns a text that tells whoever makes the request from all others, e.g.
// "api_key:7" or "jwt:corp/alice", and is unlike any address; empty if it has no
// Identity. Limits count by it.
func (x *Exchange) Caller() string {
	if x.identity == nil {
		return ""
	}
	return x.identity.Caller()
}
