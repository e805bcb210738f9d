package auth

import (
	"maps"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// toldVar is the variable of a request in which a site's authentication leaves what
// it found out. Clients can't set variables.
const toldVar = "isekai.auth"

// told is what a site's authentication found out.
type told struct {
	id     *Identity
	fields http.Header // those that tell of it
}

// leave lets handlers after this one know who makes a request.
func (v *Verifier) leave(r *http.Request, id *Identity) {
	t := told{id, make(http.Header)}
	for _, name := range v.own {
		if values, ok := r.Header[name]; ok {
			t.fields[name] = values
		}
	}
	caddyhttp.SetVar(r.Context(), toldVar, t)
}

// FromSite returns who makes a request, if the site has asked before, and puts the
// header fields back that tell of it, which Clean takes from everybody.
func FromSite(r *http.Request) *Identity {
	t, ok := caddyhttp.GetVar(r.Context(), toldVar).(told)
	if !ok {
		return nil
	}
	maps.Copy(r.Header, t.fields)
	return t.id
}
