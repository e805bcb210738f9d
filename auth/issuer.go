package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/golang-jwt/jwt/v5"
)

// IssuerConfig is an issuer of JSON Web Tokens (RFC 7519). It has its keys from
// exactly one of jwks_url, jwks_file, key, key_file and secret.
type IssuerConfig struct {
	// The claim iss of its tokens, which also selects this issuer. Required.
	Issuer string `json:"issuer"`

	// What the claim aud must have one of; "*" for any. Without it, a token that the
	// same issuer made for another service would be accepted, so it is required.
	Audience []string `json:"audience"`

	// The URL of the issuer's key set (RFC 7517): https, or http to this machine. It
	// is fetched in the background.
	JWKSURL string `json:"jwks_url,omitempty"`

	// Whether jwks_url may be http to another machine. Whoever is on the way can then
	// make tokens. Default: false.
	Insecure bool `json:"insecure,omitempty"`

	// How often jwks_url is fetched anew, besides when a token has a key that is not
	// in the set. Default: 15m.
	RefreshInterval caddy.Duration `json:"refresh_interval,omitempty"`

	// A file with the key set. It is read again when it changes, within 10 seconds.
	JWKSFile string `json:"jwks_file,omitempty"`

	// The public key or certificate, in PEM.
	Key string `json:"key,omitempty"`

	// A file with the public key or certificate, in PEM. It is read when the
	// configuration is loaded.
	KeyFile string `json:"key_file,omitempty"`

	// The secret that the issuer shares with the gateway, for the algorithms HS256,
	// HS384 and HS512; at least 32 bytes. It must be a placeholder such as
	// {env.JWT_SECRET} or {file./run/secrets/jwt}, so that it does not appear in the
	// configuration.
	Secret string `json:"secret,omitempty"`

	// The signature algorithms that are accepted. Default: all of RS, PS and ES, and
	// EdDSA; with secret, HS256, HS384 and HS512. HS algorithms go with a secret and
	// only with it; none is never accepted.
	Algorithms []string `json:"algorithms,omitempty"`

	// How far the clocks of issuer and gateway may be apart. Default: 30s. Most: 10m.
	Leeway caddy.Duration `json:"leeway,omitempty"`

	// Claims that a token must have: name to value; empty for any value. A list must
	// contain the value, and so must the claim scope, whose words are a list. A name
	// with dots also finds claims within others, e.g. realm_access.roles.
	RequiredClaims map[string]string `json:"required_claims,omitempty"`

	// The claim with the identity's id. Default: sub.
	IDClaim string `json:"id_claim,omitempty"`

	// The claim with the groups: a list, or a text whose words they are. Default:
	// groups.
	GroupsClaim string `json:"groups_claim,omitempty"`

	// Header fields for upstreams, by name, and the claims that they hold. The items
	// of a list are parted by commas. Default: none.
	ClaimHeaders map[string]string `json:"claim_headers,omitempty"`
}

const (
	defaultLeeway  = 30 * time.Second
	maxLeeway      = 10 * time.Minute
	defaultRefresh = 15 * time.Minute
	minRefresh     = time.Minute
	minSecret      = 32 // bytes, the size of SHA-256 (RFC 7518, 3.2)
	maxKeyFile     = 1 << 20
)

var (
	asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	symmetric  = []string{"HS256", "HS384", "HS512"}
)

func (c *IssuerConfig) validate() error {
	sources := 0
	for _, source := range []string{c.JWKSURL, c.JWKSFile, c.Key, c.KeyFile, c.Secret} {
		if source != "" {
			sources++
		}
	}
	switch {
	case c.Issuer == "":
		return errors.New("issuer is required: the claim iss of the tokens")
	case len(c.Audience) == 0 || slices.Contains(c.Audience, ""):
		return errors.New(`audience is required: what the claim aud must have, or "*" for tokens that were made for anybody`)
	case sources != 1:
		return errors.New("exactly one of jwks_url, jwks_file, key, key_file and secret is required")
	case c.Leeway < 0 || time.Duration(c.Leeway) > maxLeeway:
		return fmt.Errorf("leeway must be at most %v", maxLeeway)
	case c.RefreshInterval < 0 || c.RefreshInterval > 0 && time.Duration(c.RefreshInterval) < minRefresh:
		return fmt.Errorf("refresh_interval must be at least %v", minRefresh)
	case c.Secret != "" && !strings.HasPrefix(c.Secret, "{"):
		return errors.New("secret must be a placeholder such as {env.JWT_SECRET}, so that it does not appear in the configuration")
	}
	known, kind := asymmetric, "with a public key"
	if c.Secret != "" {
		known, kind = symmetric, "with a secret"
	}
	for _, algorithm := range c.Algorithms {
		if !slices.Contains(known, algorithm) {
			return fmt.Errorf("algorithms: %q can't be used %s; it must be one of %s", algorithm, kind, strings.Join(known, ", "))
		}
	}
	for _, header := range slices.Sorted(maps.Keys(c.ClaimHeaders)) {
		if err := checkField(header); err != nil {
			return fmt.Errorf("claim_headers: %w", err)
		}
	}
	if c.JWKSURL != "" {
		return c.checkURL()
	}
	return nil
}

