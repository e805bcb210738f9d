package e2e_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestUpstreamProtocols reaches upstreams over each protocol that a route can
// ask for.
func TestUpstreamProtocols(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	protocol := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if r.TLS != nil {
			name = " " + r.TLS.ServerName
		}
		fmt.Fprint(w, r.Proto, name)
	})
	plain := newUpstream(t, protocol)
	unencrypted := httptest.NewUnstartedServer(protocol)
	unencrypted.Config.Protocols = new(http.Protocols)
	unencrypted.Config.Protocols.SetUnencryptedHTTP2(true)
	unencrypted.Start()
	t.Cleanup(unencrypted.Close)
	secure := httptest.NewUnstartedServer(protocol)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	old := httptest.NewUnstartedServer(protocol)
	old.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	old.StartTLS()
	t.Cleanup(old.Close)
	ca := certificateOf(t, secure)

	for name, c := range map[string]struct {
		target   string
		upstream *upstreamSettings
		want     string // empty for a 502
	}{
		"plain":                         {plain.URL, nil, "HTTP/1.1"},
		"plain by name":                 {plain.URL, &upstreamSettings{Protocol: "http1"}, "HTTP/1.1"},
		"h2c":                           {"h2c" + unencrypted.URL[len("http"):], nil, "HTTP/2.0"},
		"h2c by name":                   {unencrypted.URL, &upstreamSettings{Protocol: "h2c"}, "HTTP/2.0"},
		"TLS":                           {secure.URL, &upstreamSettings{TLS: &tlsSettings{CA: ca, ServerName: "example.com"}}, "HTTP/2.0 example.com"},
		"TLS to an address":             {secure.URL, &upstreamSettings{TLS: &tlsSettings{CA: ca}}, "HTTP/2.0 "},
		"TLS with HTTP/1":               {secure.URL, &upstreamSettings{Protocol: "http1", TLS: &tlsSettings{CA: ca, ServerName: "example.com"}}, "HTTP/1.1 example.com"},
		"TLS with HTTP/2":               {secure.URL, &upstreamSettings{Protocol: "http2", TLS: &tlsSettings{CA: ca, ServerName: "example.com"}}, "HTTP/2.0 example.com"},
		"TLS of an old server":          {old.URL, &upstreamSettings{TLS: &tlsSettings{CA: ca, ServerName: "example.com"}}, "HTTP/1.1 example.com"},
		"TLS unverified":                {secure.URL, &upstreamSettings{TLS: &tlsSettings{InsecureSkipVerify: true}}, "HTTP/2.0 "},
		"an old server can't HTTP/2":    {old.URL, &upstreamSettings{Protocol: "http2", TLS: &tlsSettings{CA: ca, ServerName: "example.com"}}, ""},
		"an unknown CA":                 {secure.URL, nil, ""},
		"a name not in the certificate": {secure.URL, &upstreamSettings{TLS: &tlsSettings{CA: ca, ServerName: "example.org"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := g.create(route{Path: "/protocol", TargetURL: c.target, Upstream: c.upstream})
			defer g.remove(r.ID)
			if c.want == "" {
				wantProblem(t, g.send(http.MethodGet, "/protocol"), http.StatusBadGateway, "x509", "tls")
				return
			}
			g.wantBody("/protocol", c.want)
		})
	}
}
