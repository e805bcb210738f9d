package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/http"
)

// certificate returns the holder of the client certificate, if Caddy has verified it.
// Caddy can also be told to ask for certificates without verifying them; such a one
// proves nothing.
func (v *Verifier) certificate(r *http.Request) (*Identity, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil, ErrNoCredentials
	}
	leaf := r.TLS.VerifiedChains[0][0]
	id := certificateName(leaf)
	if id == "" {
		return nil, v.invalid(MethodMTLS, "the certificate has no name")
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	return &Identity{
		Method: MethodMTLS,
		ID:     id,
		Name:   id,
		Groups: leaf.Subject.OrganizationalUnit,
		Metadata: map[string]string{
			"fingerprint": hex.EncodeToString(fingerprint[:]),
			"serial":      leaf.SerialNumber.Text(16),
			"issuer":      leaf.Issuer.String(),
		},
	}, nil
}

// certificateName is the common name, else the first alternative name.
func certificateName(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.IPAddresses) > 0:
		return c.IPAddresses[0].String()
	}
	return ""
}
