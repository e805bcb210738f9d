package proxy

import "net/http"

// PlainTransport returns a transport for requests to t that do not go through a
// Forwarder, such as copies for a mirror. It has the target policy in its dialer
// and the bounds of the upstreams' transports, and uses no proxy of the
// environment. Whoever makes it closes its idle connections.
func PlainTransport(policy *Policy, t *Target) *http.Transport {
	transport := &http.Transport{
		DialContext:            policy.Dialer(dialTimeout).DialContext,
		TLSHandshakeTimeout:    tlsHandshakeTimeout,
		IdleConnTimeout:        idleConnTimeout,
		MaxIdleConnsPerHost:    maxIdleConnsPerHost,
		MaxResponseHeaderBytes: maxResponseHeaderSize,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
	}
	if t.H2C {
		transport.Protocols.SetUnencryptedHTTP2(true)
		return transport
	}
	transport.Protocols.SetHTTP1(true)
	transport.Protocols.SetHTTP2(true)
	return transport
}
