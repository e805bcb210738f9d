package auth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// Why a request is refused. Clients may see the text of each, and none tells a wrong
// key from one that has expired.
var (
	// ErrUnauthenticated is what every error about missing or wrong credentials
	// matches. Answered 401.
	ErrUnauthenticated = errors.New("unauthenticated")

	// ErrNoCredentials says that a request has none of the credentials that would do.
	ErrNoCredentials = fmt.Errorf("%w: credentials are required", ErrUnauthenticated)

	// ErrInvalid says that none of a request's credentials is valid.
	ErrInvalid = fmt.Errorf("%w: the credentials are not valid", ErrUnauthenticated)

	// ErrForbidden says that somebody is in none of the groups that may go on.
	// Answered 403.
	ErrForbidden = errors.New("none of your groups may use this")

	// ErrUnavailable says that credentials can't be checked now, since the store or
	// the keys of an issuer can't be reached. Answered 503.
	ErrUnavailable = errors.New("the credentials can't be checked at the moment")

	// ErrGuessing says that a client has sent too many wrong passwords. Answered 429.
	ErrGuessing = errors.New("too many wrong passwords")
)

// unavailableRetry is the Retry-After of an answer to what can't be checked now.
const unavailableRetry = 5 * time.Second

// guessingError is ErrGuessing with the time until the next attempt may be made.
type guessingError struct{ after time.Duration }

func (*guessingError) Error() string { return ErrGuessing.Error() }
func (*guessingError) Unwrap() error { return ErrGuessing }

// refusal is an error of Policy.Authenticate with the challenges that go with it.
type refusal struct {
	error
	challenges []string
}

func (r *refusal) Unwrap() error { return r.error }

// Refuse returns the error for Caddy to answer a request with that Authenticate has
// returned err for, and sets the header fields that go with it: WWW-Authenticate or
// Retry-After.
func Refuse(h http.Header, err error) error {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrUnauthenticated):
		status = http.StatusUnauthorized
		if r, ok := errors.AsType[*refusal](err); ok {
			h["Www-Authenticate"] = r.challenges
		}
	case errors.Is(err, ErrForbidden):
		status = http.StatusForbidden
	case errors.Is(err, ErrUnavailable):
		status = http.StatusServiceUnavailable
		ratelimit.SetRetryAfter(h, unavailableRetry)
	case errors.Is(err, ErrGuessing):
		status = http.StatusTooManyRequests
		if g, ok := errors.AsType[*guessingError](err); ok {
			ratelimit.SetRetryAfter(h, g.after)
		}
	}
	return caddyhttp.Error(status, err)
}

// challenges returns the values of WWW-Authenticate for a route or site that takes
// these methods: one for each, by a field line of its own.
func challenges(realm string, methods []string, token bool) []string {
	var out []string
	for _, method := range methods {
		switch method {
		case MethodAPIKey:
			out = append(out, `ApiKey realm=`+quote(realm))
		case MethodJWT:
			c := `Bearer realm=` + quote(realm)
			if token {
				c += `, error="invalid_token"` // RFC 6750, 3.1
			}
			out = append(out, c)
		case MethodBasic:
			out = append(out, `Basic realm=`+quote(realm)+`, charset="UTF-8"`) // RFC 7617
		}
	}
	if out == nil {
		// A 401 must have one (RFC 9110, 15.5.2), and none is registered for this.
		out = append(out, `ClientCertificate realm=`+quote(realm))
	}
	return out
}

// quote returns a quoted-string (RFC 9110, 5.6.4).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
