package store

import (
	"encoding/json"
	"time"
)

// Route is one row of the routes table: what to match, where to forward, and
// under which policies. Only Path and TargetURL are required; [NewRoute] fills the
// other columns as the schema would.
//
// A Route read from a Store is shared by concurrent requests and must not be
// modified; copy it first.
type Route struct {
	// The route's number, assigned by the store and never reused.
	ID int64 `json:"id"`

	// A name for people and logs. Optional, at most 200 bytes, not unique.
	Name string `json:"name,omitempty"`

	// The host to match: exact ("api.example.com"), a wildcard over one or more
	// labels ("*.example.com"), or empty for any host. Lower case, no port.
	Host string `json:"host,omitempty"`

	// The path pattern to match, e.g. "/orders/{id}" or "/static/*". Required.
	Path string `json:"path"`

	// The methods to match: one ("GET"), a comma-separated list ("GET,POST"), or
	// "*" for all. GET also serves HEAD. Default: "GET".
	Method string `json:"method"`

	// The upstream's URL, "http://", "https://" or "h2c://". The request path is
	// appended to its path, unless its path names a parameter of the pattern
	// ("/v2/{id}"), which makes it a full rewrite. Required.
	TargetURL string `json:"target_url"`

	// Whether the route is served. Default: true.
	Enabled bool `json:"enabled"`

	// Requests admitted per limits.window seconds and limits.key. 0 means no
	// limit. Default: 0.
	RateLimit int `json:"rate_limit"`

	// Seconds for the whole exchange, 0 for no bound. Once an upgrade, an
	// event stream or a gRPC answer has begun, only idle time counts. Default: 30.
	Timeout int `json:"timeout"`

	// Breaks ties between routes of equal specificity; higher first. Default: 0.
	Priority int `json:"priority"`

	Spec

	// The number of the last change to this route.
	Revision int64 `json:"revision"`

	// When the row was made and last changed, in UTC.
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	// When the route was deleted; nil for a live route. Deleted rows stay, so
	// that the request log keeps its route and the route can be restored.
	DeletedAt *time.Time `json:"-"`

	// What the route matches apart from its methods, in a normal form in which
	// parameter names don't count: two live routes with equal keys and a method
	// in common are a conflict. Set by the caller of a write (routing.MatchKey);
	// empty in rows written by plain SQL, which conflict with nothing.
	MatchKey string `json:"-"`

	// Why the row could not be decoded, e.g. a spec written by hand in SQL with
	// an unknown field. Such a route is listed with this text, never served.
	DecodeError string `json:"-"`
}

// Spec holds a route's optional policy. It is stored as one JSON document in
// the column spec, and its fields stand beside the classic ones in the API.
type Spec struct {
	// Header fields that the request must carry: name to value. A value matches
	// exactly and case-sensitively; "*" asks only that the field is present.
	Headers map[string]string `json:"headers,omitempty"`

	// Query parameters that the request must carry, as for Headers.
	Query map[string]string `json:"query,omitempty"`

	// Whether the pattern's literal prefix (all segments before the first
	// parameter) is removed from the path that is appended to the target's.
	// Default: false.
	StripPrefix bool `json:"strip_prefix,omitempty"`

	// Whether the upstream sees the client's Host instead of the target's.
	// Default: false.
	PreserveHost bool `json:"preserve_host,omitempty"`

	// Whether repeated slashes in the request path are merged before matching
	// and forwarding, instead of being answered 400. Default: false.
	MergeSlashes bool `json:"merge_slashes,omitempty"`

	// Which targets to forward to, and how.
	Upstream *Upstream `json:"upstream,omitempty"`

	// What the route takes on: how rate_limit is counted, how large a body may be
	// and how many requests may be in flight.
	Limits *Limits `json:"limits,omitempty"`

	// Another server that gets copies of the route's requests. Default: none.
	Mirror *Mirror `json:"mirror,omitempty"`

	// Which pages of other origins may use the route. Nil means that the gateway
	// has no part in it: preflights are requests like any other, and what the
	// upstream says stands. Default: nil.
	CORS *CORS `json:"cors,omitempty"`

	// What the request log has of the route's requests. Default: all of them.
	Log *Log `json:"log,omitempty"`

	// Who may use the route. Nil means that the gateway has no part in it: credentials
	// go on to the upstream. Default: nil.
	Auth *Auth `json:"auth,omitempty"`

	// Caddy HTTP handler modules to run, in order, before forwarding; each is an
	// object with the key "handler", as in Caddy's JSON. Which modules may stand
	// here is the allow-list "plugins" of the isekai app.
	Plugins []json.RawMessage `json:"plugins,omitempty"`

	// Free-form labels for people and filters.
	Labels map[string]string `json:"labels,omitempty"`
}

