package proxy

import (
	"crypto/x509"
	"strings"

	"github.com/isekai-gateway/isekai/store"
)

// Validate checks a route's target and upstream settings, as far as that is
// possible without connecting, and returns the parsed target. params are the
// names of the pattern's parameters. Errors are store.FieldErrors.
func Validate(row *store.Route, params []string, policy *Policy) (*Target, error) {
	var errs store.FieldErrors
	if row.TargetURL == "" {
		errs.Add("target_url", "is required")
		return nil, errs
	}
	target, err := ParseTarget(row.TargetURL, params)
	switch {
	case err != nil:
		errs.Add("target_url", err.Error())
		return nil, errs
	case policy.CheckTarget(target) != nil:
		errs.Add("target_url", policy.CheckTarget(target).Error())
	case target.Rewrites() && row.StripPrefix:
		errs.Add("strip_prefix", "has no effect with a target_url whose path names parameters: set one of the two")
	}
	if row.Upstream != nil {
		validateUpstream(&errs, target, row.Upstream)
		validatePool(&errs, target, row.Upstream, policy)
	}
	return target, errs.Err()
}

func validateUpstream(errs *store.FieldErrors, t *Target, u *store.Upstream) {
	switch u.Protocol {
	case "", protocolAuto, protocolHTTP1:
		if t.H2C && u.Protocol != "" {
			errs.Add("upstream.protocol", "contradicts the scheme h2c of target_url")
		}
	case protocolHTTP2:
		if t.Scheme != "https" {
			errs.Add("upstream.protocol", `"http2" needs an https target_url; use "h2c" without TLS`)
		}
	case protocolH2C:
		if t.Scheme != "http" {
			errs.Add("upstream.protocol", `"h2c" needs a target_url without TLS`)
		}
	default:
		errs.Add("upstream.protocol", `must be "auto", "http1", "http2" or "h2c"`)
	}
	if u.TLS == nil {
		return
	}
	if t.Scheme != "https" {
		errs.Add("upstream.tls", "needs an https target_url")
	}
	if strings.ContainsAny(u.TLS.ServerName, "{}") {
		errs.Add("upstream.tls.server_name", "must not have a placeholder")
	}
	if u.TLS.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(u.TLS.CA)) {
		errs.Add("upstream.tls.ca", "has no certificate in PEM form")
	}
	if holdsKey(u.TLS.CA) {
		errs.Add("upstream.tls.ca", "must not hold a private key: everybody who reads the route would see it")
	}
	validateClientCertificate(errs, u.TLS)
}
