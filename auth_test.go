package isekai_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/isekai-gateway/isekai/internal/certtest"
)

// keyOf makes a consumer with a key, and returns the key and its public id.
func (s *server) keyOf(name string, groups ...string) (key, id string) {
	s.t.Helper()
	res := s.write("POST", "/api/consumers", map[string]any{"name": name, "groups": append([]string{}, groups...)})
	if res.StatusCode != http.StatusCreated {
		s.t.Fatalf("creating consumer: %d %s", res.StatusCode, res.body)
	}
	return s.anotherKey(res.Header.Get("Location"))
}

func (s *server) anotherKey(consumer string) (key, id string) {
	s.t.Helper()
	res := s.write("POST", consumer+"/keys", map[string]any{})
	var made struct{ ID, Key string }
	if err := json.Unmarshal([]byte(res.body), &made); err != nil || made.Key == "" {
		s.t.Fatalf("creating key: %d %s", res.StatusCode, res.body)
	}
	return made.Key, made.ID
}

// withAuth sets up the app's option auth.
func withAuth(t *testing.T, settings map[string]any) func(map[string]any) {
	t.Helper()
	return func(cfg map[string]any) { isekaiApp(cfg)["auth"] = settings }
}

func bcryptOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

func basicOf(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

func TestRouteAuth(t *testing.T) {
	s := start(t, withAuth(t, map[string]any{
		"api_key": map[string]any{"query": []any{"api_key"}},
		"basic":   map[string]any{"bob": map[string]any{"password": bcryptOf(t, "secret"), "groups": []any{"staff"}}},
	}))
	upstream := echo(t)
	key, keyID := s.keyOf("alice", "mobile")
	plugins := []any{map[string]any{"handler": "headers", "request": map[string]any{"set": map[string]any{
		"X-Plugin": []any{"{http.auth.user.id} {http.auth.user.method} {http.auth.user.consumer} {http.auth.user.key_id} {http.auth.user.groups}"},
	}}}}
	for path, auth := range map[string]map[string]any{
		"/open": nil, "/key": {"any": []any{"api_key"}}, "/staff": {"any": []any{"api_key", "basic"}, "groups": []any{"staff"}},
		"/anonymous": {"any": []any{"basic", "api_key"}, "anonymous": true},
	} {
		r := route{"path": path + "/*", "target_url": upstream.URL, "plugins": plugins}
		if auth != nil {
			r["auth"] = auth
		}
		s.create(r)
	}

	spoofed := []string{"X-Consumer-Id", "1", "X-Consumer-Name", "root", "x-consumer-groups", "admin", "X-Auth-Method", "mtls", "X_Consumer_Name", "root", "X.Consumer.Name", "root"}
	alice := map[string]string{"X-Consumer-Id": "1", "X-Consumer-Name": "alice", "X-Consumer-Groups": "mobile", "X-Auth-Method": "api_key", "X-Plugin": "1 api_key alice " + keyID + " mobile"}
	bob := map[string]string{"X-Consumer-Id": "bob", "X-Consumer-Name": "bob", "X-Consumer-Groups": "staff", "X-Auth-Method": "basic", "X-Plugin": "bob basic   staff"}
	nobody := map[string]string{"X-Consumer-Id": "", "X-Consumer-Name": "", "X-Consumer-Groups": "", "X-Auth-Method": ""}
	for _, tt := range []struct {
		name, path string
		send       []string
		status     int
		challenge  string
		uri        string
		want       map[string]string
	}{
		{"header", "/key/x?a=%20&b", []string{"X-API-Key", key}, 200, "", "/key/x?a=%20&b", alice},
		{"bearer", "/key/x", []string{"Authorization", "Bearer " + key}, 200, "", "/key/x", alice},
		{"query", "/key/x?a=%20&api_key=" + key + "&b", nil, 200, "", "/key/x?a=%20&b", alice},
		{"only query", "/key/x?api_key=" + key, nil, 200, "", "/key/x", alice},
		{"Connection can't name who it is", "/key/x", []string{"X-API-Key", key, "Connection", "close, X-Consumer-Name, X-Auth-Method"}, 200, "", "/key/x", alice},
		{"none", "/key/x", nil, 401, `ApiKey realm="isekai"`, "", nil},
		{"wrong", "/key/x", []string{"X-API-Key", key[:70] + "aaaaaaa"}, 401, `ApiKey realm="isekai"`, "", nil},
		{"password", "/staff/x", []string{"Authorization", basicOf("bob", "secret")}, 200, "", "/staff/x", bob},
		{"wrong group", "/staff/x", []string{"X-API-Key", key}, 403, "", "", nil},
		{"challenges", "/staff/x", nil, 401, `ApiKey realm="isekai"|Basic realm="isekai", charset="UTF-8"`, "", nil},
		{"anonymous", "/anonymous/x", nil, 200, "", "/anonymous/x", nobody},
		{"anonymous, known", "/anonymous/x", []string{"X-API-Key", key}, 200, "", "/anonymous/x", alice},
		{"anonymous, wrong", "/anonymous/x", []string{"Authorization", basicOf("bob", "x")}, 401, `Basic realm="isekai", charset="UTF-8"|ApiKey realm="isekai"`, "", nil},
		{"no auth", "/open/x?api_key=1", nil, 200, "", "/open/x?api_key=1", nobody},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := s.get(tt.path, append(tt.send, spoofed...)...)
			if res.StatusCode != tt.status || strings.Join(res.Header.Values("WWW-Authenticate"), "|") != tt.challenge {
				t.Fatalf("status %d, header %v, body %s", res.StatusCode, res.Header, res.body)
			}
			if tt.status != http.StatusOK {
				var p struct{ Title, Detail string }
				if err := json.Unmarshal([]byte(res.body), &p); err != nil || p.Detail == "" || strings.Contains(res.body, key) {
					t.Errorf("body %s", res.body)
				}
				return
			}
			got := decodeSeen(t, res)
			if got.URI != tt.uri {
				t.Errorf("the upstream saw %s, want %s", got.URI, tt.uri)
			}
			for name, want := range tt.want {
				if value := strings.Join(got.Header.Values(name), "|"); value != want {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
			for name, values := range got.Header {
				if strings.ContainsAny(name, "_.") || strings.Contains(strings.Join(values, ""), key) || name == "Authorization" || name == "X-Api-Key" {
					t.Errorf("the upstream saw %s: %q", name, values)
				}
			}
		})
	}

	t.Run("a route without auth leaves credentials alone", func(t *testing.T) {
		got := decodeSeen(t, s.get("/open/x", "X-API-Key", key, "Authorization", basicOf("a", "b")))
		if got.Header.Get("X-Api-Key") != key || got.Header.Get("Authorization") != basicOf("a", "b") {
			t.Errorf("the upstream saw %v", got.Header)
		}
	})

	t.Run("the request log names the caller", func(t *testing.T) {
		eventually(t, "alice is in the log", func() bool {
			res := s.do("GET", s.admin+"/api/logs?consumer=alice", "")
			return res.StatusCode == http.StatusOK && strings.Contains(res.body, `"status":200`) &&
				strings.Contains(res.body, `"status":403`) && !strings.Contains(res.body, key)
		})
	})

	t.Run("a key stops with its consumer", func(t *testing.T) {
		if res := s.write("PATCH", "/api/consumers/1", map[string]any{"enabled": false}); res.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", res.StatusCode, res.body)
		}
		eventually(t, "the key is refused", func() bool { return s.get("/key/x", "X-API-Key", key).StatusCode == http.StatusUnauthorized })
	})
}

