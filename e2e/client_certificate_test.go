package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/certtest"
)

// mutualUpstream is a TLS server that admits clients of one CA and answers with
// the name in the client's certificate and the connection's number.
func mutualUpstream(t *testing.T, servers, clients *certtest.Authority, change func(*tls.Config)) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.TLS.PeerCertificates[0].Subject.CommonName, r.TLS.ServerName, r.RemoteAddr)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = discardLog
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{servers.Valid("orders.test").TLS(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool,
	}
	if change != nil {
		change(s.TLS)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// TestClientCertificate reaches servers that ask for a certificate with the right
// one, a wrong one and none.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	servers, clients, strangers := certtest.NewAuthority(t, "servers"), certtest.NewAuthority(t, "clients"), certtest.NewAuthority(t, "strangers")
	right, wrong, self := clients.Valid("gateway"), strangers.Valid("stranger"), certtest.NewAuthority(t, "gateway").Valid("gateway")
	required := mutualUpstream(t, servers, clients, nil)
	tls12 := mutualUpstream(t, servers, clients, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	http1 := mutualUpstream(t, servers, clients, func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} })
	unnamed := mutualUpstream(t, servers, clients, func(c *tls.Config) {
		// It names another CA than that of the clients it admits, as servers behind
		// cross-signed CAs do.
		pool := c.ClientCAs
		c.ClientAuth, c.ClientCAs = tls.RequireAnyClientCert, strangers.Pool
		c.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			return err
		}
	})
	for name, c := range map[string]struct {
		target   string
		pair     certtest.Pair
		change   func(*upstreamSettings)
		admitted bool
	}{
		"right":                    {required, right, nil, true},
		"right over HTTP/2":        {required, right, func(u *upstreamSettings) { u.Protocol = "http2" }, true},
		"right over HTTP/1":        {required, right, func(u *upstreamSettings) { u.Protocol = "http1" }, true},
		"right for an old server":  {http1, right, nil, true},
		"right over TLS 1.2":       {tls12, right, nil, true},
		"right but not asked for":  {unnamed, right, nil, true},
		"wrong":                    {required, wrong, nil, false},
		"wrong over TLS 1.2":       {tls12, wrong, nil, false},
		"of a CA of the same name": {required, self, nil, false},
		"none":                     {required, certtest.Pair{}, nil, false},
		"none over TLS 1.2":        {tls12, certtest.Pair{}, nil, false},
		// It is no reason to trust the server.
		"right, server unknown":    {required, right, func(u *upstreamSettings) { u.TLS.CA = "" }, false},
		"right, another CA":        {required, right, func(u *upstreamSettings) { u.TLS.CA = clients.PEM }, false},
		"right, another name":      {required, right, func(u *upstreamSettings) { u.TLS.ServerName = "other.test" }, false},
		"right, server unverified": {required, right, func(u *upstreamSettings) { u.TLS.CA, u.TLS.InsecureSkipVerify = "", true }, true},
	} {
		t.Run(name, func(t *testing.T) {
			u := &upstreamSettings{TLS: &tlsSettings{CA: servers.PEM, ServerName: "orders.test", Certificate: c.pair.Certificate, Key: c.pair.Key}}
			if c.change != nil {
				c.change(u)
			}
			r := g.create(route{Path: "/mutual", TargetURL: c.target, Upstream: u})
			defer g.remove(r.ID)
			a := g.send(http.MethodGet, "/mutual")
			if !c.admitted {
				wantProblem(t, a, http.StatusBadGateway, "x509", "tls", "certificate", "orders.test")
			} else if a.status != http.StatusOK || !strings.HasPrefix(string(a.body), "gateway orders.test ") {
				t.Errorf("the answer is %s", a)
			}
		})
	}
}

