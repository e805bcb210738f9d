package api

import (
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

// field is what the OpenAPI document and the checkers know of a field beyond its
// name and type. The types are the store's, which has no business with either.
type field struct {
	doc       string
	byDefault any
	example   any
	required  bool
	readOnly  bool
	secret    bool    // never repeated in an answer
	min, max  float64 // if they differ
	above     bool    // min itself is too small
	maxLength int     // bytes of a text, or of each text in a map or list
	maxCount  int     // items or entries
	enum      []any
}

// formatSecret marks a text that is secret, as OpenAPI has it.
const formatSecret = "password"

const maxInt32 = 1<<31 - 1

var routeFields = map[string]field{
	"id":       {doc: "The route's number, assigned by the store and never used again.", example: int64(1), required: true, readOnly: true},
	"name":     {doc: "A name for people and logs, at most 200 bytes; need not be unique. Default: none.", example: "orders", maxLength: 200},
	"host":     {doc: "The host to match: exact, a wildcard over one or more labels (*.example.com), or empty for any. In any case, without a port. Default: any.", example: "api.example.com", maxLength: 253},
	"path":     {doc: "The path pattern to match: literal segments, {name} for one segment, {name:regexp}, and last {name...} or * for the rest.", example: "/orders/{id}", required: true, maxLength: 2048},
	"method":   {doc: "The methods to match: one, a list separated by commas, or * for all. GET serves HEAD too. Default: GET.", byDefault: store.DefaultMethod, example: "GET,POST", maxLength: 1024},
	"priority": {doc: "Breaks ties between routes that are equally specific; higher first. Default: 0.", byDefault: 0, min: -maxInt32 - 1, max: maxInt32},
	"enabled":  {doc: "Whether the route is served. Default: true.", byDefault: true},
	"target_url": {doc: "The upstream's URL: http, https or h2c. The request path is appended to its path, unless that names a parameter of the pattern, which makes it a full rewrite.",
		example: "http://10.0.0.5:9000/v2/orders/{id}", required: true, maxLength: 4096},
	"rate_limit": {doc: "Units, one for a request unless limits.cost says otherwise, that each limits.key may use in any limits.window; 0 for no limit. Default: 0.", byDefault: 0, example: 100, max: ratelimit.MaxLimit},
	"timeout":    {doc: "Seconds for the whole exchange, 0 for no bound. Once an upgrade, an event stream or a gRPC answer has begun, only idle time counts. Default: 30.", byDefault: store.DefaultTimeout, max: store.MaxTimeout},

	"headers":       {doc: "Header fields that the request must carry: name to value. * asks only that the field is there. Default: none.", example: map[string]string{"X-Env": "beta"}, maxLength: 1024, maxCount: 32},
	"query":         {doc: "Query parameters that the request must carry, as for headers. Default: none.", example: map[string]string{"v": "2"}, maxLength: 1024, maxCount: 32},
	"strip_prefix":  {doc: "Whether the pattern's literal prefix, all segments before the first parameter, is removed from the path that is appended to the target's. Default: false.", byDefault: false},
	"preserve_host": {doc: "Whether the upstream sees the client's Host instead of the target's. Default: false.", byDefault: false},
	"merge_slashes": {doc: "Whether repeated slashes in the request path are merged, instead of being answered 400. Default: false.", byDefault: false},
	"upstream":      {doc: "Which targets to forward to, and how."},
	"limits":        {doc: "What the route takes on: how rate_limit is counted, further limits beside it, how large a body may be, how many requests may be in flight."},
	"cors":          {doc: "Which pages of other origins may use the route. The gateway answers their preflights, before authentication and limits, and replaces the upstream's CORS fields. Default: none; preflights are requests like any other, and what the upstream says stands."},
	"auth":          {doc: "Who may use the route. Credentials are checked before limits and plugins, and never reach the upstream. Default: none; credentials are the upstream's affair."},
	"mirror":        {doc: "Another server that gets copies of the requests. It never delays or fails them. Default: none."},
	"log":           {doc: "What the request log has of the requests. Default: all of them."},
	"plugins":       {doc: "Caddy HTTP handler modules to run in order before forwarding, each as in Caddy's JSON. Which are allowed is set in Caddy's configuration. Default: none.", maxCount: 100},
	"labels":        {doc: "Labels for people and filters. Default: none.", example: map[string]string{"team": "shop"}, maxLength: 200, maxCount: 64},
	"revision":      {doc: "The number of the last change to this route.", example: int64(1), required: true, readOnly: true},
	"created_at":    {doc: "When the route was made, in UTC.", required: true, readOnly: true},
	"updated_at":    {doc: "When the route was last changed, in UTC.", required: true, readOnly: true},
	"warnings":      {doc: "What is odd about the route that was just written, e.g. that another one hides it.", readOnly: true},
	"error":         {doc: "Why the route can't be served, e.g. after it was written by SQL. Absent if it can.", readOnly: true},
}

var limitsFields = map[string]field{
	"window": {doc: "The window in seconds. Default: 60.", byDefault: 60, min: 1, max: float64(ratelimit.MaxWindow / time.Second)},
	"key": {doc: "What is counted apart: any text with Caddy placeholders, of which {client_ip} stands for {http.vars.client_ip}. If it is nothing but that, IPv6 addresses count per /64. Default: who was authenticated if anybody was, else the client's address.",
		example: "{http.request.header.X-Tenant}", maxLength: ratelimit.MaxKey},
	"cost":    {doc: "How many units a request costs, at most the limit. Default: 1.", byDefault: 1, min: 1, max: ratelimit.MaxCost},
	"rules":   {doc: "Further limits. A request must be within rate_limit, which is the rule \"route\", and within all of them; one that is not is charged to none. Default: none.", maxCount: store.MaxLimitRules},
	"dry_run": {doc: "Whether requests over rate_limit or a rule are only reported: in the log, in a metric and in the placeholder {http.isekai.limited}. Clients are told nothing. Default: false.", byDefault: false},
	"headers": {doc: "Which response fields tell clients about their limits: ietf (RateLimit and RateLimit-Policy), legacy (X-RateLimit-*) or none. Default: the app's rate_limit.headers, which is ietf unless it is set.",
		enum: []any{"ietf", "legacy", "none"}},
	"body_max": {doc: "The most bytes of a request's body, -1 for no bound; a larger one is answered 413. Default: 0, which leaves it to the app's body_max.",
		byDefault: 0, example: 10_000_000, min: store.NoBodyMax, max: store.MaxBodyMax},
	"max_concurrent": {doc: "The most requests in flight on each gateway, 0 for no bound; more are answered 503. Open streams count. Default: 0.", byDefault: 0, example: 100, max: store.MaxMaxConcurrent},
}

var limitRuleFields = map[string]field{
	"name":   {doc: "The name, as clients see it: 1 to 64 letters, digits or any of _-.: and unlike any other of the route, \"route\" and \"consumer\". What is used belongs to the name and the window.", example: "daily", required: true, maxLength: 64},
	"limit":  {doc: "How many units each key may use in any window.", example: 10_000, required: true, min: 1, max: ratelimit.MaxLimit},
	"window": {doc: "The window in seconds. Default: 60.", byDefault: 60, example: 86_400, min: 1, max: float64(ratelimit.MaxWindow / time.Second)},
	"key":    {doc: "What is counted apart under this rule, as limits.key. Default: that.", maxLength: ratelimit.MaxKey},
	"cost":   {doc: "How many units a request costs under this rule, at most the limit. Default: limits.cost.", min: 1, max: ratelimit.MaxCost},
}

var corsFields = map[string]field{
	"origins": {doc: "The origins whose pages may ask, each one of: an origin (https://app.example.com); one with a wildcard for one or more labels (https://*.example.com); ~ and a regular expression (RE2) for the whole origin; null; or * alone for all. null and * can't be had with credentials. Must not be empty. Default: *; required with credentials.",
		example: []string{"https://app.example.com", `~https://pr-[0-9]+\.example\.dev`}, maxLength: cors.MaxOrigin, maxCount: cors.MaxItems},
	"methods": {doc: "The methods that pages may use, or * alone for every method, which can't be had with credentials. Default: the route's own; if these are * and credentials are allowed, the usual ones.",
		example: []string{"GET", "PUT"}, maxLength: cors.MaxName, maxCount: cors.MaxItems},
	"headers": {doc: "The request header fields that pages may set beside those that browsers always let them set, or * alone for every field, which can't be had with credentials. Default: none.",
		example: []string{"Authorization", "Content-Type"}, maxLength: cors.MaxName, maxCount: cors.MaxItems},
	"expose_headers": {doc: "The response header fields, such as X-Request-Id and RateLimit, that pages may read beside those that browsers always let them read, or * alone for every field, which can't be had with credentials. Default: none.",
		example: []string{"X-Request-Id", "RateLimit"}, maxLength: cors.MaxName, maxCount: cors.MaxItems},
	"credentials":     {doc: "Whether pages may send cookies, HTTP authentication and client certificates and read the answer. Default: false.", byDefault: false},
	"max_age":         {doc: "How many seconds browsers may keep the answer to a preflight; -1 tells them not to. Default: 0, which leaves it to them (5 seconds).", byDefault: 0, example: 600, min: -1, max: cors.MaxMaxAge},
	"private_network": {doc: "Whether pages from the Internet may reach the route in a private network, for browsers that ask. Default: false.", byDefault: false},
}

var mirrorFields = map[string]field{
	"target_url": {doc: "Where copies go: http, https or h2c, under the same rules as the route's target_url. The path that the upstream gets is appended to its path, which can name no parameters.",
		example: "http://10.0.0.9:9000", required: true, maxLength: 4096},
	"sample":   {doc: "The part of the requests that is copied, above 0, at random. Default: 1, all of them.", byDefault: mirror.DefaultSample, above: true, max: 1, example: 0.1},
	"body_max": {doc: "The most bytes of a request's body; requests with longer ones are not copied. Default: 65536.", byDefault: mirror.DefaultBodyMax, min: 1, max: mirror.MaxBodyMax},
	"timeout":  {doc: "How many seconds the mirror may take to answer a copy, connecting included. Default: 10.", byDefault: int(mirror.DefaultTimeout / time.Second), min: 1, max: float64(mirror.MaxTimeout / time.Second)},
}

var logFields = map[string]field{
	"sample":  {doc: "The part of the requests that is logged, above 0, by lot. Default: the app's, which is 1.", byDefault: 1.0, above: true, max: 1, example: 0.1},
	"off":     {doc: "Whether none is logged. Default: false.", byDefault: false},
	"headers": {doc: "The names of header fields of requests to log, at most 32. Values of credentials are logged as \"***\". Default: none.", example: []string{"Referer"}},
	"query":   {doc: "Whether the query is logged, but for the values of secret parameters. Default: false.", byDefault: false},
}

// TransformSchema implements huma.SchemaTransformer.
func (route) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	describe(s, routeFields)
	s.Properties["plugins"].Items = &huma.Schema{
		Type:                 huma.TypeObject,
		Description:          "A handler: its module's name in \"handler\", and that module's settings.",
		Properties:           map[string]*huma.Schema{"handler": {Type: huma.TypeString, Examples: []any{"headers"}}},
		AdditionalProperties: true,
		Required:             []string{"handler"},
	}
	describeUpstream(r, s.Properties["upstream"])
	limits := r.SchemaFromRef(s.Properties["limits"].Ref)
	describe(limits, limitsFields)
	describe(r.SchemaFromRef(limits.Properties["rules"].Items.Ref), limitRuleFields)
	describe(r.SchemaFromRef(s.Properties["mirror"].Ref), mirrorFields)
	describe(r.SchemaFromRef(s.Properties["log"].Ref), logFields)
	describe(r.SchemaFromRef(s.Properties["cors"].Ref), corsFields)
	describe(r.SchemaFromRef(s.Properties["auth"].Ref), authFields)
	return s
}

