package e2e_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// TestManyStartAtOnce starts several gateways on one empty database: they
// migrate and seed it together, and then serve the same routes.
func TestManyStartAtOnce(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(*testing.T) string{
		"postgres": func(t *testing.T) string { return pgtest.New(t) },
		// SQLite is meant for one process, but a second one, such as a new version
		// beside the old, must do no harm.
		"sqlite": func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "isekai.db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shared := dsn(t)
			target := textUpstream(t, "seeded")
			gateways := make([]*gateway, 6)
			for i := range gateways {
				g := newGateway(t, settings{dsn: shared, options: "seed seed.json"})
				writeFile(t, filepath.Join(g.dir, "seed.json"), `[{"path":"/seeded","target_url":"`+target+`"},{"path":"/seeded/*","target_url":"`+target+`"}]`)
				gateways[i] = g
			}
			for _, g := range gateways {
				g.start()
			}
			for i, g := range gateways {
				g.waitReady()
				g.waitBody("/seeded", "seeded")
				if got := g.list(""); len(got) != 2 {
					t.Errorf("gateway %d has %d routes, want the 2 of the seed: %+v", i, len(got), got)
				}
			}
			// Each writes, and all serve all.
			for i, g := range gateways {
				g.create(route{Path: fmt.Sprintf("/of/%d", i), TargetURL: target})
			}
			for _, g := range gateways {
				for i := range gateways {
					g.waitBody(fmt.Sprintf("/of/%d", i), "seeded")
				}
			}
		})
	}
}