// TestClientCertificatesAreNotShared has routes to one address with certificates
// of their own: a request must never go out over a connection that another
// route's certificate has opened.
func TestClientCertificatesAreNotShared(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	servers, clients := certtest.NewAuthority(t, "servers"), certtest.NewAuthority(t, "clients")
	for _, protocol := range []string{"http1", "http2"} {
		t.Run(protocol, func(t *testing.T) {
			target := mutualUpstream(t, servers, clients, func(c *tls.Config) {
				c.ClientAuth = tls.RequestClientCert
				c.VerifyConnection = func(s tls.ConnectionState) error {
					if len(s.PeerCertificates) == 0 {
						return fmt.Errorf("no certificate")
					}
					return nil
				}
			})
			with := func(pair certtest.Pair) *upstreamSettings {
				return &upstreamSettings{Protocol: protocol, TLS: &tlsSettings{CA: servers.PEM, ServerName: "orders.test", Certificate: pair.Certificate, Key: pair.Key}}
			}
			alice, bob := clients.Valid("alice"), clients.Valid("bob")
			a := g.create(route{Path: "/" + protocol + "/alice", TargetURL: target, Upstream: with(alice)})
			g.create(route{Path: "/" + protocol + "/bob", TargetURL: target, Upstream: with(bob)})
			g.create(route{Path: "/" + protocol + "/nobody", TargetURL: target, Upstream: with(certtest.Pair{})})
			g.create(route{Path: "/" + protocol + "/too", TargetURL: target, Upstream: with(alice)})
			connections := make(map[string]string)
			ask := func(path, want string) {
				t.Helper()
				answer := g.send(http.MethodGet, "/"+protocol+path)
				var name, server, connection string
				if _, err := fmt.Sscan(string(answer.body), &name, &server, &connection); err != nil || name != want {
					t.Fatalf("%s is answered %s, want %s", path, answer, want)
				}
				if other, ok := connections[connection]; ok && other != name {
					t.Errorf("the connection %s was opened as %s and used as %s", connection, other, name)
				}
				connections[connection] = name
			}
			for range 20 {
				ask("/alice", "alice")
				ask("/bob", "bob")
				ask("/too", "alice")
				wantProblem(t, g.send(http.MethodGet, "/"+protocol+"/nobody"), http.StatusBadGateway)
			}
			if len(connections) != 2 {
				t.Errorf("there were the connections %v, want one for each certificate", connections)
			}
			// A new certificate is used at once.
			carol := clients.Valid("carol")
			g.patch(a.ID, map[string]any{"upstream": map[string]any{"tls": map[string]any{"certificate": carol.Certificate, "key": carol.Key}}})
			ask("/alice", "carol")
			ask("/too", "alice")
		})
	}
}

