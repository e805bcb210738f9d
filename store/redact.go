package store

import (
	"encoding/json"
	"maps"
)

// Mask stands in the place of a secret wherever a route is shown. It is no private
// key, so a row that holds it as one is never served.
const Mask = "***"

// Redacted returns the route as it may be shown: itself, or, if it holds secrets,
// a copy with Mask in their place.
func (r *Route) Redacted() *Route {
	u := r.Upstream
	if u == nil || u.CookieSecret() == "" && (u.TLS == nil || u.TLS.Key == "") {
		return r
	}
	shown, upstream := *r, *u
	if u.CookieSecret() != "" {
		upstream.SetCookieSecret(Mask)
	}
	if u.TLS != nil && u.TLS.Key != "" {
		settings := *u.TLS
		settings.Key = Mask
		upstream.TLS = &settings
	}
	shown.Upstream = &upstream
	return &shown
}

// cookieSecret is the option of the policy cookie that is a secret.
const cookieSecret = "secret"

// CookieSecret returns the secret among the policy's options, empty for none.
func (u *Upstream) CookieSecret() string {
	secret, _ := u.options()[cookieSecret].(string)
	return secret
}

// SetCookieSecret puts a secret into the policy's options, in the place of the one
// that is there. The options that u had are not changed, since they may be shared.
func (u *Upstream) SetCookieSecret(secret string) {
	options := maps.Clone(u.options())
	if options == nil {
		options = make(map[string]any)
	}
	options[cookieSecret] = secret
	// What was just read from JSON can be written as such.
	u.PolicyOptions, _ = json.Marshal(options)
}

// options returns the policy's options, nil for none.
func (u *Upstream) options() map[string]any {
	if len(u.PolicyOptions) == 0 {
		return nil
	}
	var options map[string]any
	if json.Unmarshal(u.PolicyOptions, &options) != nil {
		return nil
	}
	return options
}
