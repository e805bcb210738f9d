package proxy

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/proxy/http1"
)

// maxLaneBody is the longest body of a request, in bytes, that the fast lane takes: it
// has it whole before it asks for a target.
const maxLaneBody = 64 << 10

// maxKeptRequest is the largest buffer, in bytes, that is kept for other requests.
const maxKeptRequest = 16 << 10

// laneRequest is a request in the form in which it is sent.
type laneRequest struct {
	fields []byte // the header without Host
	body   []byte // not to be written to
	bytes  []byte // the whole of it
}

func (q *laneRequest) reset() {
	q.body = nil
	if cap(q.fields) > maxKeptRequest || cap(q.bytes) > maxKeptRequest {
		*q = laneRequest{}
	}
}

// prepare writes the header that r's has to become on its way to a target, as
// reverse_proxy would. It says whether the request is simple: one of which the lane is
// sure that nothing else has to be done. It has no upgrade, trailer, expectation or
// extended CONNECT, a body that is short or none, and only fields that can be sent as
// they are.
func (q *laneRequest) prepare(r *http.Request) bool {
	switch {
	case r.ContentLength < 0 || r.ContentLength > maxLaneBody || len(r.Trailer) > 0:
		return false
	case !simpleMethod(r.Method) || r.TLS != nil && !r.TLS.HandshakeComplete:
		return false
	case !simpleTarget(r.URL.RawQuery):
		return false
	}
	b := q.fields[:0]
	for name, values := range r.Header {
		switch name {
		case "Upgrade", "Te", "Trailer", "Transfer-Encoding", "Expect", "Incremental", "Host":
			return false
		case "Connection":
			if !onlyKeepsAlive(values) {
				return false
			}
			continue
		case "Content-Length", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host":
			continue
		case "User-Agent":
			// http.Transport sends one.
			if len(values) == 0 || values[0] == "" {
				continue
			}
			values = values[:1]
		default:
			if http1.IsHopByHop(name) {
				continue
			}
			if !httpguts.ValidHeaderFieldName(name) {
				return false
			}
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return false
			}
			b = appendField(b, name, value)
		}
	}
	if r.ContentLength > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	b, ok := appendForwarded(b, r)
	b = append(b, "\r\n"...)
	q.fields = b
	return ok
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, strings.Trim(value, " \t")...)
	return append(b, "\r\n"...)
}

// appendForwarded writes what a target is told of the client, by the same rules as
// reverse_proxy: what came is believed from trusted proxies only.
func appendForwarded(b []byte, r *http.Request) ([]byte, bool) {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return b, false
	}
	client, _, _ = strings.Cut(client, "%")
	prior, given := r.Header["X-Forwarded-For"]
	if !given || prior != nil {
		b = append(b, "X-Forwarded-For: "...)
		if joined := strings.Join(prior, ", "); trusted && joined != "" {
			b = append(append(b, joined...), ", "...)
		}
		b = append(append(b, client...), "\r\n"...)
	}
	proto := "https"
	if r.TLS == nil {
		proto = "http"
	}
	b = appendLast(b, r.Header, "X-Forwarded-Proto", proto, trusted)
	b = appendLast(b, r.Header, "X-Forwarded-Host", r.Host, trusted)
	for _, via := range r.Header["Via"] {
		b = appendField(b, "Via", via)
	}
	b = append(b, "Via: "...)
	b = strconv.AppendInt(b, int64(r.ProtoMajor), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(r.ProtoMinor), 10)
	b = append(b, " Caddy\r\n"...)
	for _, name := range [...]string{"Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"} {
		for _, value := range r.Header[name] {
			if !httpguts.ValidHeaderFieldValue(value) {
				return b, false
			}
		}
	}
	return b, httpguts.ValidHeaderFieldValue(r.Host)
}

// appendLast writes the last of the values that a trusted proxy has sent, else the
// gateway's own; nothing if a plugin has the field left out.
func appendLast(b []byte, h http.Header, name, own string, trusted bool) []byte {
	values, given := h[name]
	if given && values == nil {
		return b
	}
	if n := len(values); trusted && n > 0 && values[n-1] != "" {
		own = values[n-1]
	}
	return appendField(b, name, own)
}

// finish puts the request together for a target that has this host.
func (q *laneRequest) finish(r *http.Request, host string) bool {
	if host == "" || !simpleHost(host) {
		return false
	}
	b := q.bytes[:0]
	b = append(b, r.Method...)
	b = append(b, ' ')
	path := r.URL.EscapedPath()
	if path == "" || path[0] != '/' || r.URL.Opaque != "" {
		return false
	}
	b = append(b, path...)
	if r.URL.ForceQuery || r.URL.RawQuery != "" {
		b = append(append(b, '?'), r.URL.RawQuery...)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	b = append(b, q.fields...)
	b = append(b, q.body...)
	q.bytes = b
	return true
}

func onlyKeepsAlive(values []string) bool {
	for _, value := range values {
		if !strings.EqualFold(value, "keep-alive") && !strings.EqualFold(value, "close") && value != "" {
			return false
		}
	}
	return true
}

func simpleMethod(method string) bool {
	for _, c := range []byte(method) {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return method != "" && method != http.MethodConnect
}

// simpleTarget says whether a query can stand in a request line.
func simpleTarget(query string) bool {
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// simpleHost says whether a Host is a name or an address, with or without a port.
func simpleHost(host string) bool {
	for _, c := range []byte(host) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']':
		default:
			return false
		}
	}
	return true
}
