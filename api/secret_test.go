package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/certtest"
	"github.com/isekai-gateway/isekai/store"
)

// keeper is a node whose answers must never show a secret.
type keeper struct {
	*node
	secrets []string
}

func (k *keeper) do(t *testing.T, method, path, body string, fields ...string) answer {
	t.Helper()
	a := k.node.do(t, method, path, body, fields...)
	for _, secret := range k.secrets {
		if strings.Contains(string(a.text), secret) {
			t.Errorf("%s: the answer shows the key: %s", a.what, a.text)
		}
		for name, values := range a.header {
			if strings.Contains(strings.Join(values, " "), secret) {
				t.Errorf("%s: the field %s shows the key", a.what, name)
			}
		}
	}
	return a
}

// keep adds the content of a key to what must not be shown.
func (k *keeper) keep(pair certtest.Pair) certtest.Pair {
	k.secrets = append(k.secrets, strings.Split(pair.Key, "\n")[1])
	return pair
}

// stored returns the key that the store has.
func (k *keeper) stored(t *testing.T, id int64) string {
	t.Helper()
	row, err := k.Store().Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if row.Upstream == nil || row.Upstream.TLS == nil {
		return ""
	}
	return row.Upstream.TLS.Key
}

// withPair is a route with a client certificate.
func withPair(certificate, key string) string {
	text, err := json.Marshal(object{
		"path": "/mutual", "target_url": "https://10.0.0.5",
		"upstream": object{"tls": object{"certificate": certificate, "key": key}},
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// tlsPatch is a merge patch of TLS settings.
func tlsPatch(settings object) string {
	text, err := json.Marshal(object{"upstream": object{"tls": settings}})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestKeyIsNeverShown(t *testing.T) {
	t.Parallel()
	ca := certtest.NewAuthority(t, "clients")
	k := &keeper{node: newNode(t)}
	pair, next := k.keep(ca.Valid("orders")), k.keep(ca.Valid("orders"))

	created := k.do(t, "POST", "/api/routes", withPair(pair.Certificate, pair.Key)).want(201)
	shown := created.object()["upstream"].(object)["tls"].(object)
	if shown["key"] != store.Mask || shown["certificate"] != pair.Certificate {
		t.Errorf("the new route is shown as %s", created.text)
	}
	id := created.id()
	if got := k.stored(t, id); got != pair.Key {
		t.Fatalf("stored is the key %q", got)
	}
	if change := k.lastChange(t); change.After == nil || change.After.Upstream.TLS.Key != pair.Key {
		t.Error("the history has lost the key, without which a change can't be taken back")
	}
	read := k.do(t, "GET", pathOf(id), "").want(200)
	if got := read.object()["upstream"].(object)["tls"].(object)["key"]; got != store.Mask {
		t.Errorf("read is the key %q", got)
	}
	tag := read.header.Get("ETag")
	if tag != created.header.Get("ETag") {
		t.Errorf("the entity tag was %q and is %q", created.header.Get("ETag"), tag)
	}
	k.do(t, "GET", pathOf(id), "", "If-None-Match: "+tag).want(304)
	if list := k.do(t, "GET", "/api/routes", "").want(200); !strings.Contains(string(list.text), `"key":"***"`) {
		t.Errorf("the list is %s", list.text)
	}
	for _, filter := range []string{"q=" + k.secrets[0], "label=" + k.secrets[0]} {
		k.node.do(t, "GET", "/api/routes?"+filter, "").want(200)
	}

	// What was read can be sent back, whole or in part.
	replaced := k.do(t, "PUT", pathOf(id), string(read.text), "If-Match: "+tag).want(200)
	if replaced.header.Get("ETag") == tag {
		t.Error("the entity tag is the same after a change")
	}
	k.do(t, "PATCH", pathOf(id), `{"timeout": 7}`).want(200)
	k.do(t, "PATCH", pathOf(id), tlsPatch(object{"key": store.Mask})).want(200)
	k.do(t, "PATCH", pathOf(id), tlsPatch(object{"key": store.Mask, "certificate": pair.Certificate, "server_name": "orders.test"})).want(200)
	if got := k.stored(t, id); got != pair.Key {
		t.Errorf("after all that the key is %q", got)
	}

	// A conflict tells of the other route.
	k.do(t, "POST", "/api/routes", withPair(next.Certificate, next.Key)).want(409)

	k.do(t, "PUT", pathOf(id), withPair(next.Certificate, next.Key)).want(200)
	if got := k.stored(t, id); got != next.Key {
		t.Errorf("after a change the key is %q", got)
	}
	k.do(t, "PATCH", pathOf(id), tlsPatch(object{"key": pair.Key, "certificate": pair.Certificate})).want(200)
	if got := k.stored(t, id); got != pair.Key {
		t.Errorf("after a patch the key is %q", got)
	}
	k.do(t, "PATCH", pathOf(id), tlsPatch(object{"key": nil, "certificate": nil})).want(200)
	if got := k.stored(t, id); got != "" {
		t.Errorf("a removed key is %q", got)
	}
	k.do(t, "DELETE", pathOf(id), "").want(204)
}

func TestMaskIsNoKey(t *testing.T) {
	t.Parallel()
	ca := certtest.NewAuthority(t, "clients")
	k := &keeper{node: newNode(t)}
	pair, next := k.keep(ca.Valid("orders")), k.keep(ca.Valid("orders"))
	expired := k.keep(ca.Issue("orders", time.Now().Add(-time.Minute)))
	const mask = store.Mask

	plain := k.create(t, "/plain").id()
	id := k.do(t, "POST", "/api/routes", withPair(pair.Certificate, pair.Key)).want(201).id()
	long := strings.Repeat("A", 40<<10)
	for name, tt := range map[string]struct {
		method, path, body string
		want               []string
	}{
		"a new route":                    {"POST", "/api/routes", withPair(pair.Certificate, mask), []string{"key"}},
		"a new route, alone":             {"POST", "/api/routes", withPair("", mask), []string{"key"}},
		"a route that had none":          {"PUT", pathOf(plain), withPair(pair.Certificate, mask), []string{"key"}},
		"a patch of one that had none":   {"PATCH", pathOf(plain), tlsPatch(object{"key": mask}), []string{"key"}},
		"another certificate":            {"PUT", pathOf(id), withPair(next.Certificate, mask), []string{"key"}},
		"a patch of another certificate": {"PATCH", pathOf(id), tlsPatch(object{"certificate": next.Certificate, "key": mask}), []string{"key"}},
		"no certificate any more":        {"PUT", pathOf(id), withPair("", mask), []string{"key"}},
		"a patch to no certificate":      {"PATCH", pathOf(id), tlsPatch(object{"certificate": nil, "key": mask}), []string{"key"}},
		"an expired certificate":         {"POST", "/api/routes", withPair(expired.Certificate, expired.Key), []string{"certificate"}},
		"a patch to an expired one":      {"PATCH", pathOf(id), tlsPatch(object{"certificate": expired.Certificate, "key": expired.Key}), []string{"certificate"}},
		"expired, with the mask":         {"PUT", pathOf(id), withPair(expired.Certificate, mask), []string{"certificate", "key"}},
		"a key that is too long":         {"PATCH", pathOf(id), tlsPatch(object{"key": long}), []string{"key"}},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for _, field := range tt.want {
				want = append(want, "body.upstream.tls."+field)
			}
			if got := k.do(t, tt.method, tt.path, tt.body).want(422).locations(); !slices.Equal(got, want) {
				t.Errorf("wrong are %q, want %q", got, want)
			}
		})
	}
	// Values that are wrong are repeated in answers, but not this one.
	for _, value := range []string{"123456789", "true", `["secret1"]`} {
		a := k.do(t, "PATCH", pathOf(id), fmt.Sprintf(`{"upstream": {"tls": {"key": %s}}}`, value)).want(422)
		if strings.Contains(string(a.text), `"value"`) {
			t.Errorf("the answer repeats the key: %s", a.text)
		}
	}
	if got := k.stored(t, id); got != pair.Key {
		t.Errorf("after all refusals the key is %q", got)
	}
}

// TestExpiredCertificateCanStay shows that a route whose certificate has expired
// can still be changed otherwise.
func TestExpiredCertificateCanStay(t *testing.T) {
	t.Parallel()
	k := &keeper{node: newNode(t)}
	expired := k.keep(certtest.NewAuthority(t, "clients").Issue("orders", time.Now().Add(-time.Minute)))
	row := store.NewRoute("/mutual", "https://10.0.0.5")
	row.Upstream = &store.Upstream{TLS: &store.UpstreamTLS{Certificate: expired.Certificate, Key: expired.Key}}
	row, _, err := k.Create(t.Context(), row, store.Author{})
	if err != nil {
		t.Fatal(err)
	}
	k.do(t, "PATCH", pathOf(row.ID), `{"enabled": false}`).want(200)
	k.do(t, "PUT", pathOf(row.ID), withPair(expired.Certificate, store.Mask)).want(200)
	if got := k.stored(t, row.ID); got != expired.Key {
		t.Errorf("the key is %q", got)
	}
}

func TestCookieSecretIsNeverShown(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-for-cookies"
	k := &keeper{node: newNode(t), secrets: []string{secret}}
	body := func(secret string) string {
		return fmt.Sprintf(`{"path":"/x","target_url":"http://10.0.0.5","upstream":{"policy":"cookie","policy_options":{"name":"lane","secret":%q}}}`, secret)
	}
	stored := func(id int64) string {
		t.Helper()
		row, err := k.Store().Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return row.Upstream.CookieSecret()
	}
	k.do(t, "POST", "/api/routes", body(store.Mask)).want(422)
	created := k.do(t, "POST", "/api/routes", body(secret)).want(201)
	id := created.id()
	if options := created.object()["upstream"].(object)["policy_options"].(object); options["secret"] != store.Mask || options["name"] != "lane" {
		t.Errorf("the new route is shown as %s", created.text)
	}
	read := k.do(t, "GET", pathOf(id), "").want(200)
	k.do(t, "GET", "/api/routes", "").want(200)
	k.do(t, "PUT", pathOf(id), string(read.text)).want(200)
	k.do(t, "PATCH", pathOf(id), `{"upstream":{"policy_options":{"name":"other"}}}`).want(200)
	if got := stored(id); got != secret {
		t.Errorf("after all that the secret is %q", got)
	}
	k.do(t, "PATCH", pathOf(id), `{"upstream":{"policy_options":{"secret":null}}}`).want(200)
	if got := stored(id); got != "" {
		t.Errorf("a removed secret is %q", got)
	}
	if got := k.do(t, "PATCH", pathOf(id), `{"upstream":{"policy_options":{"secret":"***"}}}`).want(422).locations(); !slices.Equal(got, []string{"body.upstream.policy_options.secret"}) {
		t.Errorf("wrong is %q", got)
	}
}
