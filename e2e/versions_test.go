package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// version is a version of HTTP in which the gateway is asked.
type version struct {
	name   string
	major  int
	base   string // the scheme and authority of URLs
	client *http.Client
}

// versions returns clients for every version that the gateway speaks, which needs
// tlsSite. They show answers as they are, and wait for as long as a request's
// context allows.
func (g *gateway) versions() []version {
	g.t.Helper()
	g.waitCertificate("localhost")
	transport := func(major int) http.RoundTripper {
		if major == 3 {
			t := &http3.Transport{TLSClientConfig: g.trust("localhost"), DisableCompression: true}
			g.t.Cleanup(func() { t.Close() })
			return t
		}
		t := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
		g.t.Cleanup(t.CloseIdleConnections)
		if major == 1 {
			t.Protocols.SetHTTP1(true)
			return t
		}
		t.Protocols.SetHTTP2(true)
		t.TLSClientConfig = g.trust("localhost")
		return t
	}
	plain, secure := "http://"+g.http, "https://localhost:"+port(g.https)
	return []version{
		{"HTTP1", 1, plain, &http.Client{Transport: transport(1)}},
		{"HTTP2", 2, secure, &http.Client{Transport: transport(2)}},
		{"HTTP3", 3, secure, &http.Client{Transport: transport(3)}},
	}
}

// request makes a request that is given up at the end of the test, at the latest.
func (v version) request(t *testing.T, method, path string) (*http.Request, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, v.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req, cancel
}

// do sends a request and checks in which version it was answered.
func (v version) do(t *testing.T, req *http.Request) *http.Response {
	t.Helper()
	resp, err := v.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s over %s: %v", req.Method, req.URL.Path, v.name, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.ProtoMajor != v.major {
		t.Errorf("the answer came over %s, want %s", resp.Proto, v.name)
	}
	return resp
}

// newUnencrypted serves the handler in HTTP/2 without TLS and returns the target
// of a route to it.
func newUnencrypted(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return "h2c" + s.URL[len("http"):]
}

// eachVersion runs the test with every version of HTTP on the client's side and
// with HTTP/1.1 and HTTP/2 on the upstream's. Each time the handler is reached at
// a path of its own.
func (g *gateway) eachVersion(t *testing.T, r route, handler http.HandlerFunc, test func(t *testing.T, v version, path string)) {
	t.Helper()
	for name, target := range map[string]string{"http1": newUpstream(t, handler).URL, "h2c": newUnencrypted(t, handler)} {
		r.Path, r.TargetURL = r.Path+"/"+name, target
		path := g.create(r).Path
		r.Path = r.Path[:len(r.Path)-len(name)-1]
		for _, v := range g.versions() {
			t.Run(v.name+" to "+name, func(t *testing.T) { test(t, v, path) })
		}
	}
}
