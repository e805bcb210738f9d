package auth_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/internal/certtest"
)

// TestCertificates asks a TLS server who its clients are, in all modes of asking for
// certificates.
func TestCertificates(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, auth.Config{MTLS: true}, auth.Options{})
	ours, strangers := certtest.NewAuthority(t, "ours"), certtest.NewAuthority(t, "strangers")
	for name, c := range map[string]struct {
		mode tls.ClientAuthType
		by   *certtest.Authority
		want string
	}{
		"verified":        {tls.RequireAndVerifyClientCert, ours, "mtls:client.test"},
		"verified if any": {tls.VerifyClientCertIfGiven, ours, "mtls:client.test"},
		"none":            {tls.VerifyClientCertIfGiven, nil, auth.ErrNoCredentials.Error()},
		"not verified":    {tls.RequireAnyClientCert, ours, auth.ErrNoCredentials.Error()},
		"a stranger's":    {tls.RequireAnyClientCert, strangers, auth.ErrNoCredentials.Error()},
		"only requested":  {tls.RequestClientCert, strangers, auth.ErrNoCredentials.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id, err := v.Authenticate(r, []string{"mtls"})
				if err != nil {
					fmt.Fprint(w, err)
					return
				}
				if len(id.Metadata["fingerprint"]) != 64 || id.Metadata["issuer"] != "CN=ours" || id.Metadata["serial"] == "" {
					t.Errorf("metadata %v", id.Metadata)
				}
				fmt.Fprint(w, id.Caller())
			}))
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{ours.Valid("server.test").TLS(t)}, ClientAuth: c.mode, ClientCAs: ours.Pool}
			server.StartTLS()
			defer server.Close()
			client := &tls.Config{RootCAs: ours.Pool, ServerName: "server.test", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			if c.by != nil {
				certificate := c.by.Valid("client.test").TLS(t)
				// Whether or not the server asks for one of that authority.
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
			}
			transport := &http.Transport{TLSClientConfig: client}
			defer transport.CloseIdleConnections()
			// Twice, the second time over a resumed session.
			for range 2 {
				res, err := transport.RoundTrip(mustRequest(t, server.URL))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if err = errors.Join(err, res.Body.Close()); err != nil {
					t.Fatal(err)
				}
				if string(body) != c.want {
					t.Errorf("it is %s, want %s", body, c.want)
				}
				transport.CloseIdleConnections()
			}
		})
	}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
