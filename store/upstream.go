package store

import (
	"encoding/json"
	"time"
)

// Upstream is a route's pool of targets and how its forwarder deals with them.
// Routes with equal settings and target addresses share one pool with all of its
// state. All lengths of time are in seconds and may have fractions.
type Upstream struct {
	// The targets among which requests are balanced, in place of the host and port
	// of target_url, whose scheme they share and whose path applies to all of them.
	// Default: the one of target_url.
	Targets []UpstreamTarget `json:"targets,omitempty"`

	// How a target is chosen, by the name of one of Caddy's selection policies:
	// "random", "random_choose", "least_conn", "round_robin",
	// "weighted_round_robin", "first", "ip_hash", "client_ip_hash", "uri_hash",
	// "header", "query" or "cookie". Default: "round_robin".
	Policy string `json:"policy,omitempty"`

	// The options of that policy, as in Caddy's JSON: "choose" of random_choose,
	// "field" and "fallback" of header, "key" and "fallback" of query, "name",
	// "secret", "max_age" and "fallback" of cookie. Default: none.
	PolicyOptions json.RawMessage `json:"policy_options,omitempty"`

	// How often a request may be tried again, see Retry. 0 means never. Default:
	// one less than there are targets, at most 2.
	Retries *int `json:"retries,omitempty"`

	// Which requests are tried again.
	Retry *Retry `json:"retry,omitempty"`

	// How unhealthy targets are found out. Default: not at all.
	Health *HealthChecks `json:"health,omitempty"`

	// Keeps requests from a target that fails too many of them. Default: none.
	CircuitBreaker *CircuitBreaker `json:"circuit_breaker,omitempty"`

	// Bounds of single steps of the exchange with a target.
	Timeouts *UpstreamTimeouts `json:"timeouts,omitempty"`

	// The protocol: "auto" (HTTP/1.1 or, over TLS, HTTP/2 if negotiated),
	// "http1", "http2" (over TLS only) or "h2c" (HTTP/2 without TLS, e.g. for
	// gRPC). Default: "auto", or "h2c" for a target_url with that scheme.
	Protocol string `json:"protocol,omitempty"`

	// TLS settings for an https target.
	TLS *UpstreamTLS `json:"tls,omitempty"`
}

// UpstreamTarget is one member of a pool.
type UpstreamTarget struct {
	// Where to connect: scheme, host and port, without a path. Required.
	URL string `json:"url"`

	// The target's share of the requests in relation to the others'. 0 gives it
	// none. Policies that can't weigh (first, least_conn, random_choose) refuse
	// weights that differ. Default: 1.
	Weight *int `json:"weight,omitempty"`

	// The most requests in flight to this target, over all routes on this node
	// that share its checks. Default: 0, no bound.
	MaxRequests int `json:"max_requests,omitempty"`
}

// Retry says which requests are tried again. A target that can't be connected to
// has seen nothing of the request, so that any request goes on to another target.
// After any other failure only a request is repeated that the target may see twice.
// Repetitions, but not connecting elsewhere, have a budget, so that a dead
// upstream does not get more requests than a live one.
type Retry struct {
	// The methods that may be repeated once a target may have seen the request.
	// Default: those idempotent by RFC 9110: GET, HEAD, OPTIONS, PUT, DELETE.
	Methods []string `json:"methods,omitempty"`

	// The statuses of answers that count as failures to repeat. Default: none.
	Statuses []int `json:"statuses,omitempty"`

	// The most bytes of a request's body that are kept for a repetition; requests
	// with longer bodies are not repeated. Default: 65536.
	BodyMax int64 `json:"body_max,omitempty"`

	// How long to wait before the same target is tried again. Other targets are
	// tried at once. Default: 0.05.
	Backoff Seconds `json:"backoff,omitempty"`

	// Repetitions, in per cent of the pool's requests of the last 10 seconds.
	// Default: 20.
	BudgetPercent *float64 `json:"budget_percent,omitempty"`

	// Repetitions per second that are allowed however few requests there are.
	// Default: 3.
	BudgetMin *float64 `json:"budget_min,omitempty"`
}

// HealthChecks is how a pool finds out unhealthy targets. They get no requests.
type HealthChecks struct {
	// Asks each target from time to time. Default: no.
	Active *ActiveHealth `json:"active,omitempty"`

	// Watches the answers to requests. Default: no.
	Passive *PassiveHealth `json:"passive,omitempty"`
}

