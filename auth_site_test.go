package isekai_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/certtest"
)

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
	example, err := adapt(t, string(content)+"\nhttp://logged.test {\n\timport access_log\n}\n")
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
