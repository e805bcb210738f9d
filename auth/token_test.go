package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

// signer makes the tokens of an issuer.
type signer struct {
	method jwt.SigningMethod
	key    crypto.Signer
	pem    string // of the public key
}

var sharedRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newRSA(t testing.TB) signer { return newSigner(t, jwt.SigningMethodRS256, sharedRSA()) }

func newEC(t testing.TB) signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newSigner(t, jwt.SigningMethodES256, key)
}

func newEd(t testing.TB) signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newSigner(t, jwt.SigningMethodEdDSA, key)
}

func newSigner(t testing.TB, method jwt.SigningMethod, key crypto.Signer) signer {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer{method, key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

// claims returns good claims with changes; a nil takes one away.
func claims(change jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"iss": "https://issuer.test", "aud": "orders", "sub": "alice", "exp": now.Add(time.Minute).Unix()}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, value any) bool { return value == nil })
	return c
}

func (s signer) sign(t testing.TB, header map[string]any, c jwt.MapClaims) string {
	t.Helper()
	return sign(t, s.method, s.key, header, c)
}

func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, c jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	maps.Copy(token.Header, header)
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// raw signs a header and claims as they stand.
func (s signer) raw(t testing.TB, header, payload string) string {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	text := enc([]byte(header)) + "." + enc([]byte(payload))
	signature, err := s.method.Sign(text, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + enc(signature)
}

func issuers(c auth.IssuerConfig) auth.Config {
	if c.Issuer == "" {
		c.Issuer = "https://issuer.test"
	}
	if c.Audience == nil {
		c.Audience = []string{"orders"}
	}
	return auth.Config{JWT: map[string]*auth.IssuerConfig{"corp": &c}}
}

func bearer(v *auth.Verifier, token string) (*auth.Identity, error) {
	r, _ := newRequest("/", "Authorization", "Bearer "+token)
	return v.Authenticate(r, []string{"jwt"})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s, other := newRSA(t), newEC(t)
	v := newVerifier(t, issuers(auth.IssuerConfig{Key: s.pem}), auth.Options{})
	exp := func(d time.Duration) jwt.MapClaims { return claims(jwt.MapClaims{"exp": now.Add(d).Unix()}) }
	good := s.sign(t, nil, claims(nil))
	parts := strings.Split(good, ".")
	enc := base64.RawURLEncoding.EncodeToString
	const header = `{"alg":"RS256","typ":"JWT"}`
	body := func(extra string) string {
		return `{"iss":"https://issuer.test","aud":"orders","sub":"alice","exp":1772366460` + extra + `}`
	}

	for name, c := range map[string]struct {
		token string
		good  bool
	}{
		"good":                         {good, true},
		"PS256":                        {sign(t, jwt.SigningMethodPS256, s.key, nil, claims(nil)), true},
		"a list of audiences":          {s.sign(t, nil, claims(jwt.MapClaims{"aud": []string{"a", "orders"}})), true},
		"expired within leeway":        {s.sign(t, nil, exp(-29*time.Second)), true},
		"expired":                      {s.sign(t, nil, exp(-30*time.Second)), false},
		"never expires":                {s.sign(t, nil, claims(jwt.MapClaims{"exp": nil})), false},
		"expires as a text":            {s.sign(t, nil, claims(jwt.MapClaims{"exp": "1772366460"})), false},
		"not yet, within leeway":       {s.sign(t, nil, claims(jwt.MapClaims{"nbf": now.Add(29 * time.Second).Unix()})), true},
		"not yet":                      {s.sign(t, nil, claims(jwt.MapClaims{"nbf": now.Add(31 * time.Second).Unix()})), false},
		"another audience":             {s.sign(t, nil, claims(jwt.MapClaims{"aud": "order"})), false},
		"no audience":                  {s.sign(t, nil, claims(jwt.MapClaims{"aud": nil})), false},
		"another issuer":               {s.sign(t, nil, claims(jwt.MapClaims{"iss": "https://issuer.test/"})), false},
		"no issuer":                    {s.sign(t, nil, claims(jwt.MapClaims{"iss": nil})), false},
		"issuer in a list":             {s.sign(t, nil, claims(jwt.MapClaims{"iss": []string{"https://issuer.test"}})), false},
		"no subject":                   {s.sign(t, nil, claims(jwt.MapClaims{"sub": nil})), false},
		"an object for a subject":      {s.sign(t, nil, claims(jwt.MapClaims{"sub": map[string]any{"a": 1}})), false},
		"none":                         {enc([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", false},
		"None":                         {enc([]byte(`{"alg":"None"}`)) + "." + parts[1] + "." + parts[2], false},
		"no algorithm":                 {enc([]byte(`{"typ":"JWT"}`)) + "." + parts[1] + "." + parts[2], false},
		"signature taken away":         {parts[0] + "." + parts[1] + ".", false},
		"HMAC with the public PEM":     {sign(t, jwt.SigningMethodHS256, []byte(s.pem), nil, claims(nil)), false},
		"HMAC with the trimmed PEM":    {sign(t, jwt.SigningMethodHS256, []byte(strings.TrimSpace(s.pem)), nil, claims(nil)), false},
		"HMAC with nothing":            {sign(t, jwt.SigningMethodHS256, []byte{}, nil, claims(nil)), false},
		"signed by somebody else":      {other.sign(t, nil, claims(nil)), false},
		"somebody else's key in it":    {other.sign(t, map[string]any{"jwk": jwkOf(t, "x", other)}, claims(nil)), false},
		"somebody else's URL in it":    {other.sign(t, map[string]any{"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}, claims(nil)), false},
		"a URL in it is not looked at": {s.sign(t, map[string]any{"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}, claims(nil)), true},
		"a key id that is a path":      {s.sign(t, map[string]any{"kid": "../../../dev/null"}, claims(nil)), true},
		"critical extension":           {s.sign(t, map[string]any{"crit": []string{"b64"}, "b64": false}, claims(nil)), false},
		"payload changed":              {parts[0] + "." + enc([]byte(body(`,"admin":true`))) + "." + parts[2], false},
		"signed as it stands":          {s.raw(t, header, body("")), true},
		"claims twice, the last bad":   {s.raw(t, header, body(`,"aud":"x"`)), false},
		"claims twice, the last good":  {s.raw(t, header, `{"iss":"x",`+body("")[1:]), true},
		"claims are no object":         {s.raw(t, header, `[]`), false},
		"claims are null":              {s.raw(t, header, `null`), false},
		"four parts":                   {good + ".x", false},
		"five parts":                   {good + ".x.y", false},
		"two parts":                    {parts[0] + "." + parts[1], false},
		"padding":                      {good + "=", false},
		"standard encoding":            {parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2]) + "+", false},
		"empty":                        {"", false},
		"long, but not too long":       {s.sign(t, nil, claims(jwt.MapClaims{"x": strings.Repeat("x", 5000)})), true},
		"too long":                     {s.sign(t, nil, claims(jwt.MapClaims{"x": strings.Repeat("x", 6000)})), false},
		"deep":                         {s.raw(t, header, body(`,"x":`+strings.Repeat("[", 3000))), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := bearer(v, c.token)
			switch {
			case c.good && err != nil:
				t.Errorf("refused: %v", err)
			case !c.good && !errors.Is(err, auth.ErrInvalid):
				t.Errorf("identity %+v, error %v", id, err)
			case c.good && (id.ID != "alice" || id.Caller() != "jwt:corp/alice"):
				t.Errorf("identity %+v", id)
			}
		})
	}
}

func TestTokenAlgorithms(t *testing.T) {
	t.Setenv("TEST_JWT_SECRET", strings.Repeat("s", 32))
	r, e, d := newRSA(t), newEC(t), newEd(t)
	secret := []byte(strings.Repeat("s", 32))
	for name, c := range map[string]struct {
		config auth.IssuerConfig
		tokens map[string]bool
	}{
		"ECDSA": {auth.IssuerConfig{Key: e.pem}, map[string]bool{
			e.sign(t, nil, claims(nil)): true, r.sign(t, nil, claims(nil)): false, d.sign(t, nil, claims(nil)): false,
		}},
		"Ed25519": {auth.IssuerConfig{Key: d.pem}, map[string]bool{
			d.sign(t, nil, claims(nil)): true, e.sign(t, nil, claims(nil)): false,
			sign(t, jwt.SigningMethodHS256, []byte(d.key.Public().(ed25519.PublicKey)), nil, claims(nil)): false,
		}},
		"only PS": {auth.IssuerConfig{Key: r.pem, Algorithms: []string{"PS256"}}, map[string]bool{
			r.sign(t, nil, claims(nil)): false, sign(t, jwt.SigningMethodPS256, r.key, nil, claims(nil)): true,
		}},
		"secret": {auth.IssuerConfig{Secret: "{env.TEST_JWT_SECRET}"}, map[string]bool{
			sign(t, jwt.SigningMethodHS256, secret, nil, claims(nil)):     true,
			sign(t, jwt.SigningMethodHS512, secret, nil, claims(nil)):     true,
			sign(t, jwt.SigningMethodHS256, secret[1:], nil, claims(nil)): false,
			r.sign(t, nil, claims(nil)):                                   false,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, issuers(c.config), auth.Options{})
			for token, want := range c.tokens {
				if _, err := bearer(v, token); (err == nil) != want {
					t.Errorf("error %v, want success %v", err, want)
				}
			}
		})
	}
}

func TestTokenIdentity(t *testing.T) {
	t.Parallel()
	s := newEd(t)
	v := newVerifier(t, issuers(auth.IssuerConfig{
		Key: s.pem, IDClaim: "client_id", GroupsClaim: "realm_access.roles",
		RequiredClaims: map[string]string{"scope": "orders:read", "tier": "gold", "email": "", "amr": "mfa"},
		ClaimHeaders:   map[string]string{"X-Email": "email", "X-Roles": "realm_access.roles", "X-None": "nothing"},
	}), auth.Options{})
	full := jwt.MapClaims{
		"client_id": 12345678901234567, "scope": "openid orders:read", "tier": "gold", "email": "a@b\r\nX-Admin: 1", "amr": []string{"pwd", "mfa"},
		"realm_access": map[string]any{"roles": []any{"ops", "a,b", 5, map[string]any{}, nil}},
	}
	policy, err := v.Policy(&store.Auth{Any: []string{"jwt"}, Groups: []string{"ops"}})
	if err != nil {
		t.Fatal(err)
	}
	r, repl := newRequest("/", "Authorization", "Bearer "+s.sign(t, map[string]any{"kid": "k1"}, claims(full)))
	if _, err := policy.Authenticate(r, repl); err != nil {
		t.Fatal(err)
	}
	want := http.Header{
		"X-Consumer-Id": {"12345678901234567"}, "X-Consumer-Name": {"12345678901234567"}, "X-Consumer-Groups": {"ops,a%2Cb,5"}, "X-Auth-Method": {"jwt"},
		"X-Email": {"a@b%0D%0AX-Admin: 1"}, "X-Roles": {"ops,a%2Cb,5"},
	}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Error(diff)
	}
	for placeholder, want := range map[string]string{
		"id": "12345678901234567", "issuer": "corp", "key_id": "k1", "consumer": "", "claim_tier": "gold", "claim_amr": "pwd,mfa", "claim_sub": "alice",
	} {
		if got, _ := repl.GetString("http.auth.user." + placeholder); got != want {
			t.Errorf("{http.auth.user.%s} is %q, want %q", placeholder, got, want)
		}
	}

	for name, change := range map[string]jwt.MapClaims{
		"scope":        {"scope": "orders:readonly orders"},
		"no scope":     {"scope": nil},
		"other tier":   {"tier": "silver"},
		"tier in text": {"tier": "gold silver"},
		"no email":     {"email": nil},
		"other list":   {"amr": []string{"pwd"}},
		"no id":        {"client_id": nil},
	} {
		c := claims(full)
		maps.Copy(c, change)
		if _, err := bearer(v, s.sign(t, nil, claims(c))); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestTokenIssuers has two issuers, neither of which can speak for the other.
func TestTokenIssuers(t *testing.T) {
	t.Parallel()
	a, b := newEC(t), newEC(t)
	v := newVerifier(t, auth.Config{JWT: map[string]*auth.IssuerConfig{
		"a": {Issuer: "https://a.test", Audience: []string{"orders"}, Key: a.pem},
		"b": {Issuer: "https://b.test", Audience: []string{"*"}, Key: b.pem},
	}}, auth.Options{})
	of := func(iss string) jwt.MapClaims { return claims(jwt.MapClaims{"iss": iss, "aud": "orders"}) }
	for token, want := range map[string]string{
		a.sign(t, nil, of("https://a.test")):                                       "jwt:a/alice",
		b.sign(t, nil, of("https://b.test")):                                       "jwt:b/alice",
		a.sign(t, nil, of("https://b.test")):                                       "",
		b.sign(t, nil, of("https://a.test")):                                       "",
		b.sign(t, nil, claims(jwt.MapClaims{"iss": "https://b.test", "aud": nil})): "jwt:b/alice",
	} {
		id, err := bearer(v, token)
		switch {
		case want == "" && !errors.Is(err, auth.ErrInvalid):
			t.Errorf("identity %+v, error %v", id, err)
		case want != "" && (err != nil || id.Caller() != want):
			t.Errorf("identity %+v, error %v, want %s", id, err, want)
		}
	}
}

func TestIssuerSettings(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(newEC(t).key)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TEST_SHORT_SECRET", "short")
	key := newRSA(t).pem
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config auth.IssuerConfig
		want   string // in the error; empty: none
	}{
		"key file":            {auth.IssuerConfig{KeyFile: file}, ""},
		"loopback":            {auth.IssuerConfig{JWKSURL: "http://127.0.0.1:1/"}, ""},
		"no key":              {auth.IssuerConfig{}, "exactly one of"},
		"two keys":            {auth.IssuerConfig{Key: key, KeyFile: file}, "exactly one of"},
		"no such file":        {auth.IssuerConfig{KeyFile: file + "x"}, "key_file"},
		"no such set":         {auth.IssuerConfig{JWKSFile: file + "x"}, "no such file"},
		"a key for a set":     {auth.IssuerConfig{JWKSFile: file}, "reading key set"},
		"not a key":           {auth.IssuerConfig{Key: "x"}, "must be an RSA"},
		"private key":         {auth.IssuerConfig{Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))}, "public key"},
		"weak key":            {auth.IssuerConfig{Key: newSigner(t, jwt.SigningMethodRS256, weak).pem}, "2048 bits"},
		"none":                {auth.IssuerConfig{Key: key, Algorithms: []string{"none"}}, "can't be used"},
		"HS with a key":       {auth.IssuerConfig{Key: key, Algorithms: []string{"HS256"}}, "can't be used"},
		"RS with a secret":    {auth.IssuerConfig{Secret: "{env.X}", Algorithms: []string{"RS256"}}, "can't be used"},
		"secret as it is":     {auth.IssuerConfig{Secret: strings.Repeat("s", 32)}, "placeholder"},
		"short secret":        {auth.IssuerConfig{Secret: "{env.TEST_SHORT_SECRET}"}, "at least 32 bytes"},
		"missing secret":      {auth.IssuerConfig{Secret: "{env.TEST_NO_SUCH_SECRET}"}, "at least 32 bytes"},
		"http":                {auth.IssuerConfig{JWKSURL: "http://issuer.test/"}, "insecure"},
		"http on purpose":     {auth.IssuerConfig{JWKSURL: "http://127.0.0.2:1/", Insecure: true}, ""},
		"file URL":            {auth.IssuerConfig{JWKSURL: "file:///etc/passwd"}, "https"},
		"password in the URL": {auth.IssuerConfig{JWKSURL: "https://a:b@issuer.test/"}, "password"},
		"leeway":              {auth.IssuerConfig{Key: key, Leeway: caddy.Duration(time.Hour)}, "leeway"},
		"no audience":         {auth.IssuerConfig{Key: key, Audience: []string{""}}, "audience"},
		"claim header":        {auth.IssuerConfig{Key: key, ClaimHeaders: map[string]string{"Host": "sub"}}, "meaning of its own"},
		"header with _":       {auth.IssuerConfig{Key: key, ClaimHeaders: map[string]string{"X_A": "sub"}}, "no name"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := auth.New(issuers(c.config), auth.Options{})
			if err == nil {
				v.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "short\"") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

// jwkOf is the public key of s as a member of a set.
func jwkOf(t testing.TB, kid string, s signer) map[string]any {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	switch key := s.key.Public().(type) {
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "kid": kid, "n": enc(key.N.Bytes()), "e": "AQAB"}
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return map[string]any{"kty": "EC", "kid": kid, "crv": "P-256", "x": enc(point[1:33]), "y": enc(point[33:])}
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": enc(key)}
	}
	t.Fatal("unknown kind of key")
	return nil
}

func setOf(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	encoded, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
