package isekai

import (
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/uuid"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/internal/fields"
	"github.com/isekai-gateway/isekai/internal/tracing"
	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/pipeline"
)

// sanitize removes from a request what its sender must not decide. It runs
// before any plugin, so that plugins and upstreams see the same request.
func sanitize(r *http.Request, x *pipeline.Exchange) {
	var own tracing.Parent
	if x.TraceID != "" {
		own = tracing.ParentOf(r)
	}
	dropConnectionHeaders(r.Header)
	own.Restore(r.Header)
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); !trusted {
		fields.Drop(r.Header, fields.Claims)
		fields.Drop(r.Header, fields.Asked)
	}
	mirror.Sanitize(r.Header)
	tracing.Sanitize(r.Header)
	x.TagRequest(r.Header)
}

// dropConnectionHeaders removes the fields that the Connection field names (RFC
// 9110, 7.6.1). Forwarding does so too, but only after the plugins have run: a
// client could name a field that a plugin sets, and have it removed. What
// remains of Connection is a protocol upgrade, except to HTTP/2, which is
// between the client and Caddy.
func dropConnectionHeaders(h http.Header) {
	if len(h["Connection"]) == 0 && len(h["Upgrade"]) == 0 {
		return
	}
	upgrade := httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") &&
		len(h["Upgrade"]) == 1 && !strings.HasPrefix(strings.ToLower(h["Upgrade"][0]), "h2c")
	for name := range fields.NamedByConnection(h) {
		if name != "Upgrade" && name != "Te" {
			delete(h, name)
		}
	}
	delete(h, "Connection")
	if upgrade {
		h["Connection"] = []string{"Upgrade"}
		return
	}
	delete(h, "Upgrade")
	delete(h, "Http2-Settings")
}

// maxRequestID is the longest X-Request-Id that is kept.
const maxRequestID = 128

// requestID is the id that the client or a proxy before gave the request, if it
// is harmless wherever it will be written, else a new one.
func requestID(r *http.Request, now time.Time) string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && isRequestID(given[0]) {
		return given[0]
	}
	return newRequestID(now)
}

// newRequestID returns a UUIDv7 (RFC 9562): the milliseconds, twelve bits of their
// fraction (6.2, method 3), and 62 random bits. It is no secret. The runtime's source of
// randomness is seeded by the system and needs neither a lock nor a call of it.
func newRequestID(now time.Time) string {
	ns := uint64(now.UnixNano())
	ms := ns / uint64(time.Millisecond)
	fraction := ns % uint64(time.Millisecond) << 12 / uint64(time.Millisecond)
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], ms<<16|7<<12|fraction)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63)
	return id.String()
}

func isRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-._~+/=:@", c) >= 0:
		default:
			return false
		}
	}
	return true
}