// TestTrailersCannotClaim sends a field that tells an identity behind a body.
func TestTrailersCannotClaim(t *testing.T) {
	s := start(t, nil)
	seenTrailer := make(chan http.Header, 2)
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seenTrailer <- r.Trailer
	}))
	t.Cleanup(upstream.Close)
	s.create(route{"path": "/*", "method": "POST", "target_url": upstream.URL})
	for _, announced := range []string{"X-Consumer-Name, X-Other", "X-Other"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Consumer-Name: root\r\nX-Other: 1\r\n\r\n", announced)
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if got := <-seenTrailer; len(got["X-Consumer-Name"]) > 0 || got.Get("X-Other") != "1" {
			t.Errorf("announced %s, the upstream saw the trailer %v", announced, got)
		}
	}
}

// TestAuthMethodsComeAndGo has routes name methods that are not configured, or not
// any more.
func TestAuthMethodsComeAndGo(t *testing.T) {
	settings := map[string]any{"basic": map[string]any{"bob": map[string]any{"password": bcryptOf(t, "secret")}}}
	s, upstream := start(t, withAuth(t, settings)), echo(t)
	r := route{"path": "/*", "target_url": upstream.URL, "auth": map[string]any{"any": []any{"basic", "jwt", "oauth"}, "groups": []any{""}}}
	res := s.write("POST", "/api/routes", r)
	for _, want := range []string{"auth.any[1]", "auth { jwt", "auth.any[2]", "must be one of", "auth.groups[0]"} {
		if res.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(res.body, want) {
			t.Errorf("%d %s lacks %s", res.StatusCode, res.body, want)
		}
	}
	r["auth"] = map[string]any{"any": []any{"basic"}, "anonymous": true}
	s.create(r)
	if res := s.get("/x", "Authorization", basicOf("bob", "secret")); res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, res.body)
	}
	if err := s.load(nil); err != nil {
		t.Fatal(err)
	}
	for _, header := range [][]string{nil, {"Authorization", basicOf("bob", "secret")}} {
		if res := s.get("/x", header...); res.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("without its method the route answers %d %s", res.StatusCode, res.body)
		}
	}
	if err := s.load(withAuth(t, settings)); err != nil {
		t.Fatal(err)
	}
	if res := s.get("/x"); res.StatusCode != http.StatusOK {
		t.Errorf("with its method again the route answers %d %s", res.StatusCode, res.body)
	}
}