// Limits is what a route takes on.
type Limits struct {
	// The window in seconds, 1 to 2,678,400 (31 days). Default: 60.
	Window int `json:"window,omitempty"`

	// What is counted apart: any text with Caddy placeholders, of which
	// "{client_ip}" stands for "{http.vars.client_ip}". If it is nothing but that,
	// IPv6 addresses are counted by their /64. Default: who was authenticated if
	// anybody was, else the client's address.
	Key string `json:"key,omitempty"`

	// How many units a request costs, 1 to 1,000,000 and at most the limit.
	// Default: 1.
	Cost int `json:"cost,omitempty"`

	// Further limits, up to 7. A request must be within rate_limit, which is the
	// rule "route", and within all of them; one that is not is charged to none.
	Rules []LimitRule `json:"rules,omitempty"`

	// Whether requests that are over rate_limit or a rule are only reported: by a
	// line in the log, a metric and the placeholder {http.isekai.limited}. Clients
	// are told nothing. Default: false.
	DryRun bool `json:"dry_run,omitempty"`

	// Which response fields tell clients about their limits: "ietf" (RateLimit and
	// RateLimit-Policy), "legacy" (X-RateLimit-*) or "none". Default: the isekai
	// app's rate_limit.headers.
	Headers string `json:"headers,omitempty"`

	// The most bytes of a request's body, up to 1,099,511,627,776 (1 TiB); -1 means
	// no bound. A larger one is answered 413. Default: 0, which leaves it to the
	// isekai app's body_max.
	BodyMax int64 `json:"body_max,omitempty"`

	// The most requests in flight on each gateway, up to 1,000,000; open streams
	// count. More are answered 503. Default: 0, no bound.
	MaxConcurrent int `json:"max_concurrent,omitempty"`
}

// LimitRule is a limit beside the route's rate_limit.
type LimitRule struct {
	// The name, as clients see it: up to 64 letters, digits or any of "_-.:",
	// unlike any other of the route, "route" and "consumer". What is used belongs
	// to the name and the window. Required.
	Name string `json:"name"`

	// How many units each key may use in any window, 1 to 1,000,000,000. Required.
	Limit int `json:"limit"`

	// The window in seconds, 1 to 2,678,400 (31 days). Default: 60.
	Window int `json:"window,omitempty"`

	// What is counted apart under this rule, as Limits.Key. Default: that.
	Key string `json:"key,omitempty"`

	// How many units a request costs under this rule, 1 to 1,000,000 and at most
	// Limit. Default: Limits.Cost.
	Cost int `json:"cost,omitempty"`
}

// Mirror is a server that gets copies of a route's requests, with the path and the
// header that the upstream gets. Its answers are thrown away, and nothing that it
// does delays or fails the request.
type Mirror struct {
	// The mirror's URL, "http://", "https://" or "h2c://". The upstream's path is
	// appended to its path, which can name no parameters. Required.
	TargetURL string `json:"target_url"`

	// The part of the requests that is copied, above 0 and at most 1, at random.
	// Default: 1, all of them.
	Sample *float64 `json:"sample,omitempty"`

	// The most bytes of a request's body, 1 to 1,048,576; requests with longer
	// ones are not copied. Default: 65536.
	BodyMax int `json:"body_max,omitempty"`

	// How many seconds the mirror may take to answer a copy, 1 to 60, connecting
	// included. Default: 10.
	Timeout int `json:"timeout,omitempty"`
}

// Log says which requests of a route are logged.
type Log struct {
	// The part of the requests that is logged, above 0 and at most 1, by lot.
	// Default: the isekai app's, which is all of them.
	Sample *float64 `json:"sample,omitempty"`

	// Whether none is logged. Default: false.
	Off bool `json:"off,omitempty"`

	// The names of header fields of requests to log, at most 32. Values of
	// credentials are logged as "***". Default: none.
	Headers []string `json:"headers,omitempty"`

	// Whether the query is logged, but for the values of secret parameters. Default:
	// false.
	Query bool `json:"query,omitempty"`
}

// Bounds of Limits.
const (
	NoBodyMax        = -1      // the BodyMax of a route without a bound
	MaxBodyMax       = 1 << 40 // bytes, 1 TiB
	MaxMaxConcurrent = 1_000_000
	MaxLimitRules    = 7 // beside rate_limit
	MaxLogHeaders    = 32
)

// Defaults and bounds of the classic columns.
const (
	DefaultMethod  = "GET"
	DefaultTimeout = 30     // seconds
	MaxTimeout     = 86_400 // seconds, a day
)

// NewRoute returns an enabled route for path and target with the defaults of
// the schema.
func NewRoute(path, targetURL string) *Route {
	return &Route{Path: path, TargetURL: targetURL, Method: DefaultMethod, Enabled: true, Timeout: DefaultTimeout}
}
