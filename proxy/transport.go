package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/store"
)

// Bounds of the connections to upstreams.
const (
	dialTimeout           = 5 * time.Second
	tlsHandshakeTimeout   = 10 * time.Second
	expectContinueTimeout = time.Second
	idleConnTimeout       = 90 * time.Second
	maxIdleConnsPerHost   = 256
	maxResponseHeaderSize = 256 << 10
)

// sharedTransport is a connection pool in use by one or more forwarders.
type sharedTransport struct{ *reverseproxy.HTTPTransport }

// Destruct implements caddy.Destructor.
func (t sharedTransport) Destruct() error { return t.Cleanup() }

// newTransport builds a transport from Caddy's own, with the target policy in
// its dialer. Proxies named in the environment are not used: they would resolve
// and connect out of the policy's sight.
func newTransport(ctx caddy.Context, policy *Policy, useTLS bool, protocol string, settings *store.UpstreamTLS) (sharedTransport, error) {
	passThrough := false
	t := sharedTransport{&reverseproxy.HTTPTransport{
		// The client's own Accept-Encoding goes through, and so does the answer.
		Compression:           &passThrough,
		DialTimeout:           caddy.Duration(dialTimeout),
		MaxResponseHeaderSize: maxResponseHeaderSize,
		// A body whose client waits to be asked for it is asked for when the upstream
		// does, or has not said anything for this long.
		ExpectContinueTimeout: caddy.Duration(expectContinueTimeout),
		KeepAlive: &reverseproxy.KeepAlive{
			IdleConnTimeout:     caddy.Duration(idleConnTimeout),
			MaxIdleConnsPerHost: maxIdleConnsPerHost,
		},
	}}
	switch protocol {
	case protocolHTTP1:
		t.Versions = []string{"1.1"}
	case protocolHTTP2:
		t.Versions = []string{"2"}
	case protocolH2C:
		t.Versions = []string{"h2c"}
	}
	if useTLS {
		t.TLS = &reverseproxy.TLSConfig{HandshakeTimeout: caddy.Duration(tlsHandshakeTimeout)}
		if settings != nil {
			t.TLS.ServerName = settings.ServerName
			t.TLS.InsecureSkipVerify = settings.InsecureSkipVerify
		}
	}
	if err := t.Provision(ctx); err != nil {
		return sharedTransport{}, fmt.Errorf("making transport: %w", err)
	}
	t.Transport.Proxy = nil
	t.Transport.DialContext = dialContext(policy)
	if useTLS {
		if protocol == protocolHTTP2 {
			// Offering nothing else makes a server that can't speak it refuse.
			t.Transport.TLSClientConfig.NextProtos = []string{"h2"}
		}
		if settings != nil && settings.CA != "" {
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM([]byte(settings.CA)) {
				return sharedTransport{}, errors.New("no certificate in upstream.tls.ca")
			}
			t.Transport.TLSClientConfig.RootCAs = roots
		}
		if settings != nil && settings.Certificate != "" {
			if err := presentCertificate(t.Transport.TLSClientConfig, settings); err != nil {
				return sharedTransport{}, err
			}
		}
	}
	return t, nil
}

// dialContext connects to the address that the forwarder chose. Failures are
// marked as reverse_proxy marks them, since nothing was sent yet.
func dialContext(policy *Policy) func(context.Context, string, string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: policy.control}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if info, ok := reverseproxy.GetDialInfo(ctx); ok {
			network, address = info.Network, info.Address
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, reverseproxy.NewDialError(err)
		}
		return conn, nil
	}
}

// directed sends requests through a shared transport to one target.
type directed struct {
	transport *http.Transport
	scheme    string
	host      string // the Host to send; empty keeps the client's
}

// RoundTrip implements http.RoundTripper. The request is reverse_proxy's own
// copy, so it may be changed.
func (d *directed) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme = d.scheme
	if d.host != "" {
		r.Host = d.host
	}
	resp, err := d.transport.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols && r.Header.Get("Upgrade") == "" {
		// reverse_proxy would leave the client with an empty 200.
		return nil, errors.Join(errUnaskedUpgrade, resp.Body.Close())
	}
	return resp, err
}

// errUnaskedUpgrade says that an upstream broke the protocol.
var errUnaskedUpgrade = errors.New("the upstream switched protocols without being asked")
