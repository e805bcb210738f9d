package auth

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/internal/fields"
)

// Own returns the header fields by which upstreams are told who makes a request, in
// canonical form. A client must not set them.
func (v *Verifier) Own() []string { return v.own }

// Clean removes from a request what only the gateway may say: the fields of Own, also
// as trailers, and their names from the Connection field, which would have them
// removed when the request is forwarded.
func (v *Verifier) Clean(r *http.Request) {
	fields.Drop(r.Header, v.own)
	fields.Drop(r.Trailer, v.own)
	lines, ok := r.Header["Connection"]
	if !ok {
		return
	}
	kept, dropped := make([]string, 0, len(lines)), false
	for name := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name = textproto.TrimString(name)
		if slices.Contains(v.own, textproto.CanonicalMIMEHeaderKey(name)) {
			dropped = true
			continue
		}
		kept = append(kept, name)
	}
	if dropped {
		r.Header["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// strip removes credentials from a request that somebody was asked for: API keys
// wherever they may stand, and an Authorization of a scheme that one of methods
// reads. What else is in Authorization is for the upstream.
func (v *Verifier) strip(r *http.Request, methods []string) {
	a := readAuthorization(r.Header)
	_, isKey := a.key()
	switch {
	case isKey, a.bad,
		a.scheme == "bearer" && slices.Contains(methods, MethodJWT),
		a.scheme == "basic" && slices.Contains(methods, MethodBasic):
		delete(r.Header, "Authorization")
	}
	fields.Drop(r.Header, v.keyHeaders)
	if len(v.keyParams) > 0 && r.URL.RawQuery != "" {
		dropQuery(r, v.keyParams)
	}
}

// tell sets the header fields that tell the upstream who id is.
func (v *Verifier) tell(h http.Header, repl *caddy.Replacer, id *Identity) {
	for name, text := range v.headers {
		if value := repl.ReplaceAll(text, ""); value != "" {
			h[name] = []string{fieldValue(value)}
		}
	}
	for name, value := range id.headers {
		h[name] = []string{fieldValue(value)}
	}
}

// fieldValue returns a text as the value of a header field can hold it: control
// characters are percent-encoded.
func fieldValue(text string) string {
	isControl := func(r rune) bool { return r < ' ' || r == 0x7f }
	if !strings.ContainsFunc(text, isControl) {
		return text
	}
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == 0x7f {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}
