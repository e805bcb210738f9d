package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/store"
)

func TestConditionalRequests(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	first := n.create(t, "/a").header.Get("ETag")
	second := n.do(t, "PATCH", "/api/routes/1", `{"timeout": 1}`, "If-Match: "+first).want(200).header.Get("ETag")
	if first == second || second[0] != '"' {
		t.Fatalf("the ETags are %s and %s", first, second)
	}
	body := `{"path": "/a", "target_url": "http://x"}`
	for name, c := range map[string]struct {
		match string
		want  int
	}{
		"stale":                   {first, 412},
		"weak":                    {"W/" + second, 412},
		"of another":              {`"2-2"`, 412},
		"not ours":                {`"x"`, 412},
		"stale list":              {first + `, "x"`, 412},
		"from the future":         {`"1-99"`, 412},
		"without quotes":          {"1-2", 400},
		"open quotes":             {`"1-2`, 400},
		"empty":                   {" ", 400},
		"only commas":             {", ,", 400},
		"star among others":       {`*, "1-2"`, 400},
		"two without a comma":     {`"1-2" "1-3"`, 400},
		"lower case weak":         {`w/"1-2"`, 400},
		"blank within the quotes": {`"1 2"`, 400},
	} {
		for method, body := range map[string]string{"PUT": body, "PATCH": body, "DELETE": ""} {
			req, err := http.NewRequestWithContext(t.Context(), method, n.url+"/api/routes/1", nil)
			if err != nil {
				t.Fatal(err)
			}
			if body != "" {
				req = withBody(t, method, n.url+"/api/routes/1", body)
			}
			req.Header["If-Match"] = []string{c.match}
			if a := n.send(t, req); a.status != c.want {
				t.Errorf("%s, %s: status %d, want %d: %s", name, method, a.status, c.want, a.text)
			}
		}
	}
	for _, match := range []string{"*", "TAG", `"x", TAG`, `W/"x" ,, TAG`} {
		match = strings.ReplaceAll(match, "TAG", second)
		etag := n.do(t, "PUT", "/api/routes/1", body, "If-Match: "+match).want(200).header.Get("ETag")
		if etag == second {
			t.Errorf("the ETag is still %s after a change", etag)
		}
		second = etag
	}

	// The tag may stand on any line.
	req := withBody(t, "PUT", n.url+"/api/routes/1", body)
	req.Header["If-Match"] = []string{`"x"`, second}
	second = n.send(t, req).want(200).header.Get("ETag")

	n.do(t, "PUT", "/api/routes/9", body, "If-Match: *").want(404)
	n.do(t, "DELETE", "/api/routes/9", "", "If-Match: "+second).want(404)
	n.do(t, "DELETE", "/api/routes/1", "", "If-Match: "+second).want(204)
}

func withBody(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return req
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	etag := n.create(t, "/a").header.Get("ETag")
	for value, want := range map[string]int{
		etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304,
		`"x"`: 200, "1-1": 200, `"1-1`: 200, `"1-2"`: 200,
	} {
		a := n.do(t, "GET", "/api/routes/1", "", "If-None-Match: "+value).want(want)
		if a.header.Get("ETag") != etag || (want == 304) != (len(a.text) == 0) {
			t.Errorf("If-None-Match: %s: ETag %s, body %q", value, a.header.Get("ETag"), a.text)
		}
	}
}

// TestChangeSeenElsewhere: the client has read the route from a replica that is
// ahead of this one.
func TestChangeSeenElsewhere(t *testing.T) {
	t.Parallel()
	dsn := newDSN(t)
	here := nodeOn(t, dsn)
	here.create(t, "/a")
	there := nodeOn(t, dsn)
	etag := there.do(t, "PATCH", "/api/routes/1", `{"rate_limit": 5}`).want(200).header.Get("ETag")
	got := here.do(t, "PATCH", "/api/routes/1", `{"timeout": 5}`, "If-Match: "+etag).want(200).object()
	if got["rate_limit"] != 5.0 || got["timeout"] != 5.0 {
		t.Errorf("the route is %v", got)
	}

	there.create(t, "/b")
	here.do(t, "PATCH", "/api/routes/2", `{"timeout": 5}`).want(200)

	// Without a condition the first attempt is told that it is behind.
	there.do(t, "PATCH", "/api/routes/1", `{"rate_limit": 6}`).want(200)
	body := `{"path": "/a", "target_url": "http://x"}`
	here.do(t, "PUT", "/api/routes/1", body).want(409)
	here.do(t, "PUT", "/api/routes/1", body).want(200)
}

