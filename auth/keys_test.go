package auth_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/isekai-gateway/isekai/auth"
)

// jwks is a server with a key set.
type jwks struct {
	*httptest.Server
	fetches atomic.Int64
	answer  atomic.Pointer[http.HandlerFunc]
}

func newJWKS(t *testing.T) *jwks {
	t.Helper()
	s := new(jwks)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *jwks) set(content []byte) {
	s.do(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) })
}

func (s *jwks) do(answer http.HandlerFunc) { s.answer.Store(&answer) }

// clock is a time that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return now.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// lasting are claims that hold for as long as tests move the clock.
func lasting() jwt.MapClaims { return claims(jwt.MapClaims{"exp": now.Add(time.Hour).Unix()}) }

func kid(id string) map[string]any { return map[string]any{"kid": id} }

func TestKeySetRotation(t *testing.T) {
	t.Parallel()
	s, old, next := newJWKS(t), newEC(t), newRSA(t)
	s.set(setOf(t, jwkOf(t, "old", old)))
	var c clock
	v := newVerifier(t, issuers(auth.IssuerConfig{JWKSURL: s.URL}), auth.Options{Now: c.now})
	if _, err := bearer(v, old.sign(t, kid("old"), lasting())); err != nil {
		t.Fatalf("the first key: %v", err)
	}
	if _, err := bearer(v, old.sign(t, nil, lasting())); err != nil {
		t.Errorf("without a key id: %v", err)
	}

	s.set(setOf(t, jwkOf(t, "next", next)))
	var all sync.WaitGroup
	for range 20 { // all at once: one fetches, and all wait for it
		all.Go(func() {
			if _, err := bearer(v, next.sign(t, kid("next"), lasting())); err != nil {
				t.Errorf("the next key: %v", err)
			}
		})
	}
	all.Wait()
	if n := s.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	if _, err := bearer(v, old.sign(t, kid("old"), lasting())); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("the key that was withdrawn: %v", err)
	}
}

func TestKeyFlood(t *testing.T) {
	t.Parallel()
	s, key := newJWKS(t), newEC(t)
	s.set(setOf(t, jwkOf(t, "k", key)))
	var c clock
	v := newVerifier(t, issuers(auth.IssuerConfig{JWKSURL: s.URL}), auth.Options{Now: c.now})
	if _, err := bearer(v, key.sign(t, kid("k"), lasting())); err != nil {
		t.Fatal(err)
	}
	for minute := range 3 {
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				for n := range 50 {
					token := key.sign(t, kid(fmt.Sprintf("%d-%d-%d", minute, worker, n)), lasting())
					if _, err := bearer(v, token); !errors.Is(err, auth.ErrInvalid) {
						t.Errorf("an unknown key: %v", err)
					}
				}
			})
		}
		all.Wait()
		if n, most := s.fetches.Load(), int64(minute+2); n != most {
			t.Errorf("%d fetches after %d minutes of a flood, want %d", n, minute+1, most)
		}
		c.advance(time.Minute)
	}
	if _, err := bearer(v, key.sign(t, kid("k"), lasting())); err != nil {
		t.Errorf("the known key: %v", err)
	}
}

