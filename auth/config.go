package auth

import (
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/internal/fields"
)

// DefaultRealm is the realm of challenges unless told otherwise.
const DefaultRealm = "isekai"

// Config says by what means requests can say who makes them, and how upstreams are
// told. API keys of consumers need no setting.
type Config struct {
	// What clients are told that the credentials are for. Default: isekai.
	Realm string `json:"realm,omitempty"`

	// Where API keys may stand. Default: Authorization: Bearer and X-API-Key.
	APIKey *APIKeyConfig `json:"api_key,omitempty"`

	// The issuers whose JSON Web Tokens are accepted, by a name for logs and
	// placeholders. Default: none.
	JWT map[string]*IssuerConfig `json:"jwt,omitempty"`

	// The accounts for HTTP basic authentication, by user name. Default: none.
	Basic map[string]Account `json:"basic,omitempty"`

	// Whether client certificates are accepted. Only those count that Caddy has
	// verified, so the site's tls needs client_auth with the mode verify_if_given or
	// require_and_verify. Default: false.
	MTLS bool `json:"mtls,omitempty"`

	// Header fields by which upstreams are told who makes a request, each with a text
	// that may have placeholders. A field whose text comes out empty is not sent. The
	// client's own fields of these names are removed from every request. Default:
	//
	//   - X-Consumer-Id: {http.auth.user.id}
	//   - X-Consumer-Name: {http.auth.user.name}
	//   - X-Consumer-Groups: {http.auth.user.groups}
	//   - X-Auth-Method: {http.auth.user.method}
	Headers map[string]string `json:"headers,omitempty"`
}

var defaultHeaders = map[string]string{
	"X-Consumer-Id":     "{http.auth.user.id}",
	"X-Consumer-Name":   "{http.auth.user.name}",
	"X-Consumer-Groups": "{http.auth.user.groups}",
	"X-Auth-Method":     "{http.auth.user.method}",
}

// maxHeaders bounds the identity headers.
const maxHeaders = 32

// Methods returns the methods that routes and sites can use under this
// configuration.
func (c *Config) Methods() []string {
	methods := []string{MethodAPIKey}
	if len(c.JWT) > 0 {
		methods = append(methods, MethodJWT)
	}
	if len(c.Basic) > 0 {
		methods = append(methods, MethodBasic)
	}
	if c.MTLS {
		methods = append(methods, MethodMTLS)
	}
	return methods
}

// Validate checks what can be checked without reading files or placeholders.
func (c *Config) Validate() error {
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		return errors.New("realm must be printable ASCII")
	}
	if c.APIKey != nil {
		if err := c.APIKey.validate(); err != nil {
			return err
		}
	}
	if len(c.Headers) > maxHeaders {
		return fmt.Errorf("headers: at most %d", maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if err := checkField(name); err != nil {
			return fmt.Errorf("headers: %w", err)
		}
	}
	issuers := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(c.JWT)) {
		issuer := c.JWT[name]
		if issuer == nil {
			return fmt.Errorf("jwt.%s must not be null", name)
		}
		if name == "" || strings.ContainsFunc(name, notInName) {
			return fmt.Errorf("jwt.%s: a name has letters, digits, hyphens, dots and underscores only", name)
		}
		if err := issuer.validate(); err != nil {
			return fmt.Errorf("jwt.%s: %w", name, err)
		}
		if other, ok := issuers[issuer.Issuer]; ok {
			return fmt.Errorf("jwt.%s: issuer %q is that of jwt.%s", name, issuer.Issuer, other)
		}
		issuers[issuer.Issuer] = name
	}
	for _, name := range slices.Sorted(maps.Keys(c.Basic)) {
		if err := checkAccount(name); err != nil {
			return fmt.Errorf("basic: %w", err)
		}
	}
	return nil
}

// reserved are fields that can carry no identity and no key, since HTTP or
// forwarding gives them another meaning.
var reserved = []string{"Authorization", "Content-Length", "Content-Type", "Cookie", "Host", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// notInName keeps slashes out of the names of issuers, or who "a/b/c" is would depend
// on where the issuer ends.
func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
}

func checkField(name string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case !httpguts.ValidHeaderFieldName(name) || strings.ContainsAny(name, "_."):
		return fmt.Errorf("%q is no name of a header field (underscores and dots are not supported)", name)
	case slices.Contains(reserved, canonical) || fields.IsHopByHop(canonical):
		return fmt.Errorf("%s has a meaning of its own", canonical)
	}
	return nil
}
