// Package fields knows the header fields of HTTP that a proxy must not pass on.
package fields

import (
	"io"
	"iter"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// hopByHop are the fields that concern one connection only (RFC 9110, section
// 7.6.1), as Caddy's reverse proxy has them, in canonical form.
var hopByHop = []string{
	"Alt-Svc",
	"Connection",
	"Keep-Alive",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Proxy-Connection",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

// Claims are the fields by which proxies tell upstreams who the client is and how
// it came, in canonical form; only trusted proxies may set them. Not among them are
// those of Rebuilt.
var Claims = []string{
	"Forwarded", // RFC 7239
	"X-Real-Ip",
	"True-Client-Ip",
	"X-Client-Ip",
	"X-Cluster-Client-Ip",
	"Cf-Connecting-Ip",
	"Fastly-Client-Ip",
	"X-Forwarded-Port",
	"X-Forwarded-Prefix",
	"X-Forwarded-Server",
	"X-Forwarded-Ssl",
}

// Asked are fields by which a client could tell an upstream that it asked for something
// else, in canonical form.
var Asked = []string{"X-Original-Url", "X-Rewrite-Url"}

// Rebuilt are the fields about the client that forwarding sets, in canonical form.
var Rebuilt = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// Drop removes fields, given in canonical form.
func Drop(h http.Header, names []string) {
	for _, name := range names {
		// Most are not there, and to look is cheaper than to delete nothing.
		if _, ok := h[name]; ok { //nolint:staticcheck // see above
			delete(h, name)
		}
	}
}

// DropTrailers removes fields, given in canonical form, from what comes behind a
// request's body. A request that announces no trailers has none.
func DropTrailers(r *http.Request, names []string) {
	if r.Trailer == nil || len(names) == 0 {
		return
	}
	Drop(r.Trailer, names)
	r.Body = &trailed{r.Body, r.Trailer, names}
}

// trailed is a body behind which trailers come.
type trailed struct {
	io.ReadCloser
	trailer http.Header
	dropped []string
}

func (b *trailed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// net/http puts all that came, announced or not, among those announced.
		Drop(b.trailer, b.dropped)
	}
	return n, err
}

// DropHopByHop removes the fields that concern one connection only, with those
// that Connection names.
func DropHopByHop(h http.Header) {
	for name := range NamedByConnection(h) {
		delete(h, name)
	}
	Drop(h, hopByHop)
}

// NamedByConnection yields the names in Connection, in canonical form.
func NamedByConnection(h http.Header) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range h["Connection"] {
			for name := range strings.SplitSeq(line, ",") {
				if !yield(textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))) {
					return
				}
			}
		}
	}
}

// IsHopByHop reports whether a field, in canonical form, concerns one connection
// only.
func IsHopByHop(name string) bool { return slices.Contains(hopByHop, name) }