// TestConcurrentWriters has two gateways change the same routes at once.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	shared := pgtest.New(t)
	a, b := startGateway(t, settings{dsn: shared}), startGateway(t, settings{dsn: shared})
	target := textUpstream(t, "x")
	r := a.create(route{Path: "/counted", TargetURL: target, Labels: map[string]string{}})
	b.waitBody("/counted", "x")

	// Patches of different labels: none may be lost, whoever writes first.
	const each = 25
	path := fmt.Sprintf("/api/routes/%d", r.ID)
	var wg sync.WaitGroup
	for name, g := range map[string]*gateway{"a": a, "b": b} {
		wg.Go(func() {
			for i := range each {
				patch := map[string]any{"labels": map[string]string{fmt.Sprint(name, i): "x"}}
				for {
					answer, err := g.tryCall(http.MethodPatch, path, patch, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if answer.status == http.StatusOK {
						break
					}
					if answer.status != http.StatusConflict {
						t.Errorf("a patch is answered %s", answer)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for _, g := range []*gateway{a, b} {
		eventually(t, servedWithin, "all labels are there", func() error {
			if got := g.get(r.ID); len(got.Labels) != 2*each {
				return fmt.Errorf("%d of %d", len(got.Labels), 2*each)
			}
			return nil
		})
	}

	// Of two that have read the same version, one must lose.
	etag := a.call(http.MethodGet, path, nil).header.Get("ETag")
	if other := b.call(http.MethodGet, path, nil).header.Get("ETag"); other != etag || etag == "" {
		t.Fatalf("the ETag is %s on one gateway, %s on the other", etag, other)
	}
	statuses := make(chan int, 2)
	for _, g := range []*gateway{a, b} {
		wg.Go(func() {
			answer, err := g.tryCall(http.MethodPatch, path, map[string]any{"name": "mine"}, http.Header{"If-Match": {etag}})
			if err != nil {
				t.Error(err)
			}
			statuses <- answer.status
		})
	}
	wg.Wait()
	if one, two := <-statuses, <-statuses; one+two != http.StatusOK+http.StatusPreconditionFailed {
		t.Errorf("two writers with the same If-Match are answered %d and %d", one, two)
	}

	// Of two equal routes, one must be refused, whichever gateway is asked.
	for i := range 10 {
		made := make(chan int, 2)
		for _, g := range []*gateway{a, b} {
			wg.Go(func() {
				answer, err := g.tryCall(http.MethodPost, "/api/routes", route{Path: fmt.Sprintf("/same/%d/{x}", i), TargetURL: target}, nil)
				if err != nil {
					t.Error(err)
				}
				made <- answer.status
			})
		}
		wg.Wait()
		if one, two := <-made, <-made; one+two != http.StatusCreated+http.StatusConflict {
			t.Errorf("two equal routes are answered %d and %d", one, two)
		}
	}
}

// TestAdminErrors makes the errors that no other test makes, so that their form
// is held against the OpenAPI document too.
func TestAdminErrors(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	r := g.create(route{Path: "/x", TargetURL: "http://10.0.0.1", Name: "x"})
	path := fmt.Sprintf("/api/routes/%d", r.ID)
	for name, c := range map[string]struct {
		method, path string
		body         any
		header       http.Header
		status       int
	}{
		"no such route":       {method: "GET", path: "/api/routes/999999", status: 404},
		"no route's id":       {method: "GET", path: "/api/routes/x", status: 422},
		"deleting nothing":    {method: "DELETE", path: "/api/routes/999999", status: 404},
		"nothing there":       {method: "GET", path: "/api/nothing", status: 404},
		"no such method":      {method: "DELETE", path: "/api/routes", status: 405},
		"a conflict":          {method: "POST", path: "/api/routes", body: route{Path: "/x", TargetURL: "http://10.0.0.2"}, status: 409},
		"an unknown field":    {method: "POST", path: "/api/routes", body: []byte(`{"path":"/y","target_url":"http://10.0.0.1","colour":"blue"}`), status: 422},
		"an ill-typed field":  {method: "POST", path: "/api/routes", body: []byte(`{"path":7,"target_url":"http://10.0.0.1"}`), status: 422},
		"no JSON":             {method: "POST", path: "/api/routes", body: []byte(`{"path":`), status: 400},
		"no body":             {method: "POST", path: "/api/routes", status: 400},
		"another type":        {method: "POST", path: "/api/routes", body: []byte(`path: /y`), header: http.Header{"Content-Type": {"application/yaml"}}, status: 415},
		"too large":           {method: "POST", path: "/api/routes", body: fmt.Appendf(nil, `{"path":"/y","name":"%02000000d"}`, 0), status: 413},
		"a stale version":     {method: "PUT", path: path, body: r.writable(), header: http.Header{"If-Match": {`"0"`}}, status: 412},
		"an unknown filter":   {method: "GET", path: "/api/routes?colour=blue", status: 422},
		"a limit of nothing":  {method: "GET", path: "/api/routes?limit=0", status: 422},
		"a malformed query":   {method: "GET", path: "/api/routes?q=%zz", status: 400},
		"NUL in a name":       {method: "PATCH", path: path, body: map[string]any{"name": "a\x00b"}, status: 422},
		"negative rate limit": {method: "PATCH", path: path, body: map[string]any{"rate_limit": -1}, status: 422},
		"null in a patch":     {method: "PATCH", path: path, body: []byte(`{"name":null}`), status: 200},
		"the document":        {method: "GET", path: "/api/openapi.json", status: 200},
		"the status":          {method: "GET", path: "/api/status", status: 200},
	} {
		a, err := g.tryCall(c.method, c.path, c.body, c.header)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.status != c.status {
			t.Errorf("%s: the answer is %.500s, want %d", name, a, c.status)
		}
		if a.status >= 400 {
			a.problem(t)
		}
	}
	// Nobody may come by a browser, from another page or by a name that was bound
	// anew to this machine. It is Caddy's endpoint that says so.
	for name, change := range map[string]func(*http.Request){
		"another origin": header("Origin", "http://evil.test"),
		"no origin":      header("Sec-Fetch-Mode", "cors"),
		"cross-site":     header("Sec-Fetch-Mode", "no-cors"),
		"another name":   host("evil.test"),
	} {
		req, err := http.NewRequest(http.MethodDelete, "http://"+g.admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(req)
		resp, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s is answered %s", name, resp.Status)
		}
	}
	g.get(r.ID)
}
