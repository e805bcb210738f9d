package cors

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/store"
)

// MaxMaxAge is the longest max_age in seconds, a day. No browser keeps the
// answer to a preflight for longer: Firefox takes a day, Chromium two hours.
const MaxMaxAge = 86400

// maxItems bounds each list of a Config.
const maxItems = 100

// all is what stands for every origin, method or header.
const all = "*"

// Config says which pages of other origins may use a resource. The zero value
// lets every page read it, without credentials.
type Config struct {
	// The origins whose pages may ask, each one of
	//
	//   - an origin, like `https://app.example.com` or `http://localhost:3000`;
	//     upper case, default ports and international names are normalized;
	//   - an origin whose host is a wildcard, like `https://*.example.com`, for one
	//     or more labels in place of the `*`. It does not match
	//     `https://example.com`, and scheme and port must be equal;
	//   - `~` and a regular expression (RE2) for the whole origin, like
	//     `~https://pr-[0-9]+\.example\.com`. Browsers send origins in lower case
	//     and without a default port;
	//   - `null`, for sandboxed frames and local files. Any page can make itself
	//     that origin, so it can't be had with credentials;
	//   - `*` alone, for every origin. It can't be had with credentials.
	//
	// At most 100. Default: `*`; required with credentials.
	Origins []string `json:"origins,omitempty"`

	// The methods that pages may use, in any case, or `*` alone for every method,
	// which can't be had with credentials. CONNECT, TRACE and TRACK are closed to
	// pages. Browsers never ask about GET, HEAD and POST and use them in any case.
	// At most 100. Default: GET, HEAD and POST, and on a route its own methods.
	Methods []string `json:"methods,omitempty"`

	// The request header fields that pages may set beside the harmless ones that
	// Fetch always lets them set, e.g. `Authorization`, or `Content-Type` for
	// JSON. `*` alone is for every field, Authorization too: the answer repeats
	// what was asked for. It can't be had with credentials. At most 100.
	// Default: none.
	Headers []string `json:"headers,omitempty"`

	// The response header fields that pages may read beside the few that Fetch
	// always lets them read, or `*` alone for every field, which can't be had with
	// credentials. At most 100. Default: none.
	ExposeHeaders []string `json:"expose_headers,omitempty"`

	// Whether pages may send cookies, HTTP authentication and client certificates
	// and read the answer. Tokens that a page sets itself, in Authorization, don't
	// need it. Default: false.
	Credentials bool `json:"credentials,omitempty"`

	// How many seconds browsers may keep the answer to a preflight, up to 86400;
	// -1 tells them not to. Default: 0, which leaves it to them (5 seconds).
	MaxAge int `json:"max_age,omitempty"`

	// Whether pages from the Internet may reach this server in a private network,
	// for browsers that ask (https://wicg.github.io/private-network-access/).
	// Default: false.
	PrivateNetwork bool `json:"private_network,omitempty"`
}

// Validate returns nil, or store.FieldErrors with everything that is wrong. The
// fields are relative to the Config, e.g. "origins[0]".
func (c Config) Validate() error {
	_, err := New(c)
	return err
}

// WithDefaultMethods returns a Config that names these methods if c names none:
// those of a route, "*" alone for all. With credentials, which no "*" allows,
// that is the usual methods.
func (c Config) WithDefaultMethods(methods []string) Config {
	if len(c.Methods) > 0 {
		return c
	}
	c.Methods = methods
	if c.Credentials && slices.Equal(methods, []string{all}) {
		c.Methods = []string{
			http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
			http.MethodPatch, http.MethodDelete, http.MethodOptions,
		}
	}
	return c
}

// New returns the policy that c asks for, or store.FieldErrors as Validate does.
func New(c Config) (*Policy, error) {
	if len(c.Methods) == 0 {
		c.Methods = []string{http.MethodGet, http.MethodHead, http.MethodPost}
	}
	var errs store.FieldErrors
	p := &Policy{
		credentials:    c.Credentials,
		privateNetwork: c.PrivateNetwork,
		methods:        joinList(&errs, "methods", c.Methods, c.Credentials, parseMethod),
		headers:        joinList(&errs, "headers", c.Headers, c.Credentials, parseFieldName),
		expose:         joinList(&errs, "expose_headers", c.ExposeHeaders, c.Credentials, parseFieldName),
		exact:          make(map[string]struct{}),
		vary:           varyPreflight,
	}
	p.addOrigins(&errs, c)
	if c.PrivateNetwork {
		p.vary = varyPrivateNetwork
	}
	switch {
	case c.MaxAge < -1 || c.MaxAge > MaxMaxAge:
		errs.Add("max_age", fmt.Sprintf("must be between 0 and %d, or -1", MaxMaxAge))
	case c.MaxAge == -1:
		p.maxAge = "0"
	case c.MaxAge > 0:
		p.maxAge = strconv.Itoa(c.MaxAge)
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

// addOrigins takes c's origins into p.
func (p *Policy) addOrigins(errs *store.FieldErrors, c Config) {
	const field = "origins"
	if len(c.Origins) == 0 {
		p.any = true
		if c.Credentials {
			errs.Add(field, "must be named if credentials are allowed")
		}
		return
	}
	if len(c.Origins) > maxItems {
		errs.Add(field, fmt.Sprintf("must not be more than %d", maxItems))
		return
	}
	for i, text := range c.Origins {
		item := itemField(field, i)
		if text == all {
			p.any = true
			checkAny(errs, item, len(c.Origins), c.Credentials)
			continue
		}
		o, err := parseOrigin(text)
		if err == nil && c.Credentials {
			err = o.checkCredentials()
		}
		switch {
		case err != nil:
			errs.Add(item, err.Error())
		case o.pattern != nil:
			p.patterns = append(p.patterns, o.pattern)
		case o.wildcard != wildcard{}:
			p.wildcards = append(p.wildcards, o.wildcard)
		default:
			p.exact[o.exact] = struct{}{}
		}
	}
}

// joinList returns the normal forms of items as the value of a header field,
// each once.
func joinList(errs *store.FieldErrors, field string, items []string, credentials bool, parse func(string) (string, error)) string {
	if len(items) > maxItems {
		errs.Add(field, fmt.Sprintf("must not be more than %d", maxItems))
		return ""
	}
	var names []string
	for i, text := range items {
		if text == all {
			checkAny(errs, itemField(field, i), len(items), credentials)
			names = append(names, all)
			continue
		}
		name, err := parse(text)
		if err != nil {
			errs.Add(itemField(field, i), err.Error())
		} else if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// checkAny checks a "*" in a list of so many items. With credentials it would
// not mean everything in an answer, but just the character.
func checkAny(errs *store.FieldErrors, field string, items int, credentials bool) {
	if items > 1 {
		errs.Add(field, `"*" means all and must stand alone`)
	}
	if credentials {
		errs.Add(field, `"*" can't be had with credentials; name what is allowed`)
	}
}

func parseMethod(s string) (string, error) {
	method := strings.ToUpper(s)
	switch {
	case method == http.MethodConnect || method == http.MethodTrace || method == "TRACK":
		return "", fmt.Errorf("no page can use %s", method)
	case !httpguts.ValidHeaderFieldName(method): // also a token
		return "", fmt.Errorf("%q is no method", s)
	}
	return method, nil
}

func parseFieldName(s string) (string, error) {
	if !httpguts.ValidHeaderFieldName(s) {
		return "", fmt.Errorf("%q is no name of a header field", s)
	}
	return http.CanonicalHeaderKey(s), nil
}

func itemField(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
