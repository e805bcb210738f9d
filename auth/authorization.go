package auth

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// maxAuthorization bounds the Authorization field that is looked at, in bytes.
const maxAuthorization = 12 << 10

// authorization is what a request's Authorization field holds.
type authorization struct {
	scheme string // in lower case; empty: none
	value  string // after the scheme
	bad    bool   // there are several fields, or one too long, and it can't be said what holds
}

// readAuthorization takes the field apart.
func readAuthorization(h http.Header) authorization {
	fields := h["Authorization"]
	switch {
	case len(fields) == 0:
		return authorization{}
	case len(fields) > 1 || len(fields[0]) > maxAuthorization:
		return authorization{bad: true}
	}
	scheme, value, _ := strings.Cut(strings.Trim(fields[0], " \t"), " ")
	return authorization{scheme: strings.ToLower(scheme), value: strings.Trim(value, " \t")}
}

// bearer returns the token of the scheme Bearer (RFC 6750).
func (a authorization) bearer() (token string, ok bool) {
	return a.value, a.scheme == "bearer"
}

// key returns what is an API key by its prefix. A text of another form is none of
// ours.
func (a authorization) key() (text string, ok bool) {
	return a.value, a.scheme == "bearer" && strings.HasPrefix(a.value, PrefixKey)
}

// basic returns name and password of the scheme Basic (RFC 7617). It returns ok for a
// malformed one, too, which fits no account.
func (a authorization) basic() (name, password string, ok bool) {
	if a.scheme != "basic" {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(a.value)
	if err != nil {
		return "", "", true
	}
	name, password, found := strings.Cut(string(decoded), ":")
	if !found {
		return "", "", true
	}
	return name, password, true
}
