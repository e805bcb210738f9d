package forwardauth

import (
	"net"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

func canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// hopByHop are fields that end with a connection (RFC 9110, 7.6.1).
var hopByHop = []string{
	"Alt-Svc",
	"Connection",
	"Http2-Settings",
	"Keep-Alive",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Proxy-Connection",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

// unasked are fields of a request that don't go with the question. Conditions
// and ranges are about the resource: they would make a service that knows them
// answer 304, 412 or 416, none of which means yes.
var unasked = []string{
	"Expect",
	"If-Match",
	"If-Modified-Since",
	"If-None-Match",
	"If-Range",
	"If-Unmodified-Since",
	"Range",
}

// asserted are fields by which a client could tell the service that it asked for
// something else. What is true comes in X-Forwarded-Method and -Uri, from here.
var asserted = []string{
	"X-Forwarded-Method",
	"X-Forwarded-Uri",
	"X-Original-Method",
	"X-Original-Uri",
	"X-Original-Url",
	"X-Rewrite-Url",
}

// claimed are fields by which only a trusted proxy may say who the client is.
var claimed = []string{
	"Cf-Connecting-Ip",
	"Fastly-Client-Ip",
	"Forwarded",
	"True-Client-Ip",
	"X-Client-Ip",
	"X-Cluster-Client-Ip",
	"X-Forwarded-For",
	"X-Forwarded-Host",
	"X-Forwarded-Port",
	"X-Forwarded-Prefix",
	"X-Forwarded-Proto",
	"X-Forwarded-Server",
	"X-Forwarded-Ssl",
	"X-Real-Ip",
}

func remove(h http.Header, names []string) {
	for _, name := range names {
		delete(h, name)
	}
}

// removeHopByHop removes the fields that end with a connection, also those that
// Connection names.
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			delete(h, canonical(textproto.TrimString(name)))
		}
	}
	remove(h, hopByHop)
}

// question returns the header of the request that asks about r.
func question(r *http.Request, trusted bool) http.Header {
	h := r.Header.Clone()
	removeHopByHop(h)
	remove(h, unasked)
	remove(h, asserted)
	if !trusted {
		remove(h, claimed)
	}
	for name := range h {
		// The server puts what is no field there too, such as HTTP/2's :protocol.
		if strings.HasPrefix(name, "Content-") || !httpguts.ValidHeaderFieldName(name) {
			delete(h, name)
		}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // keeps net/http from naming itself
	}

	h["X-Forwarded-Method"] = []string{method(r)}
	h["X-Forwarded-Uri"] = []string{r.URL.RequestURI()}
	if host := h.Get("X-Forwarded-Host"); host == "" {
		h["X-Forwarded-Host"] = []string{r.Host}
	}
	if proto := h.Get("X-Forwarded-Proto"); proto == "" {
		h["X-Forwarded-Proto"] = []string{scheme(r)}
	}
	if peer, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		peer, _, _ = strings.Cut(peer, "%")
		h["X-Forwarded-For"] = []string{strings.Join(append(h["X-Forwarded-For"], peer), ", ")}
	}
	return h
}

// method is the request's method, with a WebSocket over HTTP/2 or HTTP/3 taken
// for the GET that it is over HTTP/1.1.
func method(r *http.Request) string {
	if r.Method == http.MethodConnect && r.ProtoMajor >= 2 && r.URL.Path != "" {
		return http.MethodGet
	}
	return r.Method
}

func scheme(r *http.Request) string {
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// forget removes the fields from a request, and from its Connection field, by
// which a client could have a proxy remove what is set in their place.
func forget(h http.Header, fields []copied) {
	for _, f := range fields {
		delete(h, f.to)
	}
	lines, ok := h["Connection"]
	if !ok {
		return
	}
	var kept []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.TrimString(name)
			if name != "" && !isCopied(fields, canonical(name)) {
				kept = append(kept, name)
			}
		}
	}
	if len(kept) == 0 {
		delete(h, "Connection")
		return
	}
	h["Connection"] = []string{strings.Join(kept, ", ")}
}

func isCopied(fields []copied, name string) bool {
	for _, f := range fields {
		if f.to == name {
			return true
		}
	}
	return false
}
