package auth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/store"
)

// Bounds of a policy: how many groups it names, and how long one is in bytes.
const (
	MaxGroups = 100
	MaxGroup  = 200
)

// options are the Caddyfile options that configure methods.
var options = map[string]string{
	MethodJWT:   "auth { jwt <name> { ... } }",
	MethodBasic: "auth { basic { ... } }",
	MethodMTLS:  "auth { mtls }",
}

// Check returns what is wrong with a policy where these methods are configured, as
// store.FieldErrors.
func Check(policy *store.Auth, configured []string) error {
	var errs store.FieldErrors
	if len(policy.Any) == 0 {
		errs.Add("any", "must name at least one of "+strings.Join(Methods(), ", "))
	}
	for n, method := range policy.Any {
		field := fmt.Sprintf("any[%d]", n)
		switch {
		case !slices.Contains(Methods(), method):
			errs.Add(field, "must be one of "+strings.Join(Methods(), ", "))
		case slices.Contains(policy.Any[:n], method):
			errs.Add(field, "stands twice")
		case !slices.Contains(configured, method):
			errs.Add(field, fmt.Sprintf("%s is not configured; set it up with the option %s of isekai", method, options[method]))
		}
	}
	if len(policy.Groups) > MaxGroups {
		errs.Add("groups", fmt.Sprintf("must be at most %d", MaxGroups))
	}
	for n, group := range policy.Groups {
		if group == "" || len(group) > MaxGroup {
			errs.Add(fmt.Sprintf("groups[%d]", n), fmt.Sprintf("must be 1 to %d bytes", MaxGroup))
		}
	}
	if policy.Anonymous && len(policy.Groups) > 0 {
		errs.Add("groups", "have no effect with anonymous: whoever sends no credentials would pass")
	}
	return errs.Err()
}

// Policy says who may go on. It is safe for concurrent use.
type Policy struct {
	verifier  *Verifier
	methods   []string
	groups    []string
	anonymous bool

	// Leaves the credentials of a refused request to others that may know them.
	sparing bool
}

// Policy compiles a policy. It fails as Check does.
func (v *Verifier) Policy(policy *store.Auth) (*Policy, error) {
	if err := Check(policy, v.methods); err != nil {
		return nil, err
	}
	return &Policy{verifier: v, methods: policy.Any, groups: policy.Groups, anonymous: policy.Anonymous}, nil
}

// Authenticate decides whether a request may go on, and returns who makes it, or nil
// for nobody if that is allowed. It removes the credentials from the request, sets
// the placeholders and the header fields that tell who it is. The client's own fields
// of these names are assumed to be gone, see Verifier.Clean.
//
// Wrong credentials are refused even where none are needed: who has a key means to be
// known. The error is for Refuse; with ErrForbidden comes whom it is about.
func (p *Policy) Authenticate(r *http.Request, repl *caddy.Replacer) (*Identity, error) {
	id, err := p.verifier.Authenticate(r, p.methods)
	a := readAuthorization(r.Header)
	if err == nil || !p.sparing {
		p.verifier.strip(r, p.methods)
	}
	id.SetPlaceholders(repl)
	switch {
	case err == nil && len(p.groups) > 0 && !id.InAny(p.groups):
		return id, ErrForbidden
	case err == nil:
		p.verifier.tell(r.Header, repl, id)
		return id, nil
	}
	if p.anonymous && errors.Is(err, ErrNoCredentials) {
		return nil, nil
	}
	_, token := a.bearer()
	return nil, &refusal{err, challenges(p.verifier.realm, p.methods, token)}
}
