package isekai_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// adminSite serves the admin API on the site, with routes behind it.
func adminSite(origins ...string) func(map[string]any) {
	handler := map[string]any{"handler": "isekai_admin"}
	if len(origins) > 0 {
		handler["origins"] = origins
	}
	return func(cfg map[string]any) {
		siteOf(cfg)["trusted_proxies"] = map[string]any{"source": "static", "ranges": []string{"127.0.0.1/32"}}
		siteOf(cfg)["routes"] = []any{map[string]any{"handle": []any{handler, map[string]any{"handler": "isekai"}}}}
	}
}

// token makes a token by Caddy's admin endpoint.
func (s *server) token(name, role string) (id, text string) {
	s.t.Helper()
	res := s.write("POST", "/api/tokens", map[string]any{"name": name, "role": role})
	var made struct{ ID, Token string }
	if err := json.Unmarshal([]byte(res.body), &made); err != nil || res.StatusCode != http.StatusCreated {
		s.t.Fatalf("making a token: %d %s", res.StatusCode, res.body)
	}
	return made.ID, made.Token
}

func TestAdminSite(t *testing.T) {
	s := start(t, adminSite())
	tokens := map[string]string{"": ""}
	for _, role := range []string{"read", "write", "admin"} {
		_, tokens[role] = s.token(role, role)
	}
	_, other := s.token("other", "admin")
	const body = `{"path": "/a", "target_url": "http://127.0.0.1:9"}`
	for _, tt := range []struct {
		token, method, path, body string
		want                      int
	}{
		{"", "GET", "/api/routes", "", 401},
		{"read", "GET", "/api/routes", "", 200},
		{"read", "GET", "/health", "", 200},
		{"read", "POST", "/api/routes", body, 403},
		{"read", "GET", "/api/tokens", "", 403},
		{"write", "POST", "/api/routes", body, 201},
		{"write", "POST", "/api/consumers", `{"name": "shop"}`, 201},
		{"write", "GET", "/api/tokens", "", 403},
		{"write", "POST", "/api/tokens", `{"name": "x", "role": "admin"}`, 403},
		{"admin", "POST", "/api/tokens", `{"name": "x", "role": "read"}`, 201},
		{"admin", "DELETE", "/api/routes/1", "", 204},
		{"read", "GET", "/config/", "", 404}, // Caddy's own admin API is out of reach
		{"read", "GET", "/api/nothing", "", 404},
	} {
		res := s.do(tt.method, s.site+tt.path, tt.body, "Content-Type", "application/json", "Authorization", "Bearer "+tokens[tt.token])
		if res.StatusCode != tt.want {
			t.Errorf("%s %s as %q: %d, want %d: %s", tt.method, tt.path, tt.token, res.StatusCode, tt.want, res.body)
		}
	}
	if got := s.get("/api/routes").Header.Get("WWW-Authenticate"); got != `Bearer realm="isekai admin"` {
		t.Errorf("challenge %q", got)
	}

	// Whose name is in the history?
	s.do("POST", s.site+"/api/routes", body, "Content-Type", "application/json", "Authorization", "Bearer "+other)
	if actors := s.sql("SELECT DISTINCT actor FROM revisions ORDER BY 1"); !cmp.Equal(actors, []string{"token:admin", "token:other", "token:write"}) {
		t.Errorf("actors %q", actors)
	}
}

func TestAdminSiteRevocation(t *testing.T) {
	s := start(t, adminSite())
	id, text := s.token("ci", "read")
	ask := func() int {
		return s.get("/api/routes", "Authorization", "Bearer "+text).StatusCode
	}
	if got := ask(); got != 200 {
		t.Fatal(got)
	}
	if res := s.write("DELETE", "/api/tokens/"+id, nil); res.StatusCode != 204 {
		t.Fatal(res.StatusCode, res.body)
	}
	if got := ask(); got != 401 {
		t.Errorf("a revoked token: %d", got)
	}
}

func TestAdminSiteGuesses(t *testing.T) {
	s := start(t, adminSite())
	_, good := s.token("ci", "read")
	wrong := good[:len(good)-1] + string('a'+(good[len(good)-1]-'a'+1)%26)
	ask := func(client, token string) response {
		return s.get("/api/routes", "X-Forwarded-For", client, "Authorization", "Bearer "+token)
	}
	texts := []string{wrong, "ist_x", "isk_" + good[4:], "", good + "a"}
	for i := range 10 {
		if res := ask("192.0.2.1", texts[i%len(texts)]); res.StatusCode != 401 {
			t.Fatalf("guess %d: %d", i, res.StatusCode)
		}
	}
	res := ask("192.0.2.1", good)
	if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("after ten guesses: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	if res := ask("192.0.2.2", good); res.StatusCode != 200 {
		t.Errorf("another client: %d", res.StatusCode)
	}
	for i := range 10 {
		ask("2001:db8::"+string('1'+rune(i%9)), wrong)
	}
	if res := ask("2001:db8::ffff", good); res.StatusCode != 429 {
		t.Errorf("another address of the same /64: %d", res.StatusCode)
	}
	// No token at all is no guess.
	for range 20 {
		s.get("/api/routes", "X-Forwarded-For", "192.0.2.3")
	}
	if res := ask("192.0.2.3", good); res.StatusCode != 200 {
		t.Errorf("a client that forgot its token: %d", res.StatusCode)
	}
}

func TestAdminSiteCORS(t *testing.T) {
	s := start(t, adminSite("https://console.example.com"))
	preflight := func(origin string) response {
		return s.do("OPTIONS", s.site+"/api/routes", "", "Origin", origin,
			"Access-Control-Request-Method", "PATCH", "Access-Control-Request-Headers", "authorization,content-type,if-match")
	}
	res := preflight("https://console.example.com")
	if res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Origin") != "https://console.example.com" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
	res = preflight("https://evil.example.com")
	if res.StatusCode != 403 || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("foreign preflight: %d %v", res.StatusCode, res.Header)
	}
	res = s.get("/api/routes", "Origin", "https://console.example.com")
	if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != "https://console.example.com" {
		t.Errorf("an error that pages can't read: %d %v", res.StatusCode, res.Header)
	}
	if res := s.get("/api/routes", "Origin", "https://evil.example.com"); res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("shared with a foreign origin: %v", res.Header)
	}
}

func TestAdminSiteWithoutOrigins(t *testing.T) {
	s := start(t, adminSite())
	res := s.do("OPTIONS", s.site+"/api/routes", "", "Origin", "https://a.example", "Access-Control-Request-Method", "GET")
	if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight: %d %v", res.StatusCode, res.Header)
	}
}

func TestCaddyfileAdminSite(t *testing.T) {
	t.Parallel()
	cfg, err := adapt(t, "{\n\tisekai\n}\nadmin.example.com {\n\tisekai_admin {\n\t\torigins https://console.example.com\n\t}\n}")
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"handler":"isekai_admin","origins":["https://console.example.com"]}`; !strings.Contains(string(encoded), want) {
		t.Errorf("%s is not in %s", want, encoded)
	}
	for _, bad := range []string{"origins", "origins *", "origins null", "colour red", "origins https://a\norigins https://b"} {
		if _, err := adapt(t, "{\n\tisekai\n}\n:80 {\n\tisekai_admin {\n"+bad+"\n\t}\n}"); err == nil || !strings.Contains(err.Error(), "Caddyfile:") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