func TestKeySetOutage(t *testing.T) {
	t.Parallel()
	s, key, next := newJWKS(t), newEC(t), newEC(t)
	broken := func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusInternalServerError) }
	s.do(broken)
	var c clock
	v := newVerifier(t, issuers(auth.IssuerConfig{JWKSURL: s.URL}), auth.Options{Now: c.now})
	token := key.sign(t, kid("k"), lasting())
	if _, err := bearer(v, token); !errors.Is(err, auth.ErrUnavailable) {
		t.Fatalf("nothing known yet: %v", err)
	}
	s.set(setOf(t, jwkOf(t, "k", key)))
	for err := errors.New("never tried"); err != nil; { // it tries again by itself
		if _, err = bearer(v, token); err != nil && !errors.Is(err, auth.ErrUnavailable) {
			t.Fatal(err)
		}
	}

	for name, answer := range map[string]http.HandlerFunc{
		"error":   broken,
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"no keys": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[` + strings.Repeat(" ", 2<<20)))
		},
		"many keys": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(manyKeys(t, key)) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.2:1/", http.StatusFound)
		},
		"file": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		},
		"loop": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
	} {
		s.do(answer)
		c.advance(time.Minute)
		if _, err := bearer(v, next.sign(t, kid("next"), lasting())); !errors.Is(err, auth.ErrUnavailable) {
			t.Errorf("%s: a key that may be new: %v", name, err)
		}
		if _, err := bearer(v, token); err != nil {
			t.Errorf("%s: the known key: %v", name, err)
		}
	}
}

func manyKeys(t *testing.T, s signer) []byte {
	var keys []map[string]any
	for n := range 101 {
		keys = append(keys, jwkOf(t, fmt.Sprint(n), s))
	}
	return setOf(t, keys...)
}

// TestSlowKeySet has a server that never answers: requests wait for it only a moment,
// and Close not at all.
func TestSlowKeySet(t *testing.T) {
	t.Parallel()
	s, key := newJWKS(t), newEC(t)
	asked := make(chan struct{})
	s.do(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	v := newVerifier(t, issuers(auth.IssuerConfig{JWKSURL: s.URL}), auth.Options{})
	<-asked
	if _, err := bearer(v, key.sign(t, kid("k"), claims(nil))); !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("error %v, want %v", err, auth.ErrUnavailable)
	}
	v.Close()
}

func TestKeysOfOtherKinds(t *testing.T) {
	t.Parallel()
	s, key, forEncryption, certified := newJWKS(t), newEC(t), newEd(t), newRSA(t)
	secret := []byte(strings.Repeat("s", 32))
	enc := jwkOf(t, "enc", forEncryption)
	enc["use"] = "enc"
	withAlg := jwkOf(t, "ps", certified)
	withAlg["alg"] = "PS256"
	withURL := jwkOf(t, "k", key)
	withURL["x5u"] = s.URL + "/certificates"
	s.set(setOf(t,
		map[string]any{"kty": "oct", "kid": "hs", "alg": "HS256", "k": base64.RawURLEncoding.EncodeToString(secret)},
		map[string]any{"kty": "EC", "kid": "bad", "crv": "P-256", "x": "AA", "y": "AA"},
		map[string]any{"kty": "AKP", "kid": "later"},
		enc, withAlg, withURL,
	))
	v := newVerifier(t, issuers(auth.IssuerConfig{JWKSURL: s.URL}), auth.Options{})
	for name, c := range map[string]struct {
		token string
		good  bool
	}{
		"good":                 {key.sign(t, kid("k"), claims(nil)), true},
		"shared secret":        {sign(t, jwt.SigningMethodHS256, secret, kid("hs"), claims(nil)), false},
		"for encryption":       {forEncryption.sign(t, kid("enc"), claims(nil)), false},
		"no id, encryption":    {forEncryption.sign(t, nil, claims(nil)), false},
		"another algorithm":    {certified.sign(t, kid("ps"), claims(nil)), false},
		"its algorithm":        {sign(t, jwt.SigningMethodPS256, certified.key, kid("ps"), claims(nil)), true},
		"another key's id":     {key.sign(t, kid("ps"), claims(nil)), false},
		"an id that is none":   {key.sign(t, map[string]any{"kid": 5}, claims(nil)), false},
		"an id that is a path": {key.sign(t, kid("../k"), claims(nil)), false},
	} {
		if _, err := bearer(v, c.token); c.good != (err == nil) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if n := s.fetches.Load(); n != 2 { // the first, and one for the unknown ids
		t.Errorf("%d fetches, want 2", n)
	}
}

func TestKeySetFile(t *testing.T) {
	t.Parallel()
	old, next := newEC(t), newEd(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	write := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(setOf(t, jwkOf(t, "old", old)))
	v := newVerifier(t, issuers(auth.IssuerConfig{JWKSFile: file}), auth.Options{})
	if _, err := bearer(v, old.sign(t, kid("old"), claims(nil))); err != nil {
		t.Fatal(err)
	}
	write(setOf(t, jwkOf(t, "next", next)))
	if _, err := bearer(v, next.sign(t, kid("next"), claims(nil))); err != nil {
		t.Errorf("the key of the changed file: %v", err)
	}
}