func TestAuthAmongPolicies(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	key, _ := s.keyOf("alice")
	s.create(route{
		"path": "/*", "target_url": upstream.URL, "auth": map[string]any{"any": []any{"api_key"}}, "rate_limit": 1,
		"limits": map[string]any{"key": "{http.auth.user.id}"}, "cors": map[string]any{"headers": []any{"X-API-Key"}},
	})
	preflight := s.do("OPTIONS", s.site+"/x", "", "Origin", "https://a.test", "Access-Control-Request-Method", "GET")
	if preflight.StatusCode != http.StatusNoContent {
		t.Errorf("preflight: %d", preflight.StatusCode)
	}
	for range 3 {
		res := s.get("/x", "Origin", "https://a.test")
		if res.StatusCode != http.StatusUnauthorized || res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("RateLimit") != "" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	}
	for _, want := range []int{200, 429} {
		if res := s.get("/x", "X-API-Key", key); res.StatusCode != want {
			t.Errorf("%d, want %d", res.StatusCode, want)
		}
	}
}

// newEcho is an upstream that says as whom it was asked.
func newEcho(t *testing.T) string {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo-Consumer", strings.Join(r.Header.Values("X-Consumer-Name"), "|"))
	}))
	t.Cleanup(upstream.Close)
	return upstream.URL
}

