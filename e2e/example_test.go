package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// startExample starts the repository's example configuration, as the README has
// it, in an empty folder and on free ports.
func startExample(t *testing.T, env ...string) *gateway {
	t.Helper()
	g := newGateway(t, settings{})
	demo := freePort(t)
	for from, to := range map[string]string{"Caddyfile.example": "Caddyfile", "routes.example.json": "routes.example.json"} {
		text, err := os.ReadFile(filepath.Join("..", from))
		if err != nil {
			t.Fatal(err)
		}
		moved := strings.ReplaceAll(string(text), ":9000", ":"+itoa(demo))
		if err := os.WriteFile(filepath.Join(g.dir, to), []byte(moved), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g.set.env = append(env, "ISEKAI_HTTP_PORT="+port(g.http), "ISEKAI_HTTPS_PORT="+port(g.https), "ISEKAI_ADMIN="+g.admin)
	g.start()
	g.waitReady()
	return g
}

func TestExample(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		g := startExample(t)
		tryExample(t, g)
		if _, err := os.Stat(filepath.Join(g.dir, "data", "isekai.db")); err != nil {
			t.Errorf("the default database: %v", err)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		tryExample(t, startExample(t, "ISEKAI_DATABASE_URL="+pgtest.New(t)))
	})
}

// demoAnswer is what the example's own upstream says it has seen.
type demoAnswer struct {
	Upstream     string `json:"upstream"`
	Path         string `json:"path"`
	ForwardedFor string `json:"forwarded_for"`
	RequestID    string `json:"request_id"`
}

func tryExample(t *testing.T, g *gateway) {
	a := g.send(http.MethodGet, "/hello/world")
	var demo demoAnswer
	a.decode(t, &demo)
	if a.status != http.StatusOK || demo.Path != "/greet/world" || demo.ForwardedFor != "127.0.0.1" {
		t.Errorf("the first route answers %s", a)
	}
	if id := a.header.Get("X-Request-Id"); id == "" || demo.RequestID != id {
		t.Errorf("the upstream's request id is %q, the client's %q", demo.RequestID, id)
	}
	a = g.send(http.MethodGet, "/demo/x/y?z=1")
	a.decode(t, &demo)
	if demo.Path != "/x/y?z=1" || a.header.Get("X-Served-By") != "isekai" || !strings.HasPrefix(a.header.Get("RateLimit"), `"route";r=99;`) {
		t.Errorf("the second route answers %s %v", a, a.header)
	}

	wantProblem(t, g.send(http.MethodGet, "/nothing/here"), http.StatusNotFound)
	a = g.send(http.MethodPost, "/hello/world")
	wantProblem(t, a, http.StatusMethodNotAllowed)
	if got := a.header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow is %q", got)
	}
	wantProblem(t, g.send(http.MethodGet, "/demo/..%2fx"), http.StatusBadRequest)

	target := textUpstream(t, "mine")
	g.create(route{Path: "/mine", TargetURL: target})
	g.wantBody("/mine", "mine")

	g.waitCertificate("localhost")
	secure := g.secureClient("localhost")
	for _, path := range []string{"/hello/world", "/mine"} {
		resp, err := secure.Get("https://localhost:" + port(g.https) + path)
		if err != nil {
			t.Errorf("over TLS: %v", err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || len(resp.TLS.VerifiedChains) == 0 {
			t.Errorf("GET %s over TLS answered %s in %s", path, resp.Status, resp.Proto)
		}
	}

	a = g.send(http.MethodGet, "/healthz")
	var h health
	if err := json.Unmarshal(a.body, &h); err != nil || a.status != http.StatusOK || h.Status != "ok" {
		t.Errorf("health_path answers %s", a)
	}
}

// secureClient returns a client that trusts the gateway's own CA and nothing
// else, and speaks HTTP/2 where it is offered. All names resolve to the gateway.
func (g *gateway) secureClient(serverName string) *http.Client {
	g.t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   g.trust(serverName),
		DialContext:       (&net.Dialer{}).DialContext,
	}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: callTimeout}
}

// trust returns TLS settings that verify the gateway's certificate against the
// root of its own CA, taken from its storage folder.
func (g *gateway) trust(serverName string) *tls.Config {
	g.t.Helper()
	pem, err := os.ReadFile(filepath.Join(g.dir, "caddy", "pki", "authorities", "local", "root.crt"))
	if err != nil {
		g.t.Fatalf("reading the CA's root: %v", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		g.t.Fatal("the CA's root is no certificate")
	}
	return &tls.Config{RootCAs: roots, ServerName: serverName}
}

// waitCertificate waits until the gateway has made itself a certificate for the
// name, which it does in the background after its first start.
func (g *gateway) waitCertificate(serverName string) {
	g.t.Helper()
	eventually(g.t, startTimeout, "there is a certificate", func() error {
		conn, err := tls.Dial("tcp", g.https, g.trust(serverName))
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}
