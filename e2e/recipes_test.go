package e2e_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// page is one page of docs/recipes.
type page struct {
	name   string
	routes []string // its JSON
	sites  []string // its Caddyfile
	used   map[string]bool
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

func readPage(t *testing.T, name string) *page {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "recipes", name))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{name: name, used: make(map[string]bool)}
	for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
		switch block[1] {
		case "json":
			p.routes = append(p.routes, block[2])
		case "caddyfile":
			p.sites = append(p.sites, block[2])
		}
	}
	return p
}

// load sends the page's route with this path to the admin API, as it is but for
// addresses, which come in pairs of what the page says and what it stands for.
func (p *page) load(g *gateway, path string, addresses ...string) {
	g.t.Helper()
	for _, text := range p.routes {
		if !strings.Contains(text, fmt.Sprintf("\"path\": %q,", path)) {
			continue
		}
		p.used[text] = true
		for i := 0; i < len(addresses); i += 2 {
			if !strings.Contains(text, addresses[i]) {
				g.t.Fatalf("%s: the route %s has no %s", p.name, path, addresses[i])
			}
		}
		if a := g.call(http.MethodPost, "/api/routes", []byte(strings.NewReplacer(addresses...).Replace(text))); a.status != http.StatusCreated {
			g.t.Fatalf("%s: the route %s is answered %s", p.name, path, a)
		}
		return
	}
	g.t.Fatalf("%s has no route with the path %s", p.name, path)
}

// The addresses that stand in the pages.
const (
	pageUpstream = "http://10.0.0.5:9000"
	pageAuth     = "http://10.0.0.9:9091"
)

// from has a request come from an address, by way of a trusted proxy.
func from(address string) func(*http.Request) { return header("X-Forwarded-For", address) }

// TestRecipes loads every route of docs/recipes, on the default configuration,
// and checks what the page says of it.
func TestRecipes(t *testing.T) {
	t.Parallel()
	recipes := map[string]func(*testing.T, *gateway, *page){
		"ip-lists.md":           tryIPLists,
		"headers.md":            tryHeaders,
		"compression.md":        tryCompression,
		"request-rewriting.md":  tryRequestRewriting,
		"response-rewriting.md": tryResponseRewriting,
		"basic-auth.md":         tryBasicAuth,
		"forward-auth.md":       tryForwardAuth,
	}
	index, err := os.ReadFile(filepath.Join("..", "docs", "recipes", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("..", "docs", "recipes", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if name == "README.md" {
			continue
		}
		if recipes[name] == nil {
			t.Errorf("nothing tries %s", name)
		}
		if !strings.Contains(string(index), "("+name+")") {
			t.Errorf("the index does not name %s", name)
		}
	}
	for name, try := range recipes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := readPage(t, name)
			g := startGateway(t, settings{servers: "trusted_proxies static 127.0.0.1"})
			try(t, g, p)
			for _, text := range append(p.routes, p.sites...) {
				if !p.used[text] {
					t.Errorf("nothing tries this:\n%s", text)
				}
			}
		})
	}
}

func tryIPLists(t *testing.T, g *gateway, p *page) {
	upstream := textUpstream(t, "let in")
	for _, path := range []string{"/internal/*", "/wiki/*", "/public/*"} {
		p.load(g, path, pageUpstream, upstream)
	}
	for _, c := range []struct {
		path, address string
		status        int
	}{
		{"/internal/x", "192.0.2.7", 200}, {"/internal/x", "2001:db8::7", 200}, {"/internal/x", "192.0.3.7", 403}, {"/internal/x", "2001:db9::7", 403},
		{"/internal", "203.0.113.7", 403},
		{"/public/x", "203.0.113.7", 403}, {"/public/x", "2001:db8:bad::1", 403}, {"/public/x", "192.0.2.7", 200}, {"/public/x", "2001:db8:1::1", 200},
		{"/wiki/x", "192.0.2.7", 200}, {"/wiki/status", "203.0.113.7", 200},
	} {
		a := g.send(http.MethodGet, c.path, from(c.address))
		if c.status == http.StatusForbidden {
			wantProblem(t, a, c.status, "list", c.address)
		} else if a.status != c.status || string(a.body) != "let in" {
			t.Errorf("%s from %s is answered %s", c.path, c.address, a)
		}
	}
	// Without the proxy's word it is the test's own address.
	wantProblem(t, g.send(http.MethodGet, "/internal/x"), http.StatusForbidden)
	for method, path := range map[string]string{http.MethodGet: "/wiki/x", http.MethodPost: "/wiki/status"} {
		if a := g.send(method, path, from("203.0.113.7")); a.status != http.StatusForbidden || string(a.body) != "Ask for access at the front desk.\n" {
			t.Errorf("%s %s is answered %s", method, path, a)
		}
	}
}