// describe adds what is known of the fields to the schema that huma has made.
func describe(s *huma.Schema, fields map[string]field) {
	s.Required = nil
	for name, p := range s.Properties {
		fields[name].describe(p)
		if fields[name].required {
			s.Required = append(s.Required, name)
		}
	}
	slices.Sort(s.Required)
}

func (f field) describe(s *huma.Schema) {
	s.Description = f.doc
	s.Default = f.byDefault
	s.ReadOnly = f.readOnly
	if f.secret {
		s.Format = formatSecret
	}
	s.Enum = f.enum
	if f.example != nil {
		s.Examples = []any{f.example}
	}
	if f.min != f.max {
		s.Minimum, s.Maximum = &f.min, &f.max
	}
	if f.above {
		s.Minimum, s.ExclusiveMinimum = nil, &f.min
	}
	text := s
	if values, ok := s.AdditionalProperties.(*huma.Schema); ok {
		text = values
	} else if f.maxLength > 0 && s.Type == huma.TypeArray {
		text = s.Items
	}
	if f.maxLength > 0 {
		text.MaxLength = &f.maxLength
	}
	if f.maxCount > 0 && s.Type == huma.TypeArray {
		s.MaxItems = &f.maxCount
	} else if f.maxCount > 0 {
		s.MaxProperties = &f.maxCount
	}
}
