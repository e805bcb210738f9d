package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// hs256 returns a JSON Web Token.
func hs256(secret, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

// TestSecretsAreNowhere plants a secret in every place that takes one, uses them well
// and badly, and looks for them in all that the gateway says. It says no more than it
// does by default: Caddy's own log of errors at the level debug shows whole requests.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	const (
		redisPassword = "planted-redis-password"
		jwtSecret     = "planted-jwt-secret-of-32-bytes-or-more"
		password      = "planted-password"
		storePassword = "planted-store-password"
	)
	dsn, err := url.Parse(pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(dsn.User.Username(), storePassword) // the test's server asks for none
	g := startGateway(t, settings{
		dsn: "{env.PLANTED_STORE}",
		env: []string{"PLANTED_STORE=" + dsn.String(), "PLANTED_REDIS=" + redisPassword, "PLANTED_JWT=" + jwtSecret},
		options: `auth {
			api_key {
				header X-API-Key X-Other-Key
				query api_key
			}
			jwt corp {
				issuer corp
				audience shop
				algorithms HS256
				secret {env.PLANTED_JWT}
			}
			basic {
				alice $2a$10$KAkdfOC75aEDVtIjmLz5Ae0CFBb8Ngnd2XkoVGZwxT5Lz2gCGYmfi
			}
		}
		rate_limit {
			backend redis 127.0.0.1:1 {
				password {env.PLANTED_REDIS}
			}
		}`,
		site: `log {
			format filter {
				request>headers>X-Api-Key delete
				request>headers>X-Other-Key delete
				request>uri query {
					replace api_key REDACTED
				}
			}
		}
		isekai_admin`,
	})
	seen := make(chan http.Header, 100)
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Clone()
		header.Set("Uri", r.RequestURI)
		seen <- header
		fmt.Fprint(w, "in")
	})
	g.create(route{Path: "/*", TargetURL: upstream.URL, RateLimit: 1000, Auth: map[string]any{"any": []string{"api_key", "jwt", "basic"}}})
	key := g.keyOf("shop")
	made := g.call(http.MethodPost, "/api/tokens", map[string]any{"name": "ci", "role": "admin"})
	var token struct{ Token string }
	made.decode(t, &token)
	jwt := hs256(jwtSecret, fmt.Sprintf(`{"iss":"corp","aud":"shop","sub":"bob","exp":%d}`, time.Now().Add(time.Hour).Unix()))

	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, tt := range []struct {
		target string
		with   func(*http.Request)
		want   int
	}{
		{"/a", header("X-API-Key", key), 200},
		{"/a", header("X-Other-Key", key), 200},
		{"/a", header("Authorization", "Bearer "+key), 200},
		{"/a?x=1&api_key=" + key, nil, 200},
		{"/a", header("Authorization", "Bearer "+jwt), 200},
		{"/a", header("X-API-Key", key+"x"), 401},
		{"/a?api_key=" + key + "x", nil, 401},
		{"/a", header("Authorization", "Bearer "+jwt+"x"), 401},
		{"/a", func(r *http.Request) { r.SetBasicAuth("alice", password) }, 401},
		{"/api/routes", header("Authorization", "Bearer "+token.Token), 200},
		{"/api/routes", header("Authorization", "Bearer "+token.Token+"x"), 401},
	} {
		change := tt.with
		if change == nil {
			change = func(*http.Request) {}
		}
		if a := g.send(http.MethodGet, tt.target, change); a.status != tt.want {
			t.Errorf("%s is answered %s, want %d", tt.target[:2], a, tt.want)
		}
	}
	close(seen)

	said := map[string]string{"log": g.log.String()}
	for header := range seen {
		said["upstream"] += fmt.Sprintln(header)
	}
	for _, path := range []string{
		"/api/routes", "/api/consumers", "/api/consumers/1", "/api/consumers/1/keys", "/api/tokens", "/api/logs", "/api/status",
		"/api/upstreams", "/api/ratelimits?consumer=1", "/api/revisions", "/api/revisions/1", "/api/revisions/2", "/api/config", "/health", "/metrics", "/config/", "/api/openapi.json",
	} {
		a, err := g.tryCall(http.MethodGet, path, nil, nil)
		if err != nil || a.status != http.StatusOK {
			t.Errorf("%s: %v %v", path, a.status, err)
		}
		said[path] = string(a.body)
	}
	eventually(t, callTimeout, "the request log has the requests", func() error {
		a := g.call(http.MethodGet, "/api/logs", nil)
		if said["/api/logs"] = string(a.body); strings.Count(said["/api/logs"], `"id"`) < 9 {
			return fmt.Errorf("it has %s", a.body)
		}
		return nil
	})
	for what, secret := range map[string]string{
		"the key": key[len("isk_")+17:], "the token": token.Token[len("ist_")+17:], "the signature": jwt[strings.LastIndex(jwt, ".")+1:],
		"the secret of tokens": jwtSecret, "the password of Redis": redisPassword, "the password of the store": storePassword,
		"a password": password, "a password in base64": base64.StdEncoding.EncodeToString([]byte("alice:" + password)),
	} {
		for where, text := range said {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s is in %s: ...%s", what, where, text[max(i-200, 0):i])
			}
		}
	}
}