func tryHeaders(t *testing.T, g *gateway, p *page) {
	seen := make(chan http.Header, 1)
	p.load(g, "/orders/{id}", pageUpstream, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		w.Header().Set("Server", "secret/1.0")
		w.Header().Set("X-Powered-By", "magic")
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		w.Header().Set("Location", "http://orders.internal/orders/8")
		w.WriteHeader(http.StatusSeeOther)
	}).URL)
	a := g.send(http.MethodGet, "/orders/a%20b", from("203.0.113.7"), header("X-Order", "0"), header("X-Via", "client"), header("X-Debug-Level", "9"),
		header("User-Agent", "curl/8 (with words)"), header("Connection", "X-Client"))
	got := <-seen
	for name, want := range map[string]string{"X-Order": "a b", "X-Client": "203.0.113.7", "X-Via": "client, edge", "X-Debug-Level": "", "User-Agent": "curl/8"} {
		if value := strings.Join(got[name], ", "); value != want {
			t.Errorf("the upstream sees %s: %q, want %q", name, value, want)
		}
	}
	for name, want := range map[string]string{"Strict-Transport-Security": "max-age=31536000", "X-Powered-By": "", "Location": "https://api.example.com/orders/8"} {
		if value := strings.Join(a.header[name], ", "); value != want {
			t.Errorf("the client sees %s: %q, want %q", name, value, want)
		}
	}
	if strings.Contains(a.header.Get("Server"), "secret") {
		t.Errorf("the client sees Server: %q", a.header.Get("Server"))
	}
}

