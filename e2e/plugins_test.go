package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func plugins(texts ...string) []json.RawMessage {
	raw := make([]json.RawMessage, len(texts))
	for i, text := range texts {
		raw[i] = json.RawMessage(text)
	}
	return raw
}

func TestPlugins(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	rec := newRecorder(t)
	g.create(route{Path: "/headers/{id}", TargetURL: rec.url, Plugins: plugins(
		`{"handler":"headers","request":{"set":{"X-In":["{http.isekai.param.id} of {http.isekai.route_name}"]},"delete":["Cookie"]},"response":{"set":{"X-Out":["{http.isekai.request_id}"]}}}`,
	), Name: "named"})
	a := g.send(http.MethodGet, "/headers/a%20b", header("Cookie", "secret"), header("X-Request-Id", "r1"))
	got := rec.take()
	if len(got) != 1 || got[0].header.Get("X-In") != "a b of named" || got[0].header.Get("Cookie") != "" || a.header.Get("X-Out") != "r1" {
		t.Errorf("the answer is %s %v, the upstream has seen %+v", a, a.header, got)
	}

	g.create(route{Path: "/rewrite/*", TargetURL: rec.url + "/base", Plugins: plugins(`{"handler":"rewrite","uri":"/rewritten{http.request.uri.path}?x=1"}`)})
	g.send(http.MethodGet, "/rewrite/a?b")
	if got := rec.take(); len(got) != 1 || got[0].uri != "/base/rewritten/rewrite/a?x=1" {
		t.Errorf("after a rewrite the upstream has seen %+v", got)
	}

	g.create(route{Path: "/limited", Method: "POST", TargetURL: rec.url, Plugins: plugins(`{"handler":"request_body","max_size":4}`)})
	if a := g.send(http.MethodPost, "/limited", payload("1234")); a.status != http.StatusOK {
		t.Errorf("a small body is answered %s", a)
	}
	wantProblem(t, g.send(http.MethodPost, "/limited", payload("12345")), http.StatusRequestEntityTooLarge)
}

func TestRefusedPlugins(t *testing.T) {
	t.Parallel()
	strict, open := settings{}, settings{options: "plugins headers encode subroute intercept"}
	for name, c := range map[string]struct {
		set    settings
		plugin string
		says   string // of the first error
	}{
		"not allowed":                {strict, `{"handler":"file_server","root":"/"}`, "file_server"},
		"answers itself":             {strict, `{"handler":"static_response","body":"{env.HOME}"}`, "static_response"},
		"forwards itself":            {strict, `{"handler":"reverse_proxy","upstreams":[{"dial":"127.0.0.1:2019"}]}`, "reverse_proxy"},
		"this gateway":               {strict, `{"handler":"isekai"}`, "isekai"},
		"nested, outer refused":      {strict, `{"handler":"subroute","routes":[{"handle":[{"handler":"headers"}]}]}`, "subroute"},
		"nested":                     {open, `{"handler":"subroute","routes":[{"handle":[{"handler":"file_server","root":"/"}]}]}`, "file_server"},
		"nested twice":               {open, `{"handler":"subroute","routes":[{"handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"static_response"}]}]}]}]}`, "static_response"},
		"nested in an error route":   {open, `{"handler":"subroute","errors":{"routes":[{"handle":[{"handler":"static_response"}]}]}}`, "static_response"},
		"nested in a handled answer": {open, `{"handler":"intercept","handle_response":[{"routes":[{"handle":[{"handler":"templates"}]}]}]}`, "templates"},
		"the environment":            {strict, `{"handler":"headers","request":{"set":{"X":["{env.HOME}"]}}}`, "{env."},
		"a file":                     {strict, `{"handler":"headers","response":{"set":{"X":["a{file./etc/hostname}"]}}}`, "{file."},
		"the system":                 {strict, `{"handler":"headers","request":{"set":{"{system.hostname}":["x"]}}}`, "{system."},
		"unknown module":             {settings{options: "plugins headers"}, `{"handler":"teleport"}`, "teleport"},
		"unknown field":              {strict, `{"handler":"headers","respnse":{}}`, "respnse"},
		"wrong type":                 {strict, `{"handler":"headers","request":7}`, ""},
		"no handler":                 {strict, `{"request":{}}`, ""},
		"a handler of another type":  {strict, `{"handler":7}`, ""},
		"a second handler key":       {strict, `{"handler":"headers","handler":"file_server"}`, ""},
		"null":                       {strict, `null`, ""},
		"a text":                     {strict, `"headers"`, ""},
		"bad settings":               {strict, `{"handler":"encode","encodings":{"nothing":{}}}`, "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, c.set)
			p := g.refused(route{Path: "/x", TargetURL: "http://10.0.0.1", Plugins: plugins(c.plugin)}, http.StatusUnprocessableEntity)
			if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, "body.plugins[0]") || !strings.Contains(p.Errors[0].Message, c.says) {
				t.Errorf("the errors are %+v, want one of body.plugins[0] that says %q", p.Errors, c.says)
			}
			if left := g.list(""); len(left) > 0 {
				t.Errorf("it was stored: %+v", left)
			}
		})
	}
}
