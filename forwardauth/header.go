package forwardauth

import (
	"net"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/internal/fields"
)

func canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// unasked are fields of a request that don't go with the question. Conditions
// and ranges are about the resource: they would make a service that knows them
// answer 304, 412 or 416, none of which means yes.
var unasked = []string{
	"Expect",
	"Http2-Settings",
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

// question returns the header of the request that asks about r.
func question(r *http.Request, trusted bool) http.Header {
	h := r.Header.Clone()
	fields.DropHopByHop(h)
	fields.Drop(h, unasked)
	fields.Drop(h, asserted)
	if !trusted {
		fields.Drop(h, fields.Claims)
		fields.Drop(h, fields.Rebuilt) // and made anew below
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
func forget(h http.Header, list []copied) {
	for _, f := range list {
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
			if name != "" && !isCopied(list, canonical(name)) {
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

func isCopied(list []copied, name string) bool {
	for _, f := range list {
		if f.to == name {
			return true
		}
	}
	return false
}