// gate holds up the first check of a route with a given name until it is opened.
type gate struct {
	entered, open chan struct{}
	once          sync.Once
}

func newGate() *gate { return &gate{entered: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) check(ctx context.Context, row *store.Route) error {
	if row.Name == "slow" {
		g.once.Do(func() {
			close(g.entered)
			<-g.open
		})
	}
	return ctx.Err()
}

// TestOverlappingWriters lets one writer finish while another is at work.
func TestOverlappingWriters(t *testing.T) {
	t.Parallel()
	const slow = `{"name": "slow", "path": "/a", "target_url": "http://slow"}`
	for name, c := range map[string]struct {
		method, body string
		match        bool
		want         int
		final        object // what the route must be in the end
	}{
		"put":               {"PUT", slow, false, 409, object{"name": nil, "timeout": 7.0}},
		"put with tag":      {"PUT", slow, true, 412, object{"name": nil, "timeout": 7.0}},
		"patch":             {"PATCH", `{"name": "slow"}`, false, 200, object{"name": "slow", "timeout": 7.0}},
		"patch with tag":    {"PATCH", `{"name": "slow"}`, true, 412, object{"name": nil, "timeout": 7.0}},
		"patch of the same": {"PATCH", `{"name": "slow", "timeout": 8}`, false, 200, object{"name": "slow", "timeout": 8.0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			n := newNode(t, func(cfg *api.Config) { cfg.Check = g.check })
			var fields []string
			etag := n.create(t, "/a").header.Get("ETag")
			if c.match {
				fields = append(fields, "If-Match: "+etag)
			}
			done := make(chan answer)
			go func() {
				defer close(done)
				done <- n.do(t, c.method, "/api/routes/1", c.body, fields...)
			}()
			<-g.entered
			n.do(t, "PATCH", "/api/routes/1", `{"timeout": 7}`).want(200)
			close(g.open)
			a := <-done
			a.want(c.want)
			got := n.do(t, "GET", "/api/routes/1", "").object()
			if diff := cmp.Diff(c.final, object{"name": got["name"], "timeout": got["timeout"]}); diff != "" {
				t.Errorf("the route in the end (-want +got):\n%s", diff)
			}
		})
	}
}

// TestManyPatchesOfKey: whoever disables a key has it disabled, though others rename it at
// the same time.
func TestManyPatchesOfKey(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.do(t, "POST", "/api/consumers", `{"name": "shop"}`).want(201)
	path := n.do(t, "POST", "/api/consumers/1/keys", "").want(201).header.Get("Location")
	for range 10 {
		n.do(t, "PATCH", path, `{"enabled": true, "name": null, "expires_at": null}`).want(200)
		var writers sync.WaitGroup
		for _, patch := range []string{
			`{"name": "x"}`, `{"name": "x"}`, `{"enabled": false}`, `{"name": "x"}`, `{"expires_at": "2030-01-02T03:04:05Z"}`, `{"name": "x"}`,
		} {
			writers.Go(func() {
				if a := n.do(t, "PATCH", path, patch); a.status != 200 {
					t.Errorf("%s: %d %s", patch, a.status, a.text)
				}
			})
		}
		writers.Wait()
		got := n.do(t, "GET", "/api/consumers/1/keys", "").want(200).object()["items"].([]any)[0].(object)
		want := object{"name": "x", "enabled": false, "expires_at": "2030-01-02T03:04:05Z"}
		if diff := cmp.Diff(want, object{"name": got["name"], "enabled": got["enabled"], "expires_at": got["expires_at"]}); diff != "" {
			t.Fatalf("the key in the end (-want +got):\n%s", diff)
		}
	}
}

// TestManyPatches: patches of different fields at the same time all take effect.
func TestManyPatches(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/a")
	want := make(object)
	var writers sync.WaitGroup
	for i := range 8 {
		label := fmt.Sprintf("l%d", i)
		want[label] = "x"
		writers.Go(func() {
			if a := n.do(t, "PATCH", "/api/routes/1", `{"labels": {"`+label+`": "x"}}`); a.status != 200 {
				t.Errorf("%s: %d %s", label, a.status, a.text)
			}
		})
	}
	writers.Wait()
	if diff := cmp.Diff(want, n.do(t, "GET", "/api/routes/1", "").object()["labels"]); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}
