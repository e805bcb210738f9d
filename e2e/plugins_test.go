package e2e_test

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
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

// TestErrorRoutes has error routes that answer nothing: the error goes on, and
// the upstream does not see the request again.
func TestErrorRoutes(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	seen := make(chan string, 10)
	g.create(route{Path: "/x", Method: "POST", TargetURL: newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Method
		panic(http.ErrAbortHandler)
	}).URL, Plugins: plugins(
		`{"handler":"subroute","routes":[],"errors":{"routes":[{"match":[{"path":["/other"]}],"handle":[{"handler":"static_response"}]},{"handle":[{"handler":"headers","response":{"set":{"X-Error":["{http.error.status_code}"]}}}]}]}}`,
	)})
	a := g.send(http.MethodPost, "/x", payload("once"))
	wantProblem(t, a, http.StatusBadGateway)
	if a.header.Get("X-Error") != "502" {
		t.Errorf("the error routes have not run: %v", a.header)
	}
	if len(seen) != 1 {
		t.Errorf("the upstream has seen the request %d times", len(seen))
	}
}

// TestForwardAuthPolicy has the target policy apply to a plugin's own
// connections, and not to the site's.
func TestForwardAuthPolicy(t *testing.T) {
	t.Parallel()
	upstream := textUpstream(t, "through")
	asked := make(chan string, 10)
	auth := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path })
	set := settings{site: "isekai_forward_auth /site/* " + auth.URL + "/site"}
	g := startGateway(t, set)
	g.create(route{Path: "/site/x", TargetURL: upstream})
	g.create(route{Path: "/route/x", TargetURL: upstream, Plugins: plugins(`{"handler":"isekai_forward_auth","url":"` + auth.URL + `/route"}`)})
	g.wantBody("/route/x", "through")
	for _, url := range []string{"http://" + g.admin + "/config/", "http://localhost:" + port(g.admin) + "/", "http://169.254.169.254/", "http://[::ffff:a9fe:a9fe]/", "http://0.0.0.0:80/"} {
		for field, plugin := range map[string]string{
			"body.plugins[0].url":                     `{"handler":"isekai_forward_auth","url":"` + url + `"}`,
			"body.plugins[0].routes[0].handle[0].url": `{"handler":"subroute","routes":[{"handle":[{"handler":"isekai_forward_auth","url":"` + url + `"}]}]}`,
		} {
			p := g.refused(route{Path: "/y", TargetURL: upstream, Plugins: plugins(plugin)}, http.StatusUnprocessableEntity)
			if len(p.Errors) != 1 || p.Errors[0].Location != field || !strings.Contains(p.Errors[0].Message, "not allowed") {
				t.Errorf("%s is refused with %+v", url, p.Errors)
			}
		}
	}

	// What was written is held to the policy of now, and the operator's own is not.
	for len(asked) > 0 {
		<-asked
	}
	upstreamAddress := strings.TrimPrefix(upstream, "http://")
	denied := set
	denied.options = "targets {\n deny 127.0.0.1\n}"
	g.configure(denied)
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/route/x", "/site/x"} {
		wantProblem(t, g.send(http.MethodGet, path), http.StatusServiceUnavailable, upstreamAddress)
	}
	if path := <-asked; path != "/site" || len(asked) > 0 {
		t.Errorf("asked was %s and %d more", path, len(asked))
	}
}

// TestForwardAuthResolved has a plugin's host resolve to an address that the policy
// refuses only when it connects.
func TestForwardAuthResolved(t *testing.T) {
	t.Parallel()
	name, err := os.Hostname()
	if err != nil {
		t.Skip("this machine has no name")
	}
	addresses, err := net.DefaultResolver.LookupHost(t.Context(), name)
	if err != nil {
		t.Skipf("this machine's name does not resolve: %v", err)
	}
	g := startGateway(t, settings{options: "targets {\n allow 127.0.0.1\n deny " + strings.Join(slices.DeleteFunc(addresses, func(a string) bool { return a == "127.0.0.1" }), " ") + " 192.0.2.1\n}"})
	g.create(route{Path: "/x", TargetURL: textUpstream(t, "through"), Plugins: plugins(`{"handler":"isekai_forward_auth","url":"http://` + strings.ToLower(name) + `:` + port(g.admin) + `/"}`)})
	wantProblem(t, g.send(http.MethodGet, "/x"), http.StatusBadGateway)
	eventually(t, callTimeout, "the log says why", func() error {
		if log := g.log.String(); !strings.Contains(log, "target address is not allowed") {
			return errors.New("it does not")
		}
		return nil
	})
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
		"answers with a secret":      {strict, `{"handler":"static_response","body":"{env.HOME}"}`, "{env."},
		"renders templates":          {strict, `{"handler":"templates"}`, "templates"},
		"forwards itself":            {strict, `{"handler":"reverse_proxy","upstreams":[{"dial":"127.0.0.1:2019"}]}`, "reverse_proxy"},
		"this gateway":               {strict, `{"handler":"isekai"}`, "isekai"},
		"nested, outer refused":      {settings{options: "plugins headers"}, `{"handler":"subroute","routes":[{"handle":[{"handler":"headers"}]}]}`, "subroute"},
		"nested, by default":         {strict, `{"handler":"subroute","routes":[{"handle":[{"handler":"reverse_proxy"}]}]}`, "reverse_proxy"},
		"CEL":                        {strict, `{"handler":"subroute","routes":[{"match":[{"expression":"true"}]}]}`, "http.matchers.expression"},
		"a matcher of files":         {strict, `{"handler":"subroute","routes":[{"match":[{"not":[{"file":{"root":"/"}}]}]}]}`, "http.matchers.file"},
		"a matcher of placeholders":  {strict, `{"handler":"subroute","routes":[{"match":[{"vars":{"{}env.HOME}":["/"]}}]}]}`, "http.matchers.vars"},
		"another provider":           {strict, `{"handler":"authentication","providers":{"nothing":{}}}`, "http.authentication.providers.nothing"},
		"a dear password":            {strict, `{"handler":"authentication","providers":{"http_basic":{"accounts":[{"username":"a","password":"$2a$31$4oDF/yfJWVpkYNsQAz9jmeFL3ygRsRpSAKgLKLyhNNhkCBtm22EFS"}]}}}`, "cost"},
		"an unknown encoder":         {strict, `{"handler":"encode","encodings":{"br":{}}}`, "http.encoders.br"},
		"the environment by detours": {strict, `{"handler":"rewrite","uri":"/{{http.request.uri.path}}"}`, "braces"},
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
