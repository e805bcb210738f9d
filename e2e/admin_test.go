package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"
)

// route is a route as the admin API has it. It is written anew here rather than
// taken from the product, whose names it checks.
type route struct {
	ID           int64             `json:"id,omitempty"`
	Name         string            `json:"name,omitempty"`
	Host         string            `json:"host,omitempty"`
	Path         string            `json:"path"`
	Method       string            `json:"method,omitempty"`
	TargetURL    string            `json:"target_url"`
	Enabled      *bool             `json:"enabled,omitempty"`
	RateLimit    int               `json:"rate_limit,omitempty"`
	Timeout      *int              `json:"timeout,omitempty"`
	Priority     int               `json:"priority,omitempty"`
	Headers      map[string]string `json:"headers,omitempty"`
	Query        map[string]string `json:"query,omitempty"`
	StripPrefix  bool              `json:"strip_prefix,omitempty"`
	PreserveHost bool              `json:"preserve_host,omitempty"`
	MergeSlashes bool              `json:"merge_slashes,omitempty"`
	Upstream     *upstreamSettings `json:"upstream,omitempty"`
	Limits       map[string]any    `json:"limits,omitempty"`
	Mirror       map[string]any    `json:"mirror,omitempty"`
	CORS         map[string]any    `json:"cors,omitzero"`
	Auth         map[string]any    `json:"auth,omitzero"`
	Plugins      []json.RawMessage `json:"plugins,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`

	Revision  int64    `json:"revision,omitempty"`
	CreatedAt string   `json:"created_at,omitempty"`
	UpdatedAt string   `json:"updated_at,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

type upstreamSettings struct {
	Targets        []upstreamTarget `json:"targets,omitempty"`
	Policy         string           `json:"policy,omitempty"`
	PolicyOptions  map[string]any   `json:"policy_options,omitempty"`
	Retries        *int             `json:"retries,omitempty"`
	Retry          map[string]any   `json:"retry,omitempty"`
	Health         map[string]any   `json:"health,omitempty"`
	CircuitBreaker map[string]any   `json:"circuit_breaker,omitempty"`
	Timeouts       map[string]any   `json:"timeouts,omitempty"`

	Protocol string       `json:"protocol,omitempty"`
	TLS      *tlsSettings `json:"tls,omitempty"`
}

type upstreamTarget struct {
	URL         string `json:"url"`
	Weight      *int   `json:"weight,omitempty"`
	MaxRequests int    `json:"max_requests,omitempty"`
}

type tlsSettings struct {
	ServerName         string `json:"server_name,omitempty"`
	CA                 string `json:"ca,omitempty"`
	Certificate        string `json:"certificate,omitempty"`
	Key                string `json:"key,omitempty"`
	InsecureSkipVerify bool   `json:"insecure_skip_verify,omitempty"`
}

// writable returns the route without what only the gateway may set.
func (r route) writable() route {
	r.ID, r.Revision, r.CreatedAt, r.UpdatedAt, r.Error, r.Warnings = 0, 0, "", "", "", nil
	return r
}

// problem is an error's body (RFC 9457), on both sides of the gateway.
type problem struct {
	Type      string   `json:"type"`
	Title     string   `json:"title"`
	Status    int      `json:"status"`
	Detail    string   `json:"detail"`
	RequestID string   `json:"request_id"`
	Violated  []string `json:"violated-policies"`
	Errors    []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	} `json:"errors"`
}

type health struct {
	Status   string   `json:"status"`
	Reasons  []string `json:"reasons"`
	Revision int64    `json:"revision"`
}

// answer is an answer of the admin API.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// decode reads the body as one JSON value.
func (a answer) decode(t testing.TB, to any) {
	t.Helper()
	if err := json.Unmarshal(a.body, to); err != nil {
		t.Fatalf("reading %s: %v", a, err)
	}
}

// problem reads the body as a problem and checks its form.
func (a answer) problem(t testing.TB) problem {
	t.Helper()
	var p problem
	a.decode(t, &p)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" || p.Status != a.status || p.Title == "" {
		t.Errorf("answer %s of type %q is no problem document", a, got)
	}
	return p
}

// call asks the admin API, with body as JSON if it is not nil. Every exchange is
// held against the API's own OpenAPI document.
func (g *gateway) call(method, path string, body any) answer {
	g.t.Helper()
	a, err := g.tryCall(method, path, body, nil)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// tryCall is call for when the gateway may be gone. Safe for any goroutine.
func (g *gateway) tryCall(method, path string, body any, header http.Header) (answer, error) {
	return g.exchange(method, path, body, header, g.checkContract)
}

// exchange is tryCall with another check. That of the contract takes 10 ms and more of a
// processor, which is too much among many calls whose time counts.
func (g *gateway) exchange(method, path string, body any, header http.Header, check func(*http.Request, []byte, answer)) (answer, error) {
	var content []byte
	switch b := body.(type) {
	case nil:
	case []byte:
		content = b
	default:
		var err error
		if content, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+g.admin+path, bytes.NewReader(content))
	if err != nil {
		return answer{}, err
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, header)
	resp, err := g.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return answer{}, err
	}
	check(req, content, a)
	return a, nil
}

// create adds a route that must be accepted. On a busy machine the database may
// take longer than the gateway waits, which is a 503 and worth another try.
func (g *gateway) create(r route) route {
	g.t.Helper()
	a := g.call(http.MethodPost, "/api/routes", r)
	for tries := 1; a.status == http.StatusServiceUnavailable && tries < 5; tries++ {
		a = g.call(http.MethodPost, "/api/routes", r)
	}
	if a.status != http.StatusCreated {
		g.t.Fatalf("creating %+v: %s", r, a)
	}
	var created route
	a.decode(g.t, &created)
	return created
}

// patch changes some fields of a route.
func (g *gateway) patch(id int64, fields map[string]any) route {
	g.t.Helper()
	a := g.call(http.MethodPatch, fmt.Sprintf("/api/routes/%d", id), fields)
	if a.status != http.StatusOK {
		g.t.Fatalf("patching route %d: %s", id, a)
	}
	var updated route
	a.decode(g.t, &updated)
	return updated
}

// remove deletes a route.
func (g *gateway) remove(id int64) {
	g.t.Helper()
	if a := g.call(http.MethodDelete, fmt.Sprintf("/api/routes/%d", id), nil); a.status != http.StatusNoContent {
		g.t.Fatalf("deleting route %d: %s", id, a)
	}
}

// refused offers a route that must not be accepted and returns why.
func (g *gateway) refused(r route, status int) problem {
	g.t.Helper()
	a := g.call(http.MethodPost, "/api/routes", r)
	if a.status != status {
		g.t.Fatalf("creating %+v: %s, want %d", r, a, status)
	}
	return a.problem(g.t)
}

// get returns a route as it is now.
func (g *gateway) get(id int64) route {
	g.t.Helper()
	a := g.call(http.MethodGet, fmt.Sprintf("/api/routes/%d", id), nil)
	if a.status != http.StatusOK {
		g.t.Fatalf("reading route %d: %s", id, a)
	}
	var r route
	a.decode(g.t, &r)
	return r
}

// list returns all routes that match the query.
func (g *gateway) list(query string) []route {
	g.t.Helper()
	var all []route
	cursor := ""
	for {
		a := g.call(http.MethodGet, "/api/routes?limit=1000"+query+cursor, nil)
		if a.status != http.StatusOK {
			g.t.Fatalf("listing routes: %s", a)
		}
		var page struct {
			Items []route `json:"items"`
			Next  string  `json:"next"`
		}
		a.decode(g.t, &page)
		all = append(all, page.Items...)
		if page.Next == "" {
			return all
		}
		cursor = "&cursor=" + page.Next
	}
}

// health asks the admin endpoint.
func (g *gateway) health() (int, health, error) {
	a, err := g.tryCall(http.MethodGet, "/health", nil, nil)
	if err != nil {
		return 0, health{}, err
	}
	var h health
	if err := json.Unmarshal(a.body, &h); err != nil {
		return 0, health{}, fmt.Errorf("reading %s: %w", a, err)
	}
	return a.status, h, nil
}