// TestSiteAuth puts the handler and the provider in front of other handlers.
func TestSiteAuth(t *testing.T) {
	handle := func(path string, handlers ...any) any {
		return map[string]any{"match": []any{map[string]any{"path": []any{path}}}, "handle": handlers, "terminal": true}
	}
	says := map[string]any{"handler": "static_response", "body": "{http.auth.user.method}:{http.auth.user.name} {http.request.header.X-Consumer-Name} {http.request.header.X-Api-Key}"}
	own := map[string]any{"handler": "isekai_auth", "any": []any{"basic"}, "realm": "own", "basic": map[string]any{"bob": map[string]any{"password": bcryptOf(t, "secret")}}}
	s := start(t, func(cfg map[string]any) {
		routes := siteOf(cfg)["routes"].([]any)
		siteOf(cfg)["routes"] = append([]any{
			handle("/handler", map[string]any{"handler": "isekai_auth", "any": []any{"api_key"}, "groups": []any{"a"}}, says),
			handle("/own", own, says),
			handle("/routed/*", map[string]any{"handler": "isekai_auth", "any": []any{"api_key"}, "anonymous": true}, map[string]any{"handler": "isekai"}),
			handle("/provider", map[string]any{"handler": "authentication", "providers": map[string]any{"isekai": map[string]any{"any": []any{"api_key"}}}}, says),
		}, routes...)
	})
	member, _ := s.keyOf("member", "a")
	other, _ := s.keyOf("other", "b")
	for _, tt := range []struct {
		path   string
		header []string
		status int
		want   string // the body, or the challenge
	}{
		{"/handler", []string{"X-API-Key", member, "X-Consumer-Name", "root", "Connection", "X-Consumer-Name"}, 200, "api_key:member member "},
		{"/handler", []string{"X-API-Key", other}, 403, ""},
		{"/handler", nil, 401, `ApiKey realm="isekai"`},
		{"/own", []string{"Authorization", basicOf("bob", "secret")}, 200, "basic:bob bob "},
		{"/own", []string{"X-API-Key", member}, 401, `Basic realm="own", charset="UTF-8"`},
		{"/provider", []string{"X-API-Key", other}, 200, "api_key:other other "},
		{"/provider", []string{"X-API-Key", "x"}, 401, `ApiKey realm="isekai"`},
	} {
		res := s.get(tt.path, tt.header...)
		got := res.Header.Get("WWW-Authenticate")
		if res.StatusCode == http.StatusOK {
			got = res.body
		}
		if res.StatusCode != tt.status || got != tt.want {
			t.Errorf("%s %v: %d %q, want %d %q", tt.path, tt.header, res.StatusCode, got, tt.status, tt.want)
		}
	}
	// Routes know whom the site has let in, unless they ask themselves.
	upstream := newEcho(t)
	s.create(route{"path": "/routed/plain", "target_url": upstream, "limits": route{"rules": []route{{"name": "each", "limit": 1}}}})
	s.create(route{"path": "/routed/asks", "target_url": upstream, "auth": route{"any": []string{"api_key"}, "anonymous": true}})
	for _, tt := range []struct {
		path, key string
		status    int
		want      string
	}{
		{"/routed/plain", member, 200, "member"},
		{"/routed/plain", other, 200, "other"}, // counted apart
		{"/routed/plain", member, 429, ""},
		{"/routed/plain", "", 200, ""},
		{"/routed/asks", member, 200, ""}, // the site has taken the key
	} {
		header := []string{"X-Consumer-Name", "root"}
		if tt.key != "" {
			header = append(header, "X-API-Key", tt.key)
		}
		res := s.get(tt.path, header...)
		if got := res.Header.Get("X-Echo-Consumer"); res.StatusCode != tt.status || got != tt.want {
			t.Errorf("%s: %d as %q, want %d as %q", tt.path, res.StatusCode, got, tt.status, tt.want)
		}
	}
	// What a site asks for must be configured somewhere.
	if err := s.load(func(cfg map[string]any) {
		siteOf(cfg)["routes"] = []any{handle("/x", map[string]any{"handler": "isekai_auth", "any": []any{"jwt"}})}
	}); err == nil || !strings.Contains(err.Error(), "jwt is not configured") {
		t.Errorf("error %v", err)
	}
}

