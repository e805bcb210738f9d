package mirror

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/internal/fields"
)

// outgoing returns the header of a copy of r: what Caddy's reverse proxy sends to
// an upstream, which offers no way to ask it, and the Marker.
func outgoing(r *http.Request) http.Header {
	h := r.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // keeps net/http from sending its own
	}
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		h["Early-Data"] = []string{"1"} // RFC 8470
	}
	fields.DropHopByHop(h)
	if keepsTrailers(r.Header) {
		h["Te"] = []string{"trailers"}
	}
	setForwarded(h, r)
	h["Via"] = append(h["Via"], strconv.Itoa(r.ProtoMajor)+"."+strconv.Itoa(r.ProtoMinor)+" Caddy")
	h[Marker] = []string{token}
	return h
}

// keepsTrailers says whether the upstream hears that the client takes trailers,
// which is the only thing of Te that is passed on.
func keepsTrailers(h http.Header) bool {
	for name := range fields.NamedByConnection(h) {
		if name == "Te" {
			return false
		}
	}
	return httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
}

// setForwarded sets X-Forwarded-For, -Proto and -Host. What the client sent of
// them counts only if it is a trusted proxy.
func setForwarded(h http.Header, r *http.Request) {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	peer := ""
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		peer, _, _ = strings.Cut(host, "%")
	} else if r.RemoteAddr != "@" || !trusted {
		// Nothing is known of the peer, unless it is on a unix socket and trusted.
		delete(h, "X-Forwarded-For")
		delete(h, "X-Forwarded-Proto")
		delete(h, "X-Forwarded-Host")
		return
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	setLast(h, "X-Forwarded-Proto", proto, trusted)
	setLast(h, "X-Forwarded-Host", r.Host, trusted)
	values, ok := h["X-Forwarded-For"]
	prior := strings.Join(values, ", ")
	switch {
	case ok && values == nil: // a handler before asks to leave the field out
	case !trusted || prior == "":
		if peer != "" {
			h["X-Forwarded-For"] = []string{peer}
		}
	case peer == "":
		h["X-Forwarded-For"] = []string{prior}
	default:
		h["X-Forwarded-For"] = []string{prior + ", " + peer}
	}
}

// setLast sets a field to value, or to its own last value if that is trusted.
func setLast(h http.Header, name, value string, trusted bool) {
	values, ok := h[name]
	switch {
	case ok && values == nil: // as above
	case trusted && len(values) > 0 && values[len(values)-1] != "":
		h[name] = values[len(values)-1:]
	default:
		h[name] = []string{value}
	}
}

// skipped says whether r is nothing that can be copied and sent once more: a
// protocol of its own, a stream in both directions, a body that waits for the
// upstream's consent, or a copy already.
func skipped(r *http.Request) bool {
	switch {
	case r.Method == http.MethodConnect, r.Method == http.MethodTrace:
	case len(r.Header["Upgrade"]) > 0, len(r.Header["Expect"]) > 0:
	case isGRPC(r.Header.Get("Content-Type")):
	case r.URL.Path == "" || r.URL.Path[0] != '/': // OPTIONS *
	case len(r.Header[Marker]) > 0:
	default:
		return false
	}
	return true
}

func isGRPC(contentType string) bool {
	const media = "application/grpc"
	return len(contentType) >= len(media) && strings.EqualFold(contentType[:len(media)], media)
}
