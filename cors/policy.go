package cors

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// ErrOrigin says that a preflight came from an origin that is not allowed.
var ErrOrigin = errors.New("the origin is not allowed")

// maxReflected bounds what is repeated of Access-Control-Request-Headers.
const maxReflected = 4096

// The fields of the protocol.
const (
	allowOrigin         = "Access-Control-Allow-Origin"
	allowCredentials    = "Access-Control-Allow-Credentials"
	allowMethods        = "Access-Control-Allow-Methods"
	allowHeaders        = "Access-Control-Allow-Headers"
	allowPrivateNetwork = "Access-Control-Allow-Private-Network"
	exposeHeaders       = "Access-Control-Expose-Headers"
	maxAge              = "Access-Control-Max-Age"

	requestMethod         = "Access-Control-Request-Method"
	requestHeaders        = "Access-Control-Request-Headers"
	requestPrivateNetwork = "Access-Control-Request-Private-Network"

	// The canonical form of what all of them begin with.
	fieldPrefix = "Access-Control-"
)

// What answers depend on.
var (
	varyOrigin         = []string{"Origin"}
	varyPreflight      = []string{"Origin", requestMethod, requestHeaders}
	varyPrivateNetwork = []string{"Origin", requestMethod, requestHeaders, requestPrivateNetwork}
)

// Policy edits the headers of answers. It is immutable and safe for concurrent
// use.
//
// Origins are compared byte for byte, as browsers do: they send them in lower
// case and without a default port.
type Policy struct {
	any       bool // all origins
	exact     map[string]struct{}
	wildcards []wildcard
	patterns  []*regexp.Regexp

	credentials    bool
	privateNetwork bool

	// Values of fields; a field whose value is empty is left out.
	methods string
	headers string
	expose  string
	maxAge  string

	vary []string // of a preflight
}

// IsPreflight says whether r is a CORS-preflight request: OPTIONS with an Origin
// and the method that the page means to use. That method, not OPTIONS, is the
// one to find a route by. Any other OPTIONS request is the resource's own matter.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && RequestMethod(r) != ""
}

// Preflight makes h the header of the answer to a preflight and says whether its
// origin is allowed. If so, the answer is to be a 204. If not, h has none of the
// fields that a browser looks for, and a 403 tells everyone else, as the Fetch
// standard proposes for a server that wants to be explicit about it.
//
// The answer to an allowed origin names all methods and fields that are allowed,
// whatever was asked for: the browser compares them and its console can say which
// is missing, and what was not asked for need not be asked for later.
func (p *Policy) Preflight(h http.Header, r *http.Request) (allowed bool) {
	removeFields(h)
	addVary(h, p.vary)
	origin := p.allow(Origin(r))
	if origin == "" {
		return false
	}
	p.share(h, origin)
	set(h, allowMethods, p.methods)
	set(h, maxAge, p.maxAge)
	if p.headers == all {
		set(h, allowHeaders, reflected(r.Header[requestHeaders]))
	} else {
		set(h, allowHeaders, p.headers)
	}
	if p.privateNetwork && r.Header.Get(requestPrivateNetwork) == "true" {
		set(h, allowPrivateNetwork, "true")
	}
	return true
}

// Apply puts the policy's fields into h, the complete header of the answer to a
// request that is no preflight, in place of all that are there. Vary names Origin
// also if the request has none or one that is not allowed, since another one
// could get another answer from a cache. Only if all origins are allowed the
// answer is the same for all.
func (p *Policy) Apply(h http.Header, r *http.Request) { p.ApplyTo(h, Origin(r)) }

// ApplyTo is Apply for a request with this Origin, for when handlers may have
// changed the request since it came.
func (p *Policy) ApplyTo(h http.Header, origin string) {
	removeFields(h)
	if !p.any {
		addVary(h, varyOrigin)
	}
	if origin := p.allow(origin); origin != "" {
		p.share(h, origin)
		set(h, exposeHeaders, p.expose)
	}
}

// share writes what preflights and other requests are answered alike.
func (p *Policy) share(h http.Header, origin string) {
	set(h, allowOrigin, origin)
	if p.credentials {
		set(h, allowCredentials, "true")
	}
}

// Origin returns a request's origin, empty if it has none or several.
func Origin(r *http.Request) string {
	if values := r.Header["Origin"]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// RequestMethod returns the method that a preflight asks about.
func RequestMethod(r *http.Request) string { return r.Header.Get(requestMethod) }

// allow returns the value of Access-Control-Allow-Origin, empty if the request's
// origin is not allowed.
func (p *Policy) allow(origin string) string {
	if p.any {
		return all
	}
	if origin == "" || len(origin) > MaxOrigin {
		return ""
	}
	if _, ok := p.exact[origin]; ok {
		return origin
	}
	for _, w := range p.wildcards {
		if w.match(origin) {
			return origin
		}
	}
	if len(p.patterns) == 0 || !isSerialized(origin) {
		return ""
	}
	for _, pattern := range p.patterns {
		if pattern.MatchString(origin) {
			return origin
		}
	}
	return ""
}

// set gives h a slice of its own: Caddy's headers handler edits values in place.
func set(h http.Header, field, value string) {
	if value != "" {
		h[field] = []string{value}
	}
}

// removeFields removes all fields of the protocol, also those whose names a
// handler has not put in canonical form.
func removeFields(h http.Header) {
	for field := range h {
		if len(field) > len(fieldPrefix) && strings.EqualFold(field[:len(fieldPrefix)], fieldPrefix) {
			delete(h, field)
		}
	}
}

// addVary adds those names to Vary that it does not have. The result is a single
// line, since some caches read only the first.
func addVary(h http.Header, names []string) {
	values := h["Vary"]
	line := strings.Join(values, ", ")
	before := len(line)
	for _, name := range names {
		if listed(values, name) {
			continue
		}
		if line != "" {
			line += ", "
		}
		line += name
	}
	if len(line) > before || len(values) > 1 {
		h["Vary"] = []string{line}
	}
}

// listed says whether a Vary of these values has name.
func listed(values []string, name string) bool {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.Trim(item, " \t"); item == all || strings.EqualFold(item, name) {
				return true
			}
		}
	}
	return false
}

// reflected returns the field names of Access-Control-Request-Headers, or
// nothing if it is not a list of such. Browsers send one line without spaces, but
// proxies may have split it.
func reflected(values []string) string {
	line := strings.Join(values, ",")
	if len(line) > maxReflected {
		return ""
	}
	for item := range strings.SplitSeq(line, ",") {
		item = strings.Trim(item, " \t")
		if item != "" && !httpguts.ValidHeaderFieldName(item) {
			return ""
		}
	}
	return line
}