// TestNothingSecretIsShown has the access log of Caddyfile.example write down
// requests with keys, and looks for secrets there and in the configuration.
func TestNothingSecretIsShown(t *testing.T) {
	content, err := os.ReadFile("Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	example, err := adapt(t, string(content))
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Repeat("planted-secret-", 3)
	t.Setenv("TEST_JWT_SECRET", secret)
	file := filepath.Join(t.TempDir(), "access.log")
	s := start(t, func(cfg map[string]any) {
		encoder := example["logging"].(map[string]any)["logs"].(map[string]any)["log0"].(map[string]any)["encoder"]
		cfg["logging"].(map[string]any)["logs"].(map[string]any)["access"] = map[string]any{
			"writer": map[string]any{"output": "file", "filename": file, "roll": false}, "encoder": encoder, "level": "DEBUG",
			"include": []any{"http.log.access", "isekai", "http.log.error"},
		}
		siteOf(cfg)["logs"] = map[string]any{}
		isekaiApp(cfg)["auth"] = map[string]any{
			"api_key": map[string]any{"query": []any{"api_key"}},
			"jwt":     map[string]any{"corp": map[string]any{"issuer": "corp", "audience": []any{"*"}, "secret": "{env.TEST_JWT_SECRET}"}},
		}
	})
	upstream := echo(t)
	s.create(route{"path": "/*", "target_url": upstream.URL, "auth": map[string]any{"any": []any{"api_key", "jwt"}}})
	key, _ := s.keyOf("alice")
	wrong := key[:70] + "zzzzzzz"
	for _, text := range []string{key, wrong} {
		s.get("/x?a=1&api_key=" + text)
		s.get("/x", "X-API-Key", text)
		s.get("/x", "Authorization", "Bearer "+text)
	}
	s.get("/x", "Authorization", "Bearer planted.token.secret")
	var log []byte
	eventually(t, "the requests are logged", func() bool {
		log, err = os.ReadFile(file)
		return err == nil && strings.Count(string(log), `"msg":"handled request"`) >= 7
	})
	if n := strings.Count(string(log), `"consumer":"alice"`); n != 3 {
		t.Errorf("%d lines name the consumer, want 3:\n%s", n, log)
	}
	config := s.do("GET", s.admin+"/config/", "").body
	for name, text := range map[string]string{"the log": string(log), "the configuration": config} {
		for _, planted := range []string{key[21:], wrong[21:], secret, "planted.token"} {
			if strings.Contains(text, planted) {
				t.Errorf("%s shows %s:\n%s", name, planted, text)
			}
		}
	}
	if !strings.Contains(config, "{env.TEST_JWT_SECRET}") || !strings.Contains(string(log), "credentials refused") {
		t.Error("there was nothing to look for")
	}
}

// TestCertificateAuth has clients with certificates come to sites that verify them, and
// to one that only asks for them.
func TestCertificateAuth(t *testing.T) {
	ours, strangers := certtest.NewAuthority(t, "ours"), certtest.NewAuthority(t, "strangers")
	server := ours.Valid("localhost")
	site := func(mode string) func(map[string]any) {
		return func(cfg map[string]any) {
			isekaiApp(cfg)["auth"] = map[string]any{"mtls": true}
			cfg["apps"].(map[string]any)["tls"] = map[string]any{"certificates": map[string]any{"load_pem": []any{
				map[string]any{"certificate": server.Certificate, "key": server.Key},
			}}}
			authentication := map[string]any{"mode": mode}
			if mode != "request" {
				block, _ := pem.Decode([]byte(ours.PEM))
				authentication["ca"] = map[string]any{"provider": "inline", "trusted_ca_certs": []any{base64.StdEncoding.EncodeToString(block.Bytes)}}
			}
			siteOf(cfg)["tls_connection_policies"] = []any{map[string]any{"client_authentication": authentication}}
			siteOf(cfg)["automatic_https"] = map[string]any{"disable": true}
		}
	}
	s, upstream := start(t, site("verify_if_given")), echo(t)
	s.create(route{"path": "/*", "target_url": upstream.URL, "auth": map[string]any{"any": []any{"mtls"}}})
	get := func(by *certtest.Authority) (int, string) {
		client := &tls.Config{RootCAs: ours.Pool, ServerName: "localhost"}
		if by != nil {
			certificate := by.Valid("client.test").TLS(t)
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
		}
		transport := &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(s.site, "http:", "https:", 1)+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "localhost" // as in the handshake, which Caddy asks for here
		res, err := transport.RoundTrip(req)
		if err != nil {
			return 0, ""
		}
		defer res.Body.Close()
		var got seen
		_ = json.NewDecoder(res.Body).Decode(&got)
		return res.StatusCode, got.Header.Get("X-Auth-Method") + " " + got.Header.Get("X-Consumer-Name")
	}
	if status, who := get(ours); status != http.StatusOK || who != "mtls client.test" {
		t.Errorf("verified: %d %s", status, who)
	}
	if status, _ := get(nil); status != http.StatusUnauthorized {
		t.Errorf("none: %d", status)
	}
	if status, _ := get(strangers); status != 0 {
		t.Errorf("a stranger's: %d", status)
	}
	if err := s.load(site("request")); err != nil {
		t.Fatal(err)
	}
	for name, by := range map[string]*certtest.Authority{"ours": ours, "a stranger's": strangers} {
		if status, _ := get(by); status != http.StatusUnauthorized {
			t.Errorf("%s, not verified: %d", name, status)
		}
	}
}

func TestCaddyfileAuth(t *testing.T) {
	t.Parallel()
	cfg, err := adapt(t, `{
	isekai {
		auth {
			api_key {
				header X-Key
			}
			jwt corp {
				issuer https://corp.example.com
				audience orders
				jwks_url https://corp.example.com/keys
			}
			mtls
			headers {
				X-User {http.auth.user.name}
			}
		}
		max_concurrent 5
	}
}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"auth": map[string]any{
			"api_key": map[string]any{"headers": []any{"X-Key"}},
			"jwt":     map[string]any{"corp": map[string]any{"issuer": "https://corp.example.com", "audience": []any{"orders"}, "jwks_url": "https://corp.example.com/keys"}},
			"mtls":    true,
			"headers": map[string]any{"X-User": "{http.auth.user.name}"},
		},
		"max_concurrent": 5.0,
	}
	if diff := cmp.Diff(want, cfg["apps"].(map[string]any)["isekai"]); diff != "" {
		t.Error(diff)
	}
}