func tryCompression(t *testing.T, g *gateway, p *page) {
	long := strings.Repeat("compress me ", 100)
	p.load(g, "/reports/*", pageUpstream, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		kind, text := "text/plain", long
		switch r.URL.Path {
		case "/reports/short":
			text = "short"
		case "/reports/image":
			kind = "image/png"
		case "/reports/kept":
			w.Header().Set("Cache-Control", "no-transform")
		case "/reports/packed":
			w.Header().Set("Content-Encoding", "br")
		}
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, text)
	}).URL)
	for _, c := range []struct{ path, accept, encoding string }{
		{"/reports/long", "gzip", "gzip"}, {"/reports/long", "zstd", "zstd"}, {"/reports/long", "gzip, zstd", "zstd"}, {"/reports/long", "gzip, zstd;q=0.5", "gzip"},
		{"/reports/long", "", ""}, {"/reports/long", "br", ""}, {"/reports/short", "gzip", ""}, {"/reports/image", "gzip", ""}, {"/reports/kept", "gzip", ""}, {"/reports/packed", "gzip", "br"},
	} {
		a := g.send(http.MethodGet, c.path, func(r *http.Request) {
			if c.accept != "" {
				r.Header.Set("Accept-Encoding", c.accept)
			}
		})
		if got := a.header.Get("Content-Encoding"); a.status != http.StatusOK || got != c.encoding {
			t.Errorf("%s for %q is encoded as %q, want %q", c.path, c.accept, got, c.encoding)
			continue
		}
		body := io.Reader(strings.NewReader(string(a.body)))
		var err error
		switch c.encoding {
		case "gzip":
			body, err = gzip.NewReader(body)
		case "zstd":
			// Its magic number (RFC 8878, 3.1.1) will do.
			if !strings.HasPrefix(string(a.body), "\x28\xb5\x2f\xfd") || len(a.body) > len(long)/2 {
				t.Errorf("%s for %q is %.40q", c.path, c.accept, a.body)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(body); string(text) != long && (c.path != "/reports/short" || string(text) != "short") {
			t.Errorf("%s for %q reads %.40q (%v)", c.path, c.accept, text, err)
		}
		if c.encoding == "gzip" && len(a.body) > len(long)/2 {
			t.Errorf("%d bytes were compressed to %d", len(long), len(a.body))
		}
	}
}

func tryRequestRewriting(t *testing.T, g *gateway, p *page) {
	rec := newRecorder(t)
	p.load(g, "/v1/{rest...}", pageUpstream, rec.url)
	p.load(g, "/find/{term}", pageUpstream, rec.url)
	for target, want := range map[string]string{
		"/v1/orders/a%2Fb?q=x&debug=1&tag=old": "GET /api/2024/orders/a%2Fb?search=x&source=edge&tag=old&tag=new",
		"/v1/v1/x?source=client":               "GET /api/2024/v1/x?source=edge&tag=new",
		"/find/a%26b%3Fc?page=2":               "POST /search?term=a%26b%3Fc&page=2",
	} {
		g.wantBody(target, "recorded")
		got := rec.take()
		if len(got) != 1 {
			t.Fatalf("%s: the upstream has seen %+v", target, got)
		}
		u, err := url.ParseRequestURI(got[0].uri)
		wanted, _ := url.ParseRequestURI(strings.SplitN(want, " ", 2)[1])
		if err != nil || got[0].method != strings.Fields(want)[0] || u.EscapedPath() != wanted.EscapedPath() || u.Query().Encode() != wanted.Query().Encode() {
			t.Errorf("%s: the upstream has seen %s %s, want %s", target, got[0].method, got[0].uri, want)
		}
	}
}

func tryResponseRewriting(t *testing.T, g *gateway, p *page) {
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Debug-Host", "db7.internal")
		w.Header().Set("Etag", `"5"`)
		switch r.URL.Path {
		case "/shop/broken":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, strings.Repeat("stack trace ", 100))
		case "/shop/huge":
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, strings.Repeat("x", 5<<20))
		case "/legacy/tea":
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "teapot")
		default:
			_, _ = io.WriteString(w, "fine")
		}
	}).URL
	for path, target := range map[string]string{"/shop/*": upstream, "/legacy/*": upstream, "/fallback/*": fmt.Sprintf("http://127.0.0.1:%d", freePort(t))} {
		p.load(g, path, pageUpstream, target)
	}
	g.wantBody("/shop/x", "fine")
	a := g.send(http.MethodGet, "/shop/broken")
	if a.status != http.StatusServiceUnavailable || string(a.body) != `{"error": "try again later", "upstream": 500}` || a.header.Get("Retry-After") != "30" ||
		a.header.Get("Content-Type") != "application/json" || a.header.Get("X-Debug-Host") != "" || a.header.Get("Etag") != "" {
		t.Errorf("an error of the upstream is answered %s %v", a, a.header)
	}
	wantProblem(t, g.send(http.MethodGet, "/shop/huge"), http.StatusBadGateway, "xxxx", "db7")

	g.wantBody("/legacy/x", "fine")
	if a := g.send(http.MethodGet, "/legacy/tea"); a.status != http.StatusNotFound || string(a.body) != "teapot" {
		t.Errorf("a status is rewritten to %s", a)
	}
	if a := g.send(http.MethodGet, "/fallback/x"); a.status != http.StatusServiceUnavailable || string(a.body) != "<h1>Back in a moment</h1>\n" || a.header.Get("Retry-After") != "30" {
		t.Errorf("an error of the gateway is answered %s", a)
	}
}

