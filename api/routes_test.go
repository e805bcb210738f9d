package api_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// times are the fields of a route that no test can foresee.
var times = []string{"created_at", "updated_at"}

func without(o object, names ...string) object {
	for _, name := range names {
		delete(o, name)
	}
	return o
}

func TestRouteLife(t *testing.T) {
	t.Parallel()
	n := newNode(t)

	a := n.do(t, "POST", "/api/routes", `{"path": "/orders/{id}", "target_url": "http://10.0.0.5:9000"}`).want(201)
	want := object{
		"id": 1.0, "revision": 1.0, "path": "/orders/{id}", "target_url": "http://10.0.0.5:9000",
		"method": "GET", "enabled": true, "rate_limit": 0.0, "timeout": 30.0, "priority": 0.0,
	}
	if diff := cmp.Diff(want, without(a.object(), times...)); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if got := a.header.Get("Location"); got != "/api/routes/1" {
		t.Errorf("Location is %q", got)
	}
	if got := n.do(t, "GET", "/api/routes/1", "").want(200); cmp.Diff(a.object(), got.object()) != "" || got.header.Get("ETag") != a.header.Get("ETag") {
		t.Errorf("read %s (%s), created %s (%s)", got.text, got.header.Get("ETag"), a.text, a.header.Get("ETag"))
	}
	if n.Table().Len() != 1 {
		t.Error("the new route is not in the table when it is acknowledged")
	}

	a = n.do(t, "PUT", "/api/routes/1", `{"path": "/orders", "target_url": "http://10.0.0.6", "method": "get, post", "timeout": 0, "enabled": false, "labels": {"team": "shop"}}`).want(200)
	want = object{
		"id": 1.0, "revision": 2.0, "path": "/orders", "target_url": "http://10.0.0.6",
		"method": "GET,POST", "enabled": false, "rate_limit": 0.0, "timeout": 0.0, "priority": 0.0, "labels": object{"team": "shop"},
	}
	if diff := cmp.Diff(want, without(a.object(), times...)); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}

	if a = n.do(t, "DELETE", "/api/routes/1", "").want(204); len(a.text) > 0 {
		t.Errorf("a 204 has a body: %q", a.text)
	}
	for _, method := range []string{"GET", "DELETE"} {
		n.do(t, method, "/api/routes/1", "").want(404)
	}
	for _, method := range []string{"PUT", "PATCH"} {
		n.do(t, method, "/api/routes/1", `{"path": "/x", "target_url": "http://x"}`).want(404)
	}
	if n.Table().Len() != 0 {
		t.Error("the deleted route is still in the table")
	}
}

