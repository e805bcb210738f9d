package isekai_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/ratelimit"
)

func TestConfigCommand(t *testing.T) {
	t.Parallel()
	g, err := gateway.Open(gateway.Config{DSN: "sqlite://" + filepath.Join(t.TempDir(), "isekai.db"), Log: zap.NewNop})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	g.Start(t.Context())
	server := httptest.NewServer(api.New(api.Config{Gateway: g, Limits: ratelimit.New(ratelimit.Config{})}))
	t.Cleanup(server.Close)
	// Both forms of an address; one is a site's, one the admin endpoint's.
	site, endpoint := server.URL, strings.TrimPrefix(server.URL, "http://")

	file := filepath.Join(t.TempDir(), "routes.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	apply := func(address string, args ...string) (out, errs string) {
		t.Helper()
		out, errs, err := runCommand(append([]string{"config", "--address", address, "apply", file}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out, errs
	}
	write("routes:\n- {path: /a, name: a, target_url: 'http://10.0.0.1'}\n- {path: /b, target_url: 'http://10.0.0.1'}\n")
	if out, said := apply(site, "--dry-run"); out != "+ GET /a (a)\n+ GET /b\n" || said != "Would be changed from revision 0: 2 created, 0 updated, 0 deleted, 0 unchanged.\n" {
		t.Errorf("%s%s", out, said)
	}
	if _, said := apply(site); said != "Revision 1: 2 created, 0 updated, 0 deleted, 0 unchanged.\n" {
		t.Error(said)
	}
	if _, said := apply(endpoint); said != "Nothing to change at revision 1.\n" {
		t.Error(said)
	}
	write("routes:\n- {path: /a, name: a, target_url: 'http://10.0.0.1', timeout: 5, labels: {x: y}}\n")
	if out, _ := apply(endpoint, "--prune=false"); out != "~ GET /a (a)\n    labels: (none) -> {\"x\":\"y\"}\n    timeout: 30 -> 5\n" {
		t.Error(out)
	}
	if out, _ := apply(endpoint); out != "- GET /b\n" {
		t.Error(out)
	}

	out, _, err := runCommand("config", "get", "--address", endpoint)
	if err != nil || !strings.HasPrefix(out, "routes:\n  - name: a\n") {
		t.Errorf("%s%v", out, err)
	}
	out, _, err = runCommand("config", "get", "--address", site, "--revision", "1", "--format", "json")
	if err != nil || !strings.Contains(out, `"path": "/b"`) {
		t.Errorf("%s%v", out, err)
	}

	write("routes:\n- {path: x, target_url: 'http://10.0.0.1'}\n- {bogus: 1}\n")
	_, _, err = runCommand("config", "apply", file, "--address", site)
	for _, want := range []string{"422", "\n  routes[0].path: ", "\n  routes[1].bogus: ", "\n  routes[1].path: is required"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	for _, args := range [][]string{
		{"apply", filepath.Join(t.TempDir(), "nothing.yaml")}, {"apply"}, {"get", "--format", "xml"}, {"get", "--revision", "99"},
		{"get", "--address", "localhost:1-5"}, {"nonsense"},
	} {
		if _, _, err := runCommand(append([]string{"config", "--address", site}, args...)...); err == nil {
			t.Errorf("%v is no error", args)
		}
	}
}

// TestConfigCommandElsewhere asks servers that are no admin API.
func TestConfigCommandElsewhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(file, []byte("routes: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		answer  http.HandlerFunc
		problem string
	}{
		{"moved", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				fmt.Fprint(w, `{"changed": false, "revision": 1}`)
				return
			}
			http.Redirect(w, r, "https://admin.example.com/api/config", http.StatusMovedPermanently)
		}, "301 Moved Permanently: the admin API is not here but at https://admin.example.com/api/config"},
		{"found here", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				fmt.Fprint(w, `{"changed": false, "revision": 1}`)
				return
			}
			http.Redirect(w, r, "/api/config", http.StatusFound)
		}, "302 Found"},
		{"something else", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") }, "not that of an admin API"},
		{"a page", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }, "reading the answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.answer)
			defer server.Close()
			out, _, err := runCommand("config", "apply", file, "--address", server.URL)
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%s%v", out, err)
			}
		})
	}
}
