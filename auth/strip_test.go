package auth_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

func TestCredentialsAreRemoved(t *testing.T) {
	t.Parallel()
	var keys keyring
	good := keys.add(nil)
	v := newVerifier(t, auth.Config{
		APIKey: &auth.APIKeyConfig{Headers: []string{"X-API-Key", "X-Tenant-Key"}, Query: []string{"api_key", "k"}},
		Basic:  accounts,
		JWT:    map[string]*auth.IssuerConfig{"corp": {Issuer: "corp", Audience: []string{"*"}, Key: newRSA(t).pem}},
	}, auth.Options{Credentials: &keys})
	for name, c := range map[string]struct {
		any    string
		target string
		header []string
		uri    string
		left   http.Header // beside who it is
	}{
		"key in all places":              {"api_key", "/p?x=1&api_key=" + good + "&k=2", []string{"X-API-Key", good, "X-Tenant-Key", "z", "Authorization", "Bearer " + good}, "/p?x=1", http.Header{}},
		"anonymous":                      {"api_key", "/p?x=1", []string{"Authorization", "Basic eA==", "X-Other", "1"}, "/p?x=1", http.Header{"Authorization": {"Basic eA=="}, "X-Other": {"1"}}},
		"the upstream's token":           {"api_key", "/p", []string{"X-API-Key", good, "Authorization", "Bearer up"}, "/p", http.Header{"Authorization": {"Bearer up"}}},
		"the upstream's other scheme":    {"jwt,api_key,basic", "/p", []string{"X-API-Key", good, "Authorization", "Digest x"}, "/p", http.Header{"Authorization": {"Digest x"}}},
		"a token where tokens are ours":  {"api_key,jwt", "/p", []string{"X-API-Key", good, "Authorization", "Bearer x"}, "/p", http.Header{}},
		"a password where they are ours": {"api_key,basic", "/p", []string{"X-API-Key", good, "Authorization", "Basic x"}, "/p", http.Header{}},
		"a key on a route for passwords": {"basic", "/p?k=" + good, []string{"X-API-Key", good, "Authorization", "Bearer " + good}, "/p", http.Header{}},
		"order and encoding stay":        {"basic", "/p%2Fq?b=%20&&k=1&a=+&=x&c;k=2&b&", nil, "/p%2Fq?b=%20&&a=+&=x&c;k=2&b&", http.Header{}},
		"encoded name":                   {"basic", "/p?%6b=1&%6B=2&K=3&k", nil, "/p?K=3", http.Header{}},
		"bad escapes":                    {"basic", "/p?%zz=1&k=%zz", nil, "/p?%zz=1", http.Header{}},
		"names that only begin so":       {"basic", "/p?kk=1&k%20=2&api_keys=3", nil, "/p?kk=1&k%20=2&api_keys=3", http.Header{}},
		"empty query":                    {"basic", "/p?", nil, "/p?", http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy, err := v.Policy(&store.Auth{Any: strings.Split(c.any, ","), Anonymous: true})
			if err != nil {
				t.Fatal(err)
			}
			r, repl := newRequest(c.target, c.header...)
			if _, err := policy.Authenticate(r, repl); err != nil {
				t.Fatal(err)
			}
			if got := r.URL.RequestURI(); got != c.uri || r.RequestURI != c.uri {
				t.Errorf("URL %s, URI %s, want %s", got, r.RequestURI, c.uri)
			}
			for _, name := range v.Own() {
				r.Header.Del(name)
			}
			if diff := cmp.Diff(c.left, r.Header); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestIdentityHeaders(t *testing.T) {
	t.Parallel()
	var keys keyring
	good := keys.add(func(c *store.Credential) { c.Consumer.Groups = []string{"a", "b,c", "50%"} })
	for name, c := range map[string]struct {
		headers map[string]string
		want    http.Header
	}{
		"default": {nil, http.Header{
			"X-Consumer-Id": {"7"}, "X-Consumer-Name": {"alice"}, "X-Consumer-Groups": {"a,b%2Cc,50%25"}, "X-Auth-Method": {"api_key"},
		}},
		"configured": {map[string]string{"x-who": "{http.auth.user.method}:{http.auth.user.name}", "X-Key": "{http.auth.user.key_id}", "X-Empty": "{http.auth.user.issuer}"},
			http.Header{"X-Who": {"api_key:alice"}, "X-Key": {good[4:20]}}},
		"none": {map[string]string{}, http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, auth.Config{Headers: c.headers}, auth.Options{Credentials: &keys})
			policy, err := v.Policy(&store.Auth{Any: []string{"api_key"}, Anonymous: true})
			if err != nil {
				t.Fatal(err)
			}
			// A client that claims to be somebody, whether or not it is.
			for _, key := range []string{good, ""} {
				r, repl := newRequest("/", "Connection", "close, x-consumer-name, X-Other, X-WHO")
				for _, name := range v.Own() {
					r.Header[name] = []string{"root"}
				}
				if key != "" {
					r.Header.Set("X-API-Key", key)
				}
				v.Clean(r)
				if _, err := policy.Authenticate(r, repl); err != nil {
					t.Fatal(err)
				}
				connection := r.Header.Get("Connection")
				r.Header.Del("Connection")
				want := c.want
				if key == "" {
					want = http.Header{}
				}
				if diff := cmp.Diff(want, r.Header); diff != "" {
					t.Error(diff)
				}
				for _, name := range v.Own() {
					if strings.Contains(strings.ToLower(connection), strings.ToLower(name)) {
						t.Errorf("Connection: %s", connection)
					}
				}
				if !strings.Contains(connection, "X-Other") || !strings.Contains(connection, "close") {
					t.Errorf("Connection: %s", connection)
				}
			}
		})
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("Bearer isk_aaaaaaaaaaaaaaaa_x")
	f.Add("Basic Ym9iOnNlY3JldA==")
	f.Add("bearer eyJhbGciOiJub25lIn0.e30.")
	f.Add(" \t Bearer")
	v, err := auth.New(auth.Config{
		MTLS: true, Basic: accounts,
		JWT: map[string]*auth.IssuerConfig{"corp": {Issuer: "corp", Audience: []string{"*"}, Key: newRSA(f).pem}},
	}, auth.Options{Credentials: &keyring{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(v.Close)
	f.Fuzz(func(t *testing.T, value string) {
		r, _ := newRequest("/")
		r.Header["Authorization"] = []string{value}
		if id, err := v.Authenticate(r, []string{"api_key", "jwt"}); err == nil {
			t.Errorf("%q is %+v", value, id)
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	text, _ := auth.NewSecret(auth.PrefixKey)
	f.Add(text)
	f.Add("isk_")
	f.Add(strings.ToUpper(text))
	f.Fuzz(func(t *testing.T, text string) {
		secret, ok := auth.ParseSecret(auth.PrefixKey, text)
		if !ok {
			return
		}
		if len(text) != 77 || text[:4] != "isk_" || text[4:20] != secret.ID {
			t.Errorf("%q is a secret with the id %q", text, secret.ID)
		}
		if changed, ok := auth.ParseSecret(auth.PrefixKey, text[:76]+"7"); ok && text[76] != '7' && changed.Matches(secret.Hash[:]) {
			t.Errorf("%q is equal to another", text)
		}
	})
}
