package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/certtest"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

func TestValidateClientCertificate(t *testing.T) {
	t.Parallel()
	ca := certtest.NewAuthority(t, "clients")
	pair, other := ca.Valid("orders"), ca.Valid("billing")
	expired := ca.Issue("old", time.Now().Add(-time.Hour))
	const begin, end = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"
	const certificate, key = "upstream.tls.certificate", "upstream.tls.key"
	for name, tt := range map[string]struct {
		certificate, key, ca string
		want                 []string // the fields that are wrong
	}{
		"none":                             {},
		"both":                             {certificate: pair.Certificate, key: pair.Key},
		"with the CA's":                    {certificate: pair.Certificate + ca.PEM, key: pair.Key},
		"text around":                      {certificate: "subject=orders\n" + pair.Certificate, key: "Key Attributes: <No Attributes>\n" + pair.Key},
		"the key has both":                 {certificate: pair.Certificate, key: pair.Certificate + pair.Key},
		"expired, which is not asked here": {certificate: expired.Certificate, key: expired.Key},
		"EC parameters before the key":     {certificate: pair.Certificate, key: block("EC PARAMETERS", []byte{6, 0}) + pair.Key},

		"no key":                           {certificate: pair.Certificate, want: []string{key}},
		"no certificate":                   {key: pair.Key, want: []string{certificate}},
		"another's key":                    {certificate: pair.Certificate, key: other.Key, want: []string{key}},
		"the CA's first":                   {certificate: ca.PEM + pair.Certificate, key: pair.Key, want: []string{key}},
		"a key of another kind":            {certificate: pair.Certificate, key: rsaKey(t), want: []string{key}},
		"the mask":                         {certificate: pair.Certificate, key: store.Mask, want: []string{key}},
		"the mask alone":                   {key: store.Mask, want: []string{certificate, key}},
		"a key that is none":               {certificate: pair.Certificate, key: "hunter2", want: []string{key}},
		"a key with bad content":           {certificate: pair.Certificate, key: block("PRIVATE KEY", []byte("hunter2")), want: []string{key}},
		"a key that is encrypted":          {certificate: pair.Certificate, key: block("ENCRYPTED PRIVATE KEY", []byte("hunter2")), want: []string{key}},
		"a certificate as the key":         {certificate: pair.Certificate, key: pair.Certificate, want: []string{key}},
		"a certificate that is none":       {certificate: "hunter2", key: pair.Key, want: []string{certificate}},
		"a certificate with bad content":   {certificate: block("CERTIFICATE", []byte("hunter2")), key: pair.Key, want: []string{certificate}},
		"a certificate that is cut":        {certificate: pair.Certificate[:100], key: pair.Key, want: []string{certificate}},
		"a second one that is cut":         {certificate: pair.Certificate + ca.PEM[:100], key: pair.Key, want: []string{certificate}},
		"one between them with bad base64": {certificate: pair.Certificate + begin + "!!\n" + end + ca.PEM, key: pair.Key, want: []string{certificate}},
		"both are bad":                     {certificate: "hunter2", key: "hunter2", want: []string{certificate, key}},
		"something else beside":            {certificate: pair.Certificate + block("CERTIFICATE REQUEST", nil), key: pair.Key, want: []string{certificate}},
		"a key in the certificate":         {certificate: pair.Certificate + pair.Key, key: pair.Key, want: []string{certificate}},
		"a broken key in the certificate":  {certificate: "-----BEGIN EC PRIVATE KEY-----\n!\n" + pair.Certificate, key: pair.Key, want: []string{certificate}},
		"a key in the CA":                  {ca: ca.PEM + pair.Key, want: []string{"upstream.tls.ca"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row := store.NewRoute("/", "https://10.0.0.1")
			row.Upstream = &store.Upstream{TLS: &store.UpstreamTLS{Certificate: tt.certificate, Key: tt.key, CA: tt.ca}}
			_, err := proxy.Validate(row, nil, new(proxy.Policy))
			var fields store.FieldErrors
			if err != nil && !errors.As(err, &fields) {
				t.Fatal(err)
			}
			var got []string
			for _, f := range fields {
				got = append(got, f.Field)
				if strings.Contains(f.Message, "hunter2") || strings.Contains(f.Message, "-----") {
					t.Errorf("the error of %s quotes what was sent: %s", f.Field, f.Message)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("wrong are %q, want %q: %v", got, tt.want, err)
			}
		})
	}
}

// TestValidateKeyForms offers keys in every form that openssl writes.
func TestValidateKeyForms(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	pair := certtest.NewAuthority(t, "clients").Valid("orders")
	for name, key := range map[string]string{"SEC 1": block("EC PRIVATE KEY", der), "PKCS #1": rsaKey(t)} {
		row := store.NewRoute("/", "https://10.0.0.1")
		row.Upstream = &store.Upstream{TLS: &store.UpstreamTLS{Certificate: pair.Certificate, Key: key}}
		// It is read, and then found to be another's.
		if _, err := proxy.Validate(row, nil, new(proxy.Policy)); err == nil || !strings.Contains(err.Error(), "is not the private key of") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func block(kind string, content []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
}

func rsaKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
}