func tryBasicAuth(t *testing.T, g *gateway, p *page) {
	rec := newRecorder(t)
	p.load(g, "/reports/*", pageUpstream, rec.url)
	login := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	for name, change := range map[string]func(*http.Request){
		"nobody":         func(*http.Request) {},
		"wrong password": login("ada", "correct horse"),
		"unknown user":   login("eve", "correct horse battery staple"),
	} {
		a := g.send(http.MethodGet, "/reports/x", change, header("X-User", "ada"))
		wantProblem(t, a, http.StatusUnauthorized, "ada")
		if a.header.Get("Www-Authenticate") != `Basic realm="reports"` {
			t.Errorf("%s: the client is asked for %q", name, a.header.Get("Www-Authenticate"))
		}
	}
	if got := rec.take(); len(got) > 0 {
		t.Errorf("without a password the upstream has seen %+v", got)
	}
	g.wantBody("/reports/x", "recorded", login("ada", "correct horse battery staple"), header("X-User", "root"))
	if got := rec.take(); len(got) != 1 || got[0].header.Get("X-User") != "ada" || got[0].header.Get("Authorization") != "" {
		t.Errorf("with the password the upstream has seen %+v", got)
	}
	// Guesses are limited.
	for range 20 {
		if g.send(http.MethodGet, "/reports/x").status == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("guesses are not limited")
}

func tryForwardAuth(t *testing.T, g *gateway, p *page) {
	rec := newRecorder(t)
	var mu sync.Mutex
	var asked []string
	auth := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, fmt.Sprint(r.Method, " ", r.RequestURI, " for ", r.Header.Get("X-Forwarded-Method"), " ", r.Header.Get("X-Forwarded-Uri"), " of ", r.Header.Get("X-Forwarded-For")))
		mu.Unlock()
		if r.Header.Get("Cookie") != "session=good" {
			w.Header().Set("Location", "https://login.example.com/")
			w.WriteHeader(http.StatusFound)
			_, _ = io.WriteString(w, "log in first")
			return
		}
		w.Header().Set("Remote-User", "ada")
		w.Header().Set("X-Session-Id", "7")
	})
	p.load(g, "/account/*", pageUpstream, rec.url, pageAuth, auth.URL)
	a := g.send(http.MethodGet, "/account/x", header("Remote-User", "root"))
	if a.status != http.StatusFound || a.header.Get("Location") != "https://login.example.com/" || string(a.body) != "log in first" {
		t.Errorf("without a session the answer is %s %v", a, a.header)
	}
	if got := rec.take(); len(got) > 0 {
		t.Errorf("without a session the upstream has seen %+v", got)
	}
	a = g.send(http.MethodPost, "/account/a%2Fb?x=1", from("203.0.113.7"), payload("body"), header("Cookie", "session=good"), header("Remote-User", "root"), header("Remote-Groups", "wheel"),
		header("X-Session", "0"), header("Connection", "Remote-User, X-Session"))
	got := rec.take()
	if a.status != http.StatusOK || len(got) != 1 {
		t.Fatalf("with a session the answer is %s, the upstream has seen %+v", a, got)
	}
	if h := got[0].header; strings.Join(h["Remote-User"], ",") != "ada" || len(h["Remote-Groups"]) > 0 || strings.Join(h["X-Session"], ",") != "7" || got[0].body != "body" {
		t.Errorf("the upstream has seen %+v", got[0])
	}
	mu.Lock()
	if want := "GET /verify?rd=https://login.example.com for POST /account/a%2Fb?x=1 of 203.0.113.7, 127.0.0.1"; len(asked) != 2 || asked[1] != want {
		t.Errorf("the service was asked %q, last %q wanted", asked, want)
	}
	mu.Unlock()

	// On a site, of another gateway so that no route is in its way.
	p.used[p.sites[0]] = true
	site := startGateway(t, settings{site: strings.ReplaceAll(p.sites[0], pageAuth, auth.URL)})
	site.create(route{Path: "/*", TargetURL: rec.url})
	site.wantBody("/open", "recorded")
	if a := site.send(http.MethodGet, "/private/x"); a.status != http.StatusFound {
		t.Errorf("the site without a session answers %s", a)
	}
	site.wantBody("/private/x", "recorded", header("Cookie", "session=good"), header("Remote-User", "root"))
	if got := rec.take(); len(got) != 2 || !slices.Equal(got[1].header["Remote-User"], []string{"ada"}) {
		t.Errorf("the site's upstream has seen %+v", got)
	}
	auth.Close()
	problem := wantProblem(t, g.send(http.MethodGet, "/account/x", header("Cookie", "session=good")), http.StatusBadGateway)
	if !strings.Contains(problem.Detail, "authorization service") {
		t.Errorf("without the service the problem says %q", problem.Detail)
	}
}
