package api

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/store"
)

// Where errors about a client certificate are placed.
const (
	atCertificate = "body.upstream.tls.certificate"
	atKey         = "body.upstream.tls.key"
)

// resolveKey puts the stored private key into a row that has the mask in its
// place, as one has that was read here and is sent back, and says what is wrong
// with that. old is the route's state so far, nil for a new one. The mask means
// the stored key only beside the stored certificate: beside another it is more
// likely a key that was forgotten.
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
	if now.Key == store.KeyMask {
		now.Key = ""
		if unchanged {
			now.Key = was.Key
		} else {
			details = append(details, &huma.ErrorDetail{Location: atKey, Message: fmt.Sprintf(
				"%q stands for the stored key of the stored certificate, which this is not: send the key itself", store.KeyMask)})
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
