package requestlog

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/isekai-gateway/isekai/store"
)

// SecretHeaders are the header fields whose values are never logged, in canonical
// form.
var SecretHeaders = []string{"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"}

// SecretParams are the query parameters whose values are not logged unless a
// configuration names others.
var SecretParams = []string{
	"access_token", "api_key", "apikey", "code", "id_token", "key", "password", "refresh_token", "secret", "sig", "signature", "token",
}

// Redactor takes what a request was asked with into its record, without secrets. It
// is safe for concurrent use. Make one with NewRedactor.
type Redactor struct {
	headers map[string]struct{} // canonical
	params  map[string]struct{} // in small letters
}

// NewRedactor returns a redactor that masks the header fields and the query parameters
// of these names, of any case, and SecretHeaders.
func NewRedactor(headers, params []string) *Redactor {
	r := &Redactor{headers: make(map[string]struct{}), params: make(map[string]struct{})}
	for _, names := range [][]string{SecretHeaders, headers} {
		for _, name := range names {
			r.headers[textproto.CanonicalMIMEHeaderKey(name)] = struct{}{}
		}
	}
	for _, name := range params {
		r.params[strings.ToLower(name)] = struct{}{}
	}
	return r
}

// Headers returns the fields of these names that h has, several lines of one joined
// by a comma. It returns nil for none.
func (r *Redactor) Headers(h http.Header, names []string) map[string]string {
	var out map[string]string
	for _, name := range names {
		name = textproto.CanonicalMIMEHeaderKey(name)
		values, ok := h[name]
		if !ok {
			continue
		}
		if out == nil {
			out = make(map[string]string, len(names))
		}
		if _, secret := r.headers[name]; secret {
			out[name] = store.Mask
			continue
		}
		out[name] = strings.Join(values, ", ")
	}
	return out
}

// Query returns a query as it was sent, but for the values of secret parameters. What
// can't be read as a parameter's name is taken for a secret.
func (r *Redactor) Query(raw string) string {
	if raw == "" {
		return ""
	}
	// A semicolon separates for some servers and is part of a value for others.
	pairs := strings.FieldsFunc(raw, func(c rune) bool { return c == '&' || c == ';' })
	for i, pair := range pairs {
		name, _, hasValue := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		_, secret := r.params[strings.ToLower(plain)]
		switch {
		case err != nil:
			pairs[i] = store.Mask
		case secret && hasValue:
			pairs[i] = name + "=" + store.Mask
		}
	}
	return strings.Join(pairs, "&")
}