// TestPrivateKeyStaysSecret plants keys and looks for them in everything that the
// gateway says, on either database.
func TestPrivateKeyStaysSecret(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		g := startGateway(t, settings{dsn: dsn, global: "debug"})
		servers, clients := certtest.NewAuthority(t, "servers"), certtest.NewAuthority(t, "clients")
		target := mutualUpstream(t, servers, clients, nil)
		first, second, expired := clients.Valid("first"), clients.Valid("second"), clients.Issue("expired", time.Now().Add(-time.Minute))
		secrets := []string{"hunter2"}
		for _, pair := range []certtest.Pair{first, second, expired} {
			secrets = append(secrets, strings.Split(pair.Key, "\n")[1])
		}
		var said []string
		call := func(method, path string, body any, status int) answer {
			t.Helper()
			a := g.call(method, path, body)
			if a.status != status {
				t.Errorf("%s %s is answered %s, want %d", method, path, a, status)
			}
			said = append(said, fmt.Sprint(method, " ", path, " ", a, a.header))
			return a
		}
		mutual := func(certificate, key string) route {
			return route{Path: "/mutual", TargetURL: target, Upstream: &upstreamSettings{TLS: &tlsSettings{CA: servers.PEM, ServerName: "orders.test", Certificate: certificate, Key: key}}}
		}
		admitted := func(name string) {
			t.Helper()
			// Caddy itself may lose a request to a reload.
			eventually(t, servedWithin, "the upstream sees "+name, func() error {
				a, err := g.trySend(http.MethodGet, "/mutual")
				if err == nil && !strings.HasPrefix(string(a.body), name+" ") {
					err = fmt.Errorf("it answers %s", a)
				}
				return err
			})
		}
		refused := func(method, path string, body any, fields ...string) {
			t.Helper()
			got := call(method, path, body, http.StatusUnprocessableEntity).problem(t).Errors
			for i, field := range fields {
				if i >= len(got) || got[i].Location != "body.upstream.tls."+field {
					t.Errorf("%s %s: the errors are %+v, want %q", method, path, got, fields)
				}
			}
		}

		refused("POST", "/api/routes", mutual(first.Certificate, ""), "key")
		refused("POST", "/api/routes", mutual("", first.Key), "certificate")
		refused("POST", "/api/routes", mutual(first.Certificate, second.Key), "key")
		refused("POST", "/api/routes", mutual(first.Certificate, "hunter2"), "key")
		refused("POST", "/api/routes", mutual("hunter2", first.Key), "certificate")
		refused("POST", "/api/routes", mutual(first.Certificate+first.Key, first.Key), "certificate")
		refused("POST", "/api/routes", mutual(expired.Certificate, expired.Key), "certificate")
		refused("POST", "/api/routes", mutual(first.Certificate, "***"), "key")

		var created route
		call("POST", "/api/routes", mutual(first.Certificate, first.Key), http.StatusCreated).decode(t, &created)
		if created.Upstream.TLS.Key != "***" {
			t.Errorf("the key is shown as %q", created.Upstream.TLS.Key)
		}
		admitted("first")
		path := fmt.Sprint("/api/routes/", created.ID)
		var read route
		call("GET", path, nil, http.StatusOK).decode(t, &read)
		call("GET", "/api/routes", nil, http.StatusOK)
		call("PUT", path, read.writable(), http.StatusOK)
		admitted("first")
		call("PATCH", path, map[string]any{"rate_limit": 1000}, http.StatusOK)
		admitted("first")
		refused("PUT", path, mutual(second.Certificate, "***"), "key")
		refused("PATCH", path, mutual(second.Certificate, ""), "key")
		call("POST", "/api/routes", mutual(second.Certificate, second.Key), http.StatusConflict)
		call("PUT", path, mutual(second.Certificate, second.Key), http.StatusOK)
		admitted("second")

		// Rows by hand: one that is served, one with a bad key, one that can't be read.
		db := openSQL(t, dsn)
		for name, settings := range map[string]map[string]any{
			"/good":  {"ca": servers.PEM, "server_name": "orders.test", "certificate": first.Certificate, "key": first.Key},
			"/bad":   {"certificate": first.Certificate, "key": second.Key},
			"/mask":  {"certificate": first.Certificate, "key": "***"},
			"/wrong": {"certificate": first.Certificate, "key": []string{"hunter2"}},
			"/typo":  {"certificate": first.Certificate, "kee": "hunter2"},
		} {
			spec, err := json.Marshal(map[string]any{"upstream": map[string]any{"tls": settings}})
			if err != nil {
				t.Fatal(err)
			}
			execSQL(t, db, fmt.Sprintf("INSERT INTO routes (path, target_url, spec) VALUES ('%s', '%s', '%s')", name, target, spec))
		}
		eventually(t, startTimeout, "the rows are there", func() error {
			if n := len(g.list("")); n != 6 {
				return fmt.Errorf("there are %d routes", n)
			}
			return nil
		})
		if a := g.send(http.MethodGet, "/good"); !strings.HasPrefix(string(a.body), "first ") {
			t.Errorf("a row by hand is answered %s", a)
		}
		for _, path := range []string{"/bad", "/mask"} {
			a := g.send(http.MethodGet, path)
			wantProblem(t, a, http.StatusServiceUnavailable, "key")
			said = append(said, a.String())
		}
		call("GET", "/api/routes", nil, http.StatusOK)
		call("GET", "/api/status", nil, http.StatusOK)
		call("GET", "/health", nil, http.StatusOK)
		if err := g.reload(); err != nil {
			t.Fatal(err)
		}
		admitted("second")
		a, err := g.tryCall(http.MethodGet, "/config/", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		call("DELETE", path, nil, http.StatusNoContent)
		g.stop()
		said = append(said, a.String(), g.log.String())
		for _, text := range said {
			for _, secret := range secrets {
				if i := strings.Index(text, secret); i >= 0 {
					t.Errorf("a key is shown: %.100q in %.200q", text[max(0, i-50):], text)
				}
			}
		}
	})
}
