package api

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/proxy"
)

var upstreamFields = map[string]field{
	"targets":         {doc: "The targets among which requests are balanced, in place of the host and port of target_url, whose scheme they share and whose path applies to all of them. Default: the one of target_url.", maxCount: proxy.MaxTargets},
	"policy":          {doc: "How a target is chosen: one of Caddy's selection policies. Default: round_robin.", byDefault: "round_robin", enum: anyOf(proxy.Policies)},
	"policy_options":  {doc: `The policy's options, as in Caddy's JSON: "choose" of random_choose, "field" and "fallback" of header, "key" and "fallback" of query, "name", "secret", "max_age" and "fallback" of cookie. Default: none.`, example: map[string]string{"field": "X-User"}},
	"retries":         {doc: "How often a request may be tried again, see retry; 0 for never. Default: one less than there are targets, at most 2.", max: proxy.MaxRetries},
	"retry":           {doc: "Which requests are tried again. A request goes on from a target that can't be connected to in any case; after another failure only one that may be seen twice is repeated."},
	"health":          {doc: "How unhealthy targets are found out. They get no requests. Default: not at all."},
	"circuit_breaker": {doc: "Keeps requests from a target that fails too many of them: it gets none for a while, and after that a few, on which it depends whether it gets all again. Failures are those to connect or to answer, statuses, and slowness. Default: none."},
	"timeouts":        {doc: "Bounds of single steps of the exchange with a target."},
	"protocol": {doc: `"auto" (HTTP/1.1 or, over TLS, HTTP/2 if negotiated), "http1", "http2" (over TLS only) or "h2c" (HTTP/2 without TLS). Default: auto, or h2c for a target_url with that scheme.`,
		enum: []any{"auto", "http1", "http2", "h2c"}},
	"tls": {doc: "TLS settings for an https target."},
}

var targetFields = map[string]field{
	"url":          {doc: "Where to connect: scheme, host and port, without a path.", example: "http://10.0.0.5:9000", required: true, maxLength: 4096},
	"weight":       {doc: "The target's share of the requests in relation to the others'; 0 gives it none. Policies that can't weigh (first, least_conn, random_choose) refuse weights that differ. Default: 1.", byDefault: 1, max: proxy.MaxWeight},
	"max_requests": {doc: "The most requests in flight to this target; beyond it, others are taken. Default: 0, no bound.", byDefault: 0, max: proxy.MaxCount},
}

var retryFields = map[string]field{
	"methods":        {doc: "The methods that may be repeated once a target may have seen the request. Default: GET, HEAD, OPTIONS, PUT, DELETE.", example: []string{"GET", "POST"}, maxCount: 16},
	"statuses":       {doc: "The statuses of answers that count as failures to repeat. Default: none.", example: []int{502, 503}, maxCount: 64},
	"body_max":       {doc: "The most bytes of a request's body that are kept for a repetition; requests with longer bodies are not repeated. Default: 65536.", byDefault: 65536, min: 1, max: proxy.MaxReplayBytes},
	"backoff":        {doc: "Seconds to wait before the same target is tried again; others are tried at once. Default: 0.05.", byDefault: 0.05, min: 0.001, max: proxy.MaxSeconds},
	"budget_percent": {doc: "Repetitions, in per cent of the pool's requests of the last 10 seconds. Default: 20.", byDefault: 20, max: 100},
	"budget_min":     {doc: "Repetitions per second that are allowed however few requests there are. Default: 3.", byDefault: 3, max: 1000},
}

var healthFields = map[string]field{
	"active":  {doc: "Asks each target from time to time. {} takes the defaults. Default: no."},
	"passive": {doc: "Counts each target's failures to connect or to answer, and the answers named here. It is a suspicion: if it leaves no target at all, suspected ones are tried. {} takes the defaults. Default: no."},
}

var activeFields = map[string]field{
	"path":          {doc: "The path to ask for, with a query if needed. Default: /.", byDefault: "/", example: "/healthz", maxLength: 16 << 10},
	"method":        {doc: "The method. Default: GET.", byDefault: "GET", maxLength: 64},
	"host":          {doc: "The Host to send. Default: the target's.", maxLength: 253},
	"headers":       {doc: "Header fields to send. Default: none.", maxLength: 1024, maxCount: 32},
	"body":          {doc: "The request's body. Default: none.", maxLength: 16 << 10},
	"interval":      {doc: "Seconds between two requests. Default: 30.", byDefault: 30, min: 0.001, max: proxy.MaxSeconds},
	"timeout":       {doc: "Seconds to wait for the answer. Default: 5.", byDefault: 5, min: 0.001, max: proxy.MaxSeconds},
	"expect_status": {doc: "The status that a healthy target answers, or the first digit of several. Default: 2.", byDefault: 2, min: 1, max: 599},
	"expect_body":   {doc: "A regular expression (RE2) that is found in a healthy target's answer, of which 64 KiB are read. Default: none.", maxLength: 1024},
	"passes":        {doc: "How many checks in a row must pass until a target is healthy again. Default: 1.", byDefault: 1, min: 1, max: proxy.MaxCount},
	"fails":         {doc: "How many checks in a row must fail until a target is unhealthy. Default: 1.", byDefault: 1, min: 1, max: proxy.MaxCount},
}