func (c *IssuerConfig) checkURL() error {
	u, err := url.Parse(c.JWKSURL)
	switch {
	case err != nil || u.Host == "":
		return errors.New("jwks_url must be an absolute https URL")
	case u.User != nil:
		return errors.New("jwks_url must not have a user or password")
	case u.Scheme == "https", u.Scheme == "http" && (c.Insecure || isLoopback(u.Hostname())):
		return nil
	case u.Scheme == "http":
		return errors.New("jwks_url must be https: whoever is on the way could make tokens; insecure allows it")
	}
	return errors.New("jwks_url must be an https URL")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// issuer verifies the tokens of one issuer.
type issuer struct {
	name       string
	config     *IssuerConfig
	algorithms []string
	validator  *jwt.Validator
	keys       keySource
}

func newIssuer(name string, c *IssuerConfig, v *Verifier) (*issuer, error) {
	i := &issuer{name: name, config: c, algorithms: c.Algorithms}
	if len(i.algorithms) == 0 {
		if i.algorithms = asymmetric; c.Secret != "" {
			i.algorithms = symmetric
		}
	}
	leeway := time.Duration(c.Leeway)
	if leeway == 0 {
		leeway = defaultLeeway
	}
	checks := []jwt.ParserOption{
		jwt.WithIssuer(c.Issuer), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(v.now),
	}
	if !slices.Contains(c.Audience, "*") {
		checks = append(checks, jwt.WithAudience(c.Audience...))
	}
	i.validator = jwt.NewValidator(checks...)
	var err error
	i.keys, err = newKeySource(name, c, v)
	return i, err
}

// newKeySource returns the source of keys that an issuer's settings name.
func newKeySource(name string, c *IssuerConfig, v *Verifier) (keySource, error) {
	repl := caddy.NewReplacer()
	switch {
	case c.JWKSURL != "":
		interval := time.Duration(c.RefreshInterval)
		if interval == 0 {
			interval = defaultRefresh
		}
		set := newKeySet(v.logger, name, newFetcher(c.JWKSURL), interval, v.now)
		v.workers.Go("keys of "+name, set.run)
		return set, nil
	case c.JWKSFile != "":
		set := newKeySet(v.logger, name, fileReader(c.JWKSFile), fileInterval, v.now)
		if err := set.loadNow(); err != nil {
			return nil, err
		}
		v.workers.Go("keys of "+name, set.run)
		return set, nil
	case c.Secret != "":
		secret := strings.TrimRight(repl.ReplaceAll(c.Secret, ""), "\r\n")
		if len(secret) < minSecret {
			return nil, fmt.Errorf("secret must be at least %d bytes", minSecret)
		}
		return staticKey{[]byte(secret)}, nil
	}
	text := repl.ReplaceKnown(c.Key, "")
	if c.KeyFile != "" {
		content, err := readBounded(repl.ReplaceKnown(c.KeyFile, ""), maxKeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading key_file: %w", err)
		}
		text = string(content)
	}
	key, err := parsePublicKey([]byte(text))
	if err != nil {
		return nil, err
	}
	return staticKey{key}, nil
}

// parsePublicKey reads a public key or a certificate in PEM.
func parsePublicKey(text []byte) (crypto.PublicKey, error) {
	if strings.Contains(string(text), "PRIVATE KEY-----") {
		return nil, errors.New("key must be the issuer's public key; its private key must not be here")
	}
	if key, err := jwt.ParseRSAPublicKeyFromPEM(text); err == nil {
		return key, checkKey(key)
	}
	if key, err := jwt.ParseECPublicKeyFromPEM(text); err == nil {
		return key, nil
	}
	if key, err := jwt.ParseEdPublicKeyFromPEM(text); err == nil {
		return key, nil
	}
	return nil, errors.New("key must be an RSA, ECDSA or Ed25519 public key or certificate in PEM")
}

// minRSA is the least size of an RSA key in bits (RFC 7518, 3.3).
const minRSA = 2048

// checkKey refuses keys that tokens must not be verified with.
func checkKey(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSA {
			return fmt.Errorf("an RSA key must have at least %d bits, not %d", minRSA, k.N.BitLen())
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of the type %T can't be used", key)
	}
	return nil
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, most)
}
