package ondemand

import (
	"crypto/x509"
	"slices"
	"time"
)

// Certificate is a certificate in this node's memory, ready to be served.
type Certificate struct {
	Names     []string // host names and IP addresses
	Issuer    string   // as a distinguished name
	Serial    string   // in hexadecimal
	NotBefore time.Time
	NotAfter  time.Time
}

// NewCertificate describes a leaf certificate.
func NewCertificate(leaf *x509.Certificate) Certificate {
	c := Certificate{
		Names:     slices.Clone(leaf.DNSNames),
		Issuer:    leaf.Issuer.String(),
		Serial:    leaf.SerialNumber.Text(16),
		NotBefore: leaf.NotBefore.UTC(),
		NotAfter:  leaf.NotAfter.UTC(),
	}
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	return c
}
