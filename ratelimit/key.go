package ratelimit

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// clientIPKey is the placeholder of the client's address, and shortClientIPKey what
// it is called in a Caddyfile.
const (
	clientIPKey      = "{http.vars." + caddyhttp.ClientIPVarKey + "}"
	shortClientIPKey = "{client_ip}"
)

// Key says what requests are counted by. The zero value is the client's address.
// Keys can be compared.
type Key struct {
	text   string // with placeholders; empty: the client's address
	caller bool   // or rather who was authenticated
}

// ParseKey returns the key for a text with placeholders, in which "{client_ip}" may
// stand for "{http.vars.client_ip}" as in a Caddyfile. A text that is nothing but
// that counts IPv6 clients by their /64. The empty text is the default: who was
// authenticated if anybody was, else the client's address.
func ParseKey(text string) Key {
	switch text = strings.ReplaceAll(text, shortClientIPKey, clientIPKey); text {
	case "":
		return Key{caller: true}
	case clientIPKey:
		return Key{}
	}
	return Key{text: text}
}

// Of returns what a request is counted under, which must be one of Caddy's. caller
// is who was authenticated, empty for nobody; only the default key asks for it.
// Placeholders that have no value are left out.
func (k Key) Of(r *http.Request, caller string) string {
	switch {
	case k.text != "":
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		return repl.ReplaceAll(k.text, "")
	case k.caller && caller != "":
		return caller
	}
	addr, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ClientKey(addr)
}

// Normal returns what a request is counted under for which the key comes out as
// value: a client's address as ClientKey has it, anything else as it is.
func (k Key) Normal(value string) string {
	if k.text != "" {
		return value
	}
	return ClientKey(value)
}
