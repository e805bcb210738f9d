package auth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"go.uber.org/goleak"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// keyring is Credentials in memory, for what the store's can't be brought to do.
type keyring struct {
	keys map[string]*store.Credential
	down bool
	used []string
}

var errDown = errors.New("the store is down")

func (k *keyring) Key(_ context.Context, id string) (*store.Credential, error) {
	if found, ok := k.keys[id]; ok {
		return found, nil
	}
	if k.down {
		return nil, errDown
	}
	return nil, store.ErrNotFound
}

func (k *keyring) KeyUsed(id string) { k.used = append(k.used, id) }

// add makes a key of the consumer alice.
func (k *keyring) add(edit func(*store.Credential)) (text string) {
	text, secret := auth.NewSecret(auth.PrefixKey)
	c := &store.Credential{
		Key: store.APIKey{ID: secret.ID, ConsumerID: 7, Hash: secret.Hash[:], Enabled: true},
		Consumer: store.Consumer{
			ID: 7, Name: "alice", Enabled: true, ConsumerSpec: store.ConsumerSpec{Groups: []string{"mobile", "eu"}},
		},
	}
	if edit != nil {
		edit(c)
	}
	if k.keys == nil {
		k.keys = make(map[string]*store.Credential)
	}
	k.keys[secret.ID] = c
	return text
}

func newVerifier(t *testing.T, cfg auth.Config, o auth.Options) *auth.Verifier {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	v, err := auth.New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// newRequest returns a request as Caddy's server prepares it, and its placeholders.
func newRequest(target string, header ...string) (*http.Request, *caddy.Replacer) {
	r := httptest.NewRequest("GET", target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	repl := caddy.NewReplacer()
	ctx := context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl)
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1"})
	return r.WithContext(ctx), repl
}

// status is what a refused request is answered with, 200 for one that may go on.
func status(h http.Header, err error) int {
	if err == nil {
		return http.StatusOK
	}
	handlerErr, _ := errors.AsType[caddyhttp.HandlerError](auth.Refuse(h, err))
	return handlerErr.StatusCode
}
