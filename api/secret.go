package api

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/store"
)

// Where errors about secrets are placed.
const (
	atCookieSecret = "body.upstream.policy_options.secret" //nolint:gosec // a name

	atCertificate = "body.upstream.tls.certificate"
	atKey         = "body.upstream.tls.key"
)

// resolveSecrets puts stored secrets into a row that has the mask in their place,
// as one has that was read here and is sent back, and says what is wrong with that.
// old is the route's state so far, nil for a new one.
func resolveSecrets(row, old *store.Route) []*huma.ErrorDetail {
	return append(resolveKey(row, old), resolveCookieSecret(row, old)...)
}

func resolveCookieSecret(row, old *store.Route) []*huma.ErrorDetail {
	if row.Upstream == nil || row.Upstream.CookieSecret() != store.Mask {
		return nil
	}
	if old == nil || old.Upstream == nil || old.Upstream.CookieSecret() == "" {
		return []*huma.ErrorDetail{{Location: atCookieSecret, Message: fmt.Sprintf(
			"%q stands for the stored secret, and there is none: send the secret itself", store.Mask)}}
	}
	row.Upstream.SetCookieSecret(old.Upstream.CookieSecret())
	return nil
}

// resolveKey does so for a private key. The mask means the stored one only beside
// the stored certificate: beside another it is more likely a key that was forgotten.
func resolveKey(row, old *store.Route) []*huma.ErrorDetail {
	now := tlsSettings(row)
	if now == nil {
		return nil
	}
	var was store.UpstreamTLS
	if old != nil && tlsSettings(old) != nil {
		was = *tlsSettings(old)
	}
	var details []*huma.ErrorDetail
	unchanged := now.Certificate != "" && now.Certificate == was.Certificate
	if now.Key == store.Mask {
		now.Key = ""
		if unchanged {
			now.Key = was.Key
		} else {
			details = append(details, &huma.ErrorDetail{Location: atKey, Message: fmt.Sprintf(
				"%q stands for the stored key of the stored certificate, which this is not: send the key itself", store.Mask)})
		}
	}
	// An expired certificate that is there already must not keep anybody from
	// changing the rest of the route.
	if !unchanged && expired(now.Certificate) {
		details = append(details, &huma.ErrorDetail{Location: atCertificate, Message: "has expired"})
	}
	return details
}

func tlsSettings(row *store.Route) *store.UpstreamTLS {
	if row.Upstream == nil {
		return nil
	}
	return row.Upstream.TLS
}

// expired reports whether the first certificate of a chain has expired. What is
// no certificate has not; it is refused elsewhere.
func expired(chain string) bool {
	block, _ := pem.Decode([]byte(chain))
	if block == nil {
		return false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	return err == nil && time.Now().After(certificate.NotAfter)
}
