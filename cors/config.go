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

// Bounds of a Config.
const (
	// MaxItems is the most items of each list.
	MaxItems = 100

	// MaxOrigin is the length of an origin in bytes, that of requests too, and of a
	// regular expression. A host name has at most 253 bytes.
	MaxOrigin = 512

	// MaxName is the length of a method or of a header field's name in bytes.
	MaxName = 256

	// MaxMaxAge is the longest max_age in seconds, a day. No browser keeps the
	// answer to a preflight for longer: Firefox takes a day, Chromium two hours.
	MaxMaxAge = 86400
)

// all is what stands for every origin, method or header.
const all = "*"

// Config is what a policy is made of, with the fields and defaults of store.CORS:
// the zero value lets every page read a resource, without credentials.
type Config store.CORS

// Validate returns nil, or store.FieldErrors with everything that is wrong. The
// fields are relative to the Config, e.g. "origins[0]".
func (c Config) Validate() error {
	_, err := New(c)
	return err
}

// WithDefaultMethods returns a Config that names these methods if c names none:
// those of a route, "*" alone for all. With credentials, which no "*" allows,
// that is the usual methods. Methods that no page can use are left out.
func (c Config) WithDefaultMethods(methods []string) Config {
	if len(c.Methods) > 0 {
		return c
	}
	c.Methods = slices.DeleteFunc(slices.Clone(methods), func(method string) bool {
		if method == all {
			return false
		}
		_, err := parseMethod(method)
		return err != nil
	})
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
		switch {
		case c.Credentials:
			errs.Add(field, "must be named if credentials are allowed")
		case c.Origins != nil:
			// Whoever takes the last origin out of a list does not mean all of them.
			errs.Add(field, "must not be empty; leave it out for every origin")
		}
		return
	}
	if len(c.Origins) > MaxItems {
		errs.Add(field, fmt.Sprintf("must not be more than %d", MaxItems))
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
	if len(items) > MaxItems {
		errs.Add(field, fmt.Sprintf("must not be more than %d", MaxItems))
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

var errLongName = fmt.Errorf("must not be longer than %d bytes", MaxName)

func parseMethod(s string) (string, error) {
	method := strings.ToUpper(s)
	switch {
	case len(s) > MaxName:
		return "", errLongName
	case method == http.MethodConnect || method == http.MethodTrace || method == "TRACK":
		return "", fmt.Errorf("no page can use %s", method)
	case !httpguts.ValidHeaderFieldName(method): // also a token
		return "", fmt.Errorf("%q is no method", s)
	}
	return method, nil
}

func parseFieldName(s string) (string, error) {
	if len(s) > MaxName {
		return "", errLongName
	}
	if !httpguts.ValidHeaderFieldName(s) {
		return "", fmt.Errorf("%q is no name of a header field", s)
	}
	return http.CanonicalHeaderKey(s), nil
}

func itemField(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }
