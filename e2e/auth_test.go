package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// keyOf makes a consumer with a key. It does not hold the request against the API's
// document: kin-openapi's validator for OpenAPI 3.1 asks requests for what is read-only.
func (g *gateway) keyOf(name string) string {
	g.t.Helper()
	post := func(path, body string, to any) {
		resp, err := g.client.Post("http://"+g.admin+path, "application/json", strings.NewReader(body))
		if err != nil {
			g.t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			g.t.Fatalf("POST %s: %s", path, resp.Status)
		}
		if err := json.NewDecoder(resp.Body).Decode(to); err != nil {
			g.t.Fatal(err)
		}
	}
	var consumer struct{ ID int }
	var key struct{ Key string }
	post("/api/consumers", fmt.Sprintf(`{"name":%q}`, name), &consumer)
	post("/api/consumers/"+itoa(consumer.ID)+"/keys", "{}", &key)
	return key.Key
}

func withKey(key string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-API-Key", key) }
}

// TestKeysAtColdStart starts without the database: the keys of the snapshot are known,
// and nobody who may have a good one is told that it is wrong.
func TestKeysAtColdStart(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]string{
		"in the clear": "", "sealed": "snapshot_key " + base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewServer(t)
			g := startGateway(t, settings{dsn: server.DSN(), outage: true, options: options})
			g.create(route{Path: "/*", TargetURL: textUpstream(t, "in"), Auth: map[string]any{"any": []string{"api_key"}}})
			known, disabled := g.keyOf("known"), g.keyOf("disabled")
			execSQL(t, openSQL(t, server.DSN()), "UPDATE consumers SET enabled = false WHERE name = 'disabled'")
			eventually(t, startTimeout, "the disabled key is refused", func() error {
				if a := g.send(http.MethodGet, "/", withKey(disabled)); a.status != http.StatusUnauthorized {
					return fmt.Errorf("it is answered %s", a)
				}
				return nil
			})
			g.stop() // which writes the snapshot
			server.Stop(t)

			g.start()
			g.waitHealth("it serves from the snapshot", func(status int, h health) bool {
				return status == http.StatusOK && strings.Contains(strings.Join(h.Reasons, " "), "snapshot")
			})
			if a := g.send(http.MethodGet, "/", withKey(known)); a.status != http.StatusOK || string(a.body) != "in" {
				t.Errorf("the known key is answered %s", a)
			}
			wantProblem(t, g.send(http.MethodGet, "/", withKey(known[:len(known)-8]+"zzzzzzzz")), http.StatusUnauthorized, known)
			wantProblem(t, g.send(http.MethodGet, "/", withKey(disabled)), http.StatusUnauthorized, disabled)
			unknown := strings.Replace(known, strings.Split(known, "_")[1], "aaaaaaaaaaaaaaaa", 1)
			a := g.send(http.MethodGet, "/", withKey(unknown))
			wantProblem(t, a, http.StatusServiceUnavailable, unknown)
			if a.header.Get("Retry-After") == "" {
				t.Errorf("the unknown key is answered %v", a.header)
			}

			server.Start(t)
			g.waitHealth("the gateway has recovered", func(_ int, h health) bool { return h.Status == "ok" })
			if a := g.send(http.MethodGet, "/", withKey(known)); a.status != http.StatusOK {
				t.Errorf("the known key is answered %s", a)
			}
			// Now it is known to be nobody's.
			wantProblem(t, g.send(http.MethodGet, "/", withKey(unknown)), http.StatusUnauthorized, unknown)
		})
	}
}

// TestKeysDuringOutage has clients with keys come while the store is gone: those that
// are known go on, and nobody who may have a good one is told that it is wrong.
func TestKeysDuringOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	g := startGateway(t, settings{dsn: server.DSN(), outage: true, options: "health_interval 200ms"})
	g.create(route{Path: "/*", TargetURL: textUpstream(t, "in"), Auth: map[string]any{"any": []string{"api_key"}}})
	known, unknown := g.keyOf("known"), g.keyOf("unknown")
	wrong := known[:len(known)-8] + "zzzzzzzz"
	if a := g.send(http.MethodGet, "/", withKey(known)); a.status != http.StatusOK {
		t.Fatalf("the key is answered %s", a)
	}

	server.Stop(t)
	g.waitHealth("the outage is noticed", func(_ int, h health) bool { return h.Status == "degraded" })
	for range 3 {
		if a := g.send(http.MethodGet, "/", withKey(known)); a.status != http.StatusOK {
			t.Errorf("the known key is answered %s", a)
		}
		wantProblem(t, g.send(http.MethodGet, "/", withKey(wrong)), http.StatusUnauthorized, known, wrong)
		a := g.send(http.MethodGet, "/", withKey(unknown))
		wantProblem(t, a, http.StatusServiceUnavailable, unknown)
		if a.header.Get("Retry-After") == "" || a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("the unknown key is answered %v", a.header)
		}
	}

	server.Start(t)
	g.waitHealth("the gateway has recovered", func(_ int, h health) bool { return h.Status == "ok" })
	if a := g.send(http.MethodGet, "/", withKey(unknown)); a.status != http.StatusOK {
		t.Errorf("the other key is answered %s", a)
	}
	if log := g.log.String(); strings.Contains(log, known[21:]) || strings.Contains(log, unknown[21:]) {
		t.Error("the log shows a key")
	}
}
