package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
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
type sharedTransport struct {
	*reverseproxy.HTTPTransport
	lane *lane // nil if there is no fast lane
}

// Destruct implements caddy.Destructor.
func (t sharedTransport) Destruct() error {
	if t.lane != nil {
		t.lane.conns.close()
	}
	return t.Cleanup()
}

// newTransport builds a transport from Caddy's own, with the target policy in
// its dialer. Proxies named in the environment are not used: they would resolve
// and connect out of the policy's sight.
func newTransport(ctx caddy.Context, policy *Policy, conn *connection) (sharedTransport, error) {
	passThrough, settings := false, &conn.Settings
	connect := conn.Timeouts.Connect.Duration(dialTimeout)
	t := sharedTransport{HTTPTransport: &reverseproxy.HTTPTransport{
		// The client's own Accept-Encoding goes through, and so does the answer.
		Compression:           &passThrough,
		DialTimeout:           caddy.Duration(connect),
		ResponseHeaderTimeout: caddy.Duration(conn.Timeouts.ResponseHeader.Duration(0)),
		MaxResponseHeaderSize: maxResponseHeaderSize,
		// A body whose client waits to be asked for it is asked for when the upstream
		// does, or has not said anything for this long.
		ExpectContinueTimeout: caddy.Duration(expectContinueTimeout),
		KeepAlive: &reverseproxy.KeepAlive{
			IdleConnTimeout:     caddy.Duration(idleConnTimeout),
			MaxIdleConnsPerHost: maxIdleConnsPerHost,
		},
	}}
	switch conn.Protocol {
	case protocolHTTP1:
		t.Versions = []string{"1.1"}
	case protocolHTTP2:
		t.Versions = []string{"2"}
	case protocolH2C:
		t.Versions = []string{"h2c"}
	}
	if conn.TLS {
		t.TLS = &reverseproxy.TLSConfig{HandshakeTimeout: caddy.Duration(tlsHandshakeTimeout)}
		t.TLS.ServerName = settings.ServerName
		t.TLS.InsecureSkipVerify = settings.InsecureSkipVerify
	}
	if err := t.Provision(ctx); err != nil {
		return sharedTransport{}, fmt.Errorf("making transport: %w", err)
	}
	t.Transport.Proxy = nil
	dial := dialContext(policy, connect)
	t.Transport.DialContext = dial
	if conn.TLS {
		if conn.Protocol == protocolHTTP2 {
			// Offering nothing else makes a server that can't speak it refuse.
			t.Transport.TLSClientConfig.NextProtos = []string{"h2"}
		}
		if settings.CA != "" {
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM([]byte(settings.CA)) {
				return sharedTransport{}, errors.New("no certificate in upstream.tls.ca")
			}
			t.Transport.TLSClientConfig.RootCAs = roots
		}
		if settings.Certificate != "" {
			if err := presentCertificate(t.Transport.TLSClientConfig, settings); err != nil {
				return sharedTransport{}, err
			}
		}
	}
	t.lane = newLane(t.Transport, conn, dial)
	return t, nil
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// dialContext connects to the address of a request's URL. Failures are marked as
// reverse_proxy marks them, since nothing was sent yet.
func dialContext(policy *Policy, timeout time.Duration) dialFunc {
	dialer := policy.Dialer(timeout)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, reverseproxy.NewDialError(err)
		}
		return conn, nil
	}
}