// ActiveHealth is a request that is sent to each target from time to time, also
// while no request is.
type ActiveHealth struct {
	// The path to ask for, with a query if needed. Default: "/".
	Path string `json:"path,omitempty"`

	// The method. Default: "GET".
	Method string `json:"method,omitempty"`

	// The Host to send. Default: the target's.
	Host string `json:"host,omitempty"`

	// Header fields to send.
	Headers map[string]string `json:"headers,omitempty"`

	// The request's body. Default: none.
	Body string `json:"body,omitempty"`

	// How often to ask. Default: 30.
	Interval Seconds `json:"interval,omitempty"`

	// How long to wait for the answer. Default: 5.
	Timeout Seconds `json:"timeout,omitempty"`

	// The status that a healthy target answers, or the first digit of several, as
	// 2. Default: 2.
	ExpectStatus int `json:"expect_status,omitempty"`

	// A regular expression (RE2) that is found in a healthy target's answer, of
	// which 64 KiB are read. Default: none.
	ExpectBody string `json:"expect_body,omitempty"`

	// How many checks in a row must pass until a target is healthy again.
	// Default: 1.
	Passes int `json:"passes,omitempty"`

	// How many checks in a row must fail until a target is unhealthy. Default: 1.
	Fails int `json:"fails,omitempty"`
}

// PassiveHealth counts a target's failures: those to connect or to answer, and the
// answers named here. It is a suspicion: if it leaves no target at all, suspected
// ones are tried.
type PassiveHealth struct {
	// How many failures within FailDuration make a target unhealthy. Default: 3.
	MaxFails int `json:"max_fails,omitempty"`

	// How long a failure counts. Default: 30.
	FailDuration Seconds `json:"fail_duration,omitempty"`

	// The statuses that are failures, or the first digits of several, as 5.
	// Default: none.
	UnhealthyStatus []int `json:"unhealthy_status,omitempty"`

	// How long an answer may take to begin without being a failure. Default: 0, as
	// long as it likes.
	UnhealthyLatency Seconds `json:"unhealthy_latency,omitempty"`
}

// CircuitBreaker opens for a target when too many of its requests fail: it then
// gets none for a while, and after that a few, on which it depends whether it gets
// all again. Failures are those to connect or to answer, statuses, and slowness.
type CircuitBreaker struct {
	// The share of failures, above 0 and up to 1, at which it opens. Default: 0.5.
	FailureRatio float64 `json:"failure_ratio,omitempty"`

	// The requests in the window below which it does not open. Default: 20.
	MinRequests int `json:"min_requests,omitempty"`

	// The window that slides over the requests that count. Default: 10.
	Window Seconds `json:"window,omitempty"`

	// How long it stays open before it tries. Default: 10.
	OpenFor Seconds `json:"open_for,omitempty"`

	// How many requests are let through to try, all of which must succeed.
	// Default: 3.
	Probes int `json:"probes,omitempty"`

	// The statuses that are failures, or the first digits of several. Default: 5.
	Statuses []int `json:"statuses,omitempty"`

	// How long an answer may take to begin without being a failure. Default: 0, as
	// long as it likes.
	Slow Seconds `json:"slow,omitempty"`
}

// UpstreamTimeouts bound single steps of an exchange, beside the route's timeout
// for the whole.
type UpstreamTimeouts struct {
	// How long connecting may take, without TLS. Default: 5.
	Connect Seconds `json:"connect,omitempty"`

	// How long the answer's header may take once the request was sent. Default: 0,
	// as long as the route's timeout.
	ResponseHeader Seconds `json:"response_header,omitempty"`

	// How long the target may be silent between two parts of the answer's body.
	// After an upgrade there is no body. Default: 0, as long as the route's timeout.
	Idle Seconds `json:"idle,omitempty"`
}

// UpstreamTLS is the TLS client's side of a forwarder. The zero value verifies
// the certificate against the system's roots.
type UpstreamTLS struct {
	// The name to send as SNI and to verify. Default: the target's host.
	ServerName string `json:"server_name,omitempty"`

	// Certificates to trust instead of the system's roots, in PEM.
	CA string `json:"ca,omitempty"`

	// The client certificate to present to a server that asks for one, in PEM,
	// followed by those that lead to its CA, if any. Needs Key. Default: none.
	Certificate string `json:"certificate,omitempty"`

	// The private key of Certificate, in PEM and not encrypted. It is a secret:
	// whatever shows a route to anybody shows it [Route.Redacted].
	Key string `json:"key,omitempty"`

	// Whether the certificate is not verified at all. Only for tests.
	// Default: false.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// Seconds is a length of time in seconds.
type Seconds float64

// Duration returns the length of time, or otherwise if it is 0.
func (s Seconds) Duration(otherwise time.Duration) time.Duration {
	if s == 0 {
		return otherwise
	}
	return time.Duration(float64(s) * float64(time.Second))
}