var passiveFields = map[string]field{
	"max_fails":         {doc: "How many failures within fail_duration make a target unhealthy. Default: 3.", byDefault: 3, min: 1, max: proxy.MaxCount},
	"fail_duration":     {doc: "Seconds for which a failure counts. Default: 30.", byDefault: 30, min: 0.001, max: proxy.MaxSeconds},
	"unhealthy_status":  {doc: "The statuses that are failures, or the first digits of several. Default: none.", example: []int{500, 503}, maxCount: 64},
	"unhealthy_latency": {doc: "Seconds after which an answer that has not begun is a failure; 0 for never. Default: 0.", byDefault: 0, max: proxy.MaxSeconds},
}

var breakerFields = map[string]field{
	"failure_ratio": {doc: "The share of failures, above 0 and up to 1, at which it opens. Default: 0.5.", byDefault: 0.5, above: true, max: 1},
	"min_requests":  {doc: "The requests in the window below which it does not open. Default: 20.", byDefault: 20, min: 1, max: proxy.MaxCount},
	"window":        {doc: "The window, in seconds, that slides over the requests that count. Default: 10.", byDefault: 10, min: 0.001, max: proxy.MaxSeconds},
	"open_for":      {doc: "Seconds that it stays open before it tries. Default: 10.", byDefault: 10, min: 0.001, max: proxy.MaxSeconds},
	"probes":        {doc: "How many requests are let through to try, all of which must succeed. Default: 3.", byDefault: 3, min: 1, max: proxy.MaxCount},
	"statuses":      {doc: "The statuses that are failures, or the first digits of several. Default: 5.", example: []int{500, 503}, maxCount: 64},
	"slow":          {doc: "Seconds after which an answer that has not begun is a failure; 0 for never. Default: 0.", byDefault: 0, max: proxy.MaxSeconds},
}

var timeoutFields = map[string]field{
	"connect":         {doc: "Seconds that connecting may take, without TLS. Default: 5.", byDefault: 5, min: 0.001, max: proxy.MaxSeconds},
	"response_header": {doc: "Seconds that the answer's header may take once the request was sent; 0 for as long as the route's timeout. Default: 0.", byDefault: 0, max: proxy.MaxSeconds},
	"idle":            {doc: "Seconds that the target may be silent between two parts of the answer's body; 0 for as long as the route's timeout. Default: 0.", byDefault: 0, max: proxy.MaxSeconds},
}

var tlsFields = map[string]field{
	"server_name":          {doc: "The name to send as SNI and to verify. Default: the target's host.", example: "orders.internal", maxLength: 253},
	"ca":                   {doc: "Certificates to trust instead of the system's roots, in PEM. Default: the system's roots.", maxLength: 256 << 10},
	"certificate":          {doc: "The client certificate to present to a server that asks for one, in PEM, followed by those that lead to its CA, if any. Needs key. Default: none.", maxLength: 64 << 10},
	"key":                  {doc: `The private key of certificate, in PEM and not encrypted. Answers show "***" in its place; sent back with the same certificate, that keeps the stored key. Default: none.`, secret: true, maxLength: 32 << 10},
	"insecure_skip_verify": {doc: "Whether the certificate is not verified at all; only for tests. Default: false.", byDefault: false},
}

// describeUpstream describes the schema that s refers to, and those in it.
func describeUpstream(r huma.Registry, s *huma.Schema) {
	upstream := r.SchemaFromRef(s.Ref)
	inner := func(of *huma.Schema, name string) *huma.Schema { return r.SchemaFromRef(of.Properties[name].Ref) }
	describe(upstream, upstreamFields)
	// Raw JSON has no type of its own.
	options := upstream.Properties["policy_options"]
	options.Type, options.AdditionalProperties = huma.TypeObject, true
	describe(r.SchemaFromRef(upstream.Properties["targets"].Items.Ref), targetFields)
	describe(inner(upstream, "retry"), retryFields)
	describe(inner(upstream, "circuit_breaker"), breakerFields)
	describe(inner(upstream, "timeouts"), timeoutFields)
	describe(inner(upstream, "tls"), tlsFields)
	health := inner(upstream, "health")
	describe(health, healthFields)
	describe(inner(health, "active"), activeFields)
	describe(inner(health, "passive"), passiveFields)
}

func anyOf(names []string) []any {
	out := make([]any, len(names))
	for i, name := range names {
		out[i] = name
	}
	return out
}
