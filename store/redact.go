package store

// KeyMask stands in the place of a private key wherever a route is shown. It is
// no key, so a row that holds it is never served.
const KeyMask = "***"

// Redacted returns the route as it may be shown: itself, or, if it holds a
// private key, a copy with KeyMask in the key's place.
func (r *Route) Redacted() *Route {
	if r.Upstream == nil || r.Upstream.TLS == nil || r.Upstream.TLS.Key == "" {
		return r
	}
	shown, upstream, settings := *r, *r.Upstream, *r.Upstream.TLS
	settings.Key = KeyMask
	upstream.TLS, shown.Upstream = &settings, &upstream
	return &shown
}
