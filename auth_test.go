package isekai_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"
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

// TestTrailersCannotClaim sends behind a body what may not stand in a header.
func TestTrailersCannotClaim(t *testing.T) {
	s := start(t, nil)
	seenTrailer := make(chan http.Header, 2)
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seenTrailer <- r.Trailer
	}))
	t.Cleanup(upstream.Close)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Remote-User", "alice")
	}))
	t.Cleanup(service.Close)
	s.create(route{"path": "/*", "method": "POST", "target_url": upstream.URL, "plugins": []any{
		route{"handler": "isekai_forward_auth", "url": service.URL, "copy_headers": []string{"Remote-User", "Remote-Groups"}},
		route{"handler": "headers", "request": route{"set": route{"X-User": []string{"alice"}}}},
	}})
	names := []string{"X-Consumer-Name", "Remote-User", "Remote-Groups", "X-User", "X-Real-Ip", "X-Forwarded-For", "X-Original-Url", "X-Other"}
	for _, announced := range []string{strings.Join(names, ", "), "X-Other"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n%s: 1\r\n\r\n",
			announced, strings.Join(names, ": 1\r\n"))
		if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if got := <-seenTrailer; len(got) != 1 || got.Get("X-Other") != "1" {
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
