package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/isekai-gateway/isekai/store"
)

// The fields of a client certificate.
const (
	certificateField = "upstream.tls.certificate"
	keyField         = "upstream.tls.key"
)

// presentCertificate has cfg present the settings' client certificate to every
// server that asks for one. Go by itself would leave out a certificate whose
// issuer is not among those that the server names, which many servers name
// incompletely; who sets a certificate means it.
func presentCertificate(cfg *tls.Config, settings *store.UpstreamTLS) error {
	certificate, err := tls.X509KeyPair([]byte(settings.Certificate), []byte(settings.Key))
	if err != nil {
		return fmt.Errorf("reading %s and %s: %w", certificateField, keyField, err)
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &certificate, nil
	}
	return nil
}

// validateClientCertificate checks that certificate and key are there and belong
// together. Whether the certificate has expired is asked only when it is written:
// a route in service is not taken out by the clock, since it is for the upstream
// to decide what it accepts.
func validateClientCertificate(errs *store.FieldErrors, u *store.UpstreamTLS) {
	if u.Certificate == "" && u.Key == "" {
		return
	}
	certificateErr, keyErr := checkCertificates(u.Certificate), checkKey(u.Key)
	if certificateErr == nil && keyErr == nil {
		if _, err := tls.X509KeyPair([]byte(u.Certificate), []byte(u.Key)); err != nil {
			keyErr = errors.New("is not the private key of " + certificateField)
		}
	}
	if certificateErr != nil {
		errs.Add(certificateField, certificateErr.Error())
	}
	if keyErr != nil {
		errs.Add(keyField, keyErr.Error())
	}
}

// checkCertificates checks a certificate with those that lead to its CA. It
// refuses what a reader of PEM would skip: a key there would be shown to everybody.
func checkCertificates(text string) error {
	switch {
	case text == "":
		return errors.New("is required with " + keyField)
	case holdsKey(text):
		return errors.New("must not hold a private key: everybody who reads the route would see it; send it in " + keyField)
	}
	found := 0
	for rest := []byte(text); ; found++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return errors.New("must hold nothing but certificates")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return errors.New("has a certificate that can't be read")
		}
	}
	switch {
	case found == 0:
		return errors.New("has no certificate in PEM form")
	case found < strings.Count(text, "-----BEGIN "):
		return errors.New("has a certificate that is not in PEM form")
	}
	return nil
}

// checkKey checks a private key by itself. Its errors never quote from it.
func checkKey(text string) error {
	switch text {
	case "":
		return errors.New("is required with " + certificateField)
	case store.Mask:
		return fmt.Errorf("%q stands for a key that is not shown: send the key itself", store.Mask)
	}
	for rest := []byte(text); ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil:
			return errors.New("has no private key in PEM form")
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			continue // e.g. the parameters that openssl writes before an EC key
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return errors.New("must not be encrypted")
		case !isPrivateKey(block.Bytes):
			return errors.New("has a private key that can't be read")
		}
		return nil
	}
}

// isPrivateKey says whether der is a key in one of the forms that crypto/tls reads.
func isPrivateKey(der []byte) bool {
	_, err8 := x509.ParsePKCS8PrivateKey(der)
	_, err1 := x509.ParsePKCS1PrivateKey(der)
	_, errEC := x509.ParseECPrivateKey(der)
	return err8 == nil || err1 == nil || errEC == nil
}

// holdsKey says whether a text that everybody may see has a private key in it.
func holdsKey(text string) bool { return strings.Contains(text, "PRIVATE KEY-----") }
