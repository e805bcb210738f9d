package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// contract is the OpenAPI document that the binary serves, parsed once for all
// gateways of the test process: they run the same binary.
var contract struct {
	sync.Mutex
	router routers.Router
}

// contractRouter returns the document in a form to look operations up in.
func (g *gateway) contractRouter() (routers.Router, error) {
	contract.Lock()
	defer contract.Unlock()
	if contract.router != nil {
		return contract.router, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+"/api/openapi.json", nil)
	if err != nil {
		return nil, err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		// The gateway is not up yet.
		return nil, nil
	}
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	if err := doc.Validate(loader.Context); err != nil {
		return nil, fmt.Errorf("validating: %w", err)
	}
	doc.Servers = nil // any host and port
	contract.router, err = gorillamux.NewRouter(doc)
	return contract.router, err
}

// checkContract fails the test if an exchange with the admin API is not as its
// OpenAPI document describes it: every answer, and every request that was
// accepted.
func (g *gateway) checkContract(req *http.Request, content []byte, a answer) {
	if req.URL.Path != "/health" && !strings.HasPrefix(req.URL.Path, "/api/") || notConfigured(a) {
		return
	}
	router, err := g.contractRouter()
	if err != nil {
		g.t.Errorf("reading the API's OpenAPI document: %v", err)
		return
	}
	if router == nil {
		return
	}
	again, err := http.NewRequest(req.Method, req.URL.String(), bytes.NewReader(content))
	if err != nil {
		g.t.Errorf("copying the request: %v", err)
		return
	}
	again.Header = req.Header.Clone()
	route, params, err := router.FindRoute(again)
	if err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			g.t.Errorf("%s %s answered %s, and the document does not have it: %v", req.Method, req.URL.Path, a, err)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	in := &openapi3filter.RequestValidationInput{
		Request: again, PathParams: params, Route: route,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	if a.status < 300 {
		if err := openapi3filter.ValidateRequest(ctx, in); err != nil {
			g.t.Errorf("%s %s was accepted against the document: %v", req.Method, req.URL.Path, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.status, Header: a.header, Options: in.Options,
	}
	out.SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(ctx, out); err != nil {
		g.t.Errorf("%s %s answered %s against the document: %v", req.Method, req.URL.Path, a, err)
	}
}

// notConfigured says whether nobody was there who could have given an answer of
// the API: Caddy's admin endpoint opens before the gateway has started.
func notConfigured(a answer) bool {
	return a.status == http.StatusServiceUnavailable && bytes.Contains(a.body, []byte("isekai is not configured"))
}

// TestHealthWithoutGateway asks a Caddy that runs without the isekai app.
func TestHealthWithoutGateway(t *testing.T) {
	t.Parallel()
	g := newGateway(t, settings{})
	writeFile(t, g.caddyfile, fmt.Sprintf("{\n admin %s\n http_port %s\n persist_config off\n}\nhttp:// {\n bind 127.0.0.1\n respond hello\n}\n", g.admin, port(g.http)))
	g.start()
	eventually(t, startTimeout, "Caddy runs", func() error { return g.checkBody("/", "hello") })
	status, h, err := g.health()
	if err != nil || status != http.StatusServiceUnavailable || h.Status != "not_ready" || len(h.Reasons) == 0 {
		t.Errorf("/health answers %d %+v (%v), want a 503 in the form that the API's document has for it", status, h, err)
	}
	if a := g.call(http.MethodGet, "/api/routes", nil); a.status != http.StatusServiceUnavailable {
		t.Errorf("/api/routes answers %s", a)
	} else {
		a.problem(t)
	}
}