// TestRoundTrip sends back every field as it was read, with one changed.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.do(t, "POST", "/api/routes", `{
		"name": "orders", "host": "API.example.com", "path": "/orders/{id}", "method": "GET,POST",
		"headers": {"X-Env": "beta"}, "query": {"v": "<2>&"}, "priority": -3,
		"target_url": "https://10.0.0.5:9000/v2", "enabled": true, "rate_limit": 100, "timeout": 5,
		"strip_prefix": true, "preserve_host": true, "merge_slashes": true,
		"upstream": {"protocol": "http2", "tls": {"server_name": "orders.internal", "insecure_skip_verify": true}},
		"limits": {"window": 10, "key": "{http.request.header.X-Key}", "cost": 2, "dry_run": true, "headers": "legacy",
			"rules": [{"name": "day", "limit": 1000, "window": 86400, "key": "{client_ip}", "cost": 7}]},
		"plugins": [{"handler": "headers", "response": {"set": {"X-A": ["<b>"]}}, "n": 12345678901234567890.125}],
		"labels": {"team": "shop"}, "id": 99, "revision": "whatever", "error": null, "warnings": ["no"]
	}`).want(201)
	read := n.do(t, "GET", "/api/routes/1", "")
	before := read.object()
	if before["id"] != 1.0 || before["host"] != "api.example.com" {
		t.Fatalf("created %s", read.text)
	}
	after := n.do(t, "PUT", "/api/routes/1", string(read.text)).want(200)
	if diff := cmp.Diff(without(before, "updated_at", "revision"), without(after.object(), "updated_at", "revision")); diff != "" {
		t.Errorf("a PUT of what was read changed the route (-before +after):\n%s", diff)
	}
	if number := []byte("12345678901234567890.125"); !bytes.Contains(after.text, number) {
		t.Errorf("a number in a plugin is not what it was: %s", after.text)
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()
	const start = `"method": "POST", "rate_limit": 5, "timeout": 9, "labels": {"a": "1", "b": "2"}, "headers": {"X-A": "1"},
		"upstream": {"protocol": "http1"}, "plugins": [{"handler": "encode"}]`
	for name, c := range map[string]struct {
		patch string
		want  object // the fields that change; nil for one that goes
	}{
		"nothing":             {`{}`, object{}},
		"one field":           {`{"rate_limit": 7}`, object{"rate_limit": 7.0}},
		"null is the default": {`{"rate_limit": null, "timeout": null, "method": null}`, object{"rate_limit": 0.0, "timeout": 30.0, "method": "GET"}},
		"false stays":         {`{"enabled": false}`, object{"enabled": false}},
		"null of enabled":     {`{"enabled": null}`, object{}},
		"null of a map":       {`{"labels": null}`, object{"labels": nil}},
		"members of a map":    {`{"labels": {"a": null, "c": "3"}}`, object{"labels": object{"b": "2", "c": "3"}}},
		"null of what is not": {`{"labels": {"x": null}, "limits": null, "name": null}`, object{}},
		"new object":          {`{"limits": {"window": 5, "key": null}}`, object{"limits": object{"window": 5.0}}},
		"nested null":         {`{"upstream": {"protocol": null}}`, object{"upstream": object{}}},
		"a list is whole":     {`{"plugins": [{"handler": "headers", "x": null}]}`, object{"plugins": []any{object{"handler": "headers", "x": nil}}}},
		"what only we write":  {`{"id": 7, "revision": null, "created_at": 5, "error": "x", "warnings": {}}`, object{}},
	} {
		for _, media := range []string{"application/json", "application/merge-patch+json", "application/json; charset=UTF-8"} {
			t.Run(name+"/"+media, func(t *testing.T) {
				t.Parallel()
				n := newNode(t)
				want := n.create(t, "/a", start).object()
				for field, v := range c.want {
					if want[field] = v; v == nil {
						delete(want, field)
					}
				}
				a := n.do(t, "PATCH", "/api/routes/1", c.patch, "Content-Type: "+media).want(200)
				if diff := cmp.Diff(without(want, "updated_at", "revision"), without(a.object(), "updated_at", "revision")); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestPatchInvalid(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.create(t, "/a", `"labels": {"a": "1"}`).object()
	for patch, want := range map[string][]string{
		`{"path": null}`:    {"body.path"},
		`{"path": "a"}`:     {"body.path"},
		`{"no_such": null}`: {"body.no_such"},
		`{"labels": {"a": 1}, "enabled": "yes", "x": {}}`:  {"body.enabled", "body.labels.a", "body.x"},
		`{"upstream": {"tls": {"cert": null}, "tsl": 1}}`:  {"body.upstream.tls.cert", "body.upstream.tsl"},
		`{"path": "/b//c", "host": "-", "method": "G ET"}`: {"body.host", "body.method", "body.path"},
		`[]`: {"body"},
	} {
		a := n.do(t, "PATCH", "/api/routes/1", patch).want(422)
		if diff := cmp.Diff(want, a.locations()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", patch, diff)
		}
	}
	if diff := cmp.Diff(before, n.do(t, "GET", "/api/routes/1", "").object()); diff != "" {
		t.Errorf("a refused patch changed the route (-before +after):\n%s", diff)
	}
}

func TestInvalidRoutes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/taken")
	for body, want := range map[string][]string{
		`{}`:                           {"body.path", "body.target_url"},
		`{"path": null}`:               {"body.path", "body.target_url"},
		`{"Path": "/a", "path": "/b"}`: {"body.Path", "body.target_url"},
		`{"path": "/a", "target_url": "http://x", "rateLimit": 5, "timeout_": 1}`: {"body.rateLimit", "body.timeout_"},
		`{"path": "/a", "target_url": "http://x", "rate_limit": "5", "timeout": 1.5, "enabled": 1, "priority": 99999999999999999999, "method": ["GET"], "name": null}`: {
			"body.enabled", "body.method", "body.name", "body.priority", "body.rate_limit", "body.timeout"},
		`{"path": "/a", "target_url": "http://x", "rate_limit": -1, "timeout": 86401, "priority": 2147483648}`: {"body.priority", "body.rate_limit", "body.timeout"},
		`{"path": "/a", "target_url": "http://x", "headers": {"X": 1}, "query": [], "labels": {"a": null}}`:    {"body.headers.X", "body.labels.a", "body.query"},
		`{"path": "/a", "target_url": "http://x", "limits": {"cost": 0, "headers": "both", "dry_run": 1, "rules": [{"name": "a", "limit": 0, "colour": 1}, {"window": 0}]}}`: {
			"body.limits.cost", "body.limits.dry_run", "body.limits.headers", "body.limits.rules[0].colour", "body.limits.rules[0].limit",
			"body.limits.rules[1].limit", "body.limits.rules[1].name", "body.limits.rules[1].window",
		},
		`{"path": "/a", "target_url": "http://x", "limits": {"window": 0, "kye": ""}, "upstream": {"protocol": "spdy", "tls": {"ca": 5}}}`: {
			"body.limits.kye", "body.limits.window", "body.upstream.protocol", "body.upstream.tls.ca"},
		`{"path": "/a", "target_url": "http://x", "plugins": [{"handler": "headers"}, 5, {"handler": 1}, {}]}`: {
			"body.plugins[1]", "body.plugins[2].handler", "body.plugins[3].handler"},
		`{"path": "a", "target_url": 5, "host": "a b", "method": "TRACE"}`: {"body.host", "body.method", "body.path", "body.target_url"},
	} {
		for method, path := range map[string]string{"POST": "/api/routes", "PUT": "/api/routes/1"} {
			a := n.do(t, method, path, body).want(422)
			if diff := cmp.Diff(want, a.locations()); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s\n%s", method, body, diff, a.text)
			}
		}
	}
	if n.count(t) != 1 {
		t.Error("something invalid was stored")
	}
}

func TestUnknownFieldSuggestion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.do(t, "POST", "/api/routes", `{"path": "/a", "targetURL": "http://x"}`).want(422)
	errs := a.object()["errors"].([]any)
	want := object{"location": "body.targetURL", "message": `unknown field; did you mean "target_url"?`}
	if diff := cmp.Diff(any(want), errs[len(errs)-1]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConflict(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/orders/{id}", `"name": "orders"`, `"host": "a.example"`, `"method": "GET,POST"`)
	n.create(t, "/other", `"host": "a.example"`)
	body := `{"path": "/orders/{x}", "host": "A.example", "method": "POST", "target_url": "http://y"}`
	for _, a := range []answer{
		n.do(t, "POST", "/api/routes", body),
		n.do(t, "PUT", "/api/routes/2", body),
		n.do(t, "PATCH", "/api/routes/2", `{"path": "/orders/{x}"}`),
	} {
		want := object{"id": 1.0, "name": "orders", "host": "a.example", "path": "/orders/{id}", "method": "GET,POST"}
		if diff := cmp.Diff(want, a.want(409).object()["conflict"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", a.what, diff)
		}
	}
	n.do(t, "PUT", "/api/routes/1", body).want(200)
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if a := n.create(t, "/a/{x}", `"method": "*"`, `"priority": 5`); a.object()["warnings"] != nil {
		t.Errorf("warnings about the only route: %s", a.text)
	}
	a := n.create(t, "/a/{y}", `"method": "*"`, `"priority": 1`)
	if warnings, _ := a.object()["warnings"].([]any); len(warnings) != 1 {
		t.Errorf("no warning that another route hides it: %s", a.text)
	}
	if a = n.do(t, "PATCH", pathOf(a.id()), `{"path": "/b/{y}"}`).want(200); a.object()["warnings"] != nil {
		t.Errorf("warnings about a route that nothing hides: %s", a.text)
	}
}

func TestBadIDs(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, id := range []string{"0", "-1", "x", "1.5", "2147483648", "99999999999999999999", "%00", "..%2f1"} {
		for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
			body := ""
			if method[0] == 'P' {
				body = `{"path": "/a", "target_url": "http://x"}`
			}
			a := n.do(t, method, "/api/routes/"+id, body).want(422)
			if diff := cmp.Diff([]string{"path.id"}, a.locations()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", a.what, diff)
			}
		}
	}
	n.do(t, "GET", fmt.Sprintf("/api/routes/%d", 1<<31-1), "").want(404)
}
