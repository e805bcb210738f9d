package auth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

func TestAPIKey(t *testing.T) {
	t.Parallel()
	var keys keyring
	past, future := now.Add(-time.Second), now.Add(time.Second)
	good := keys.add(func(c *store.Credential) { c.Key.ExpiresAt = &future })
	expired := keys.add(func(c *store.Credential) { c.Key.ExpiresAt = &past })
	ends := now
	ending := keys.add(func(c *store.Credential) { c.Key.ExpiresAt = &ends })
	disabled := keys.add(func(c *store.Credential) { c.Key.Enabled = false })
	ofDisabled := keys.add(func(c *store.Credential) { c.Consumer.Enabled = false })
	unknown, _ := auth.NewSecret(auth.PrefixKey)
	wrong := good[:len(good)-1] + string('a'+(good[len(good)-1]-'a'+1)%2)
	if wrong == good {
		wrong = good[:len(good)-1] + "c"
	}
	v := newVerifier(t, auth.Config{APIKey: &auth.APIKeyConfig{
		Headers: []string{"x-api-key", "X-Tenant-Key"}, Query: []string{"api_key"},
	}}, auth.Options{Credentials: &keys})

	for name, c := range map[string]struct {
		target string
		header []string
		want   error
	}{
		"bearer":                          {"/", []string{"Authorization", "Bearer " + good}, nil},
		"bearer in another case":          {"/", []string{"Authorization", "bEARER  " + good + " "}, nil},
		"header":                          {"/", []string{"X-API-Key", good}, nil},
		"another header":                  {"/", []string{"X-Tenant-Key", good}, nil},
		"query":                           {"/?a=1&api_key=" + good, nil, nil},
		"query with an encoded name":      {"/?api%5Fkey=" + good, nil, nil},
		"good after bad":                  {"/?api_key=" + good, []string{"X-API-Key", wrong}, nil},
		"none":                            {"/", nil, auth.ErrNoCredentials},
		"nearly a name":                   {"/?API_KEY=" + good, nil, auth.ErrNoCredentials},
		"a key of others":                 {"/", []string{"Authorization", "Bearer abc"}, auth.ErrNoCredentials},
		"basic":                           {"/", []string{"Authorization", "Basic " + good}, auth.ErrNoCredentials},
		"empty header":                    {"/", []string{"X-API-Key", ""}, auth.ErrInvalid},
		"not a key":                       {"/", []string{"X-API-Key", "abc"}, auth.ErrInvalid},
		"a token":                         {"/", []string{"X-API-Key", strings.Replace(good, "isk_", "ist_", 1)}, auth.ErrInvalid},
		"wrong secret":                    {"/", []string{"X-API-Key", wrong}, auth.ErrInvalid},
		"longer":                          {"/", []string{"X-API-Key", good + "a"}, auth.ErrInvalid},
		"unknown":                         {"/", []string{"X-API-Key", unknown}, auth.ErrInvalid},
		"expired":                         {"/", []string{"X-API-Key", expired}, auth.ErrInvalid},
		"expires now":                     {"/", []string{"X-API-Key", ending}, auth.ErrInvalid},
		"disabled":                        {"/", []string{"X-API-Key", disabled}, auth.ErrInvalid},
		"of a disabled consumer":          {"/", []string{"X-API-Key", ofDisabled}, auth.ErrInvalid},
		"two header fields":               {"/", []string{"X-API-Key", good, "X-API-Key", good}, auth.ErrInvalid},
		"two Authorization fields":        {"/", []string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, auth.ErrInvalid},
		"two parameters":                  {"/?api_key=" + good + "&api_key=" + good, nil, auth.ErrInvalid},
		"an endless Authorization":        {"/", []string{"Authorization", "Bearer " + good + strings.Repeat(" ", 20<<10)}, auth.ErrInvalid},
		"a list in one header field":      {"/", []string{"X-API-Key", good + ", " + good}, auth.ErrInvalid},
		"in a place that is not set up":   {"/", []string{"X-Other-Key", good}, auth.ErrNoCredentials},
		"in a parameter that is none set": {"/?key=" + good, nil, auth.ErrNoCredentials},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := newRequest(c.target, c.header...)
			id, err := v.Authenticate(r, []string{auth.MethodAPIKey})
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err == nil && (id.Consumer.Name != "alice" || id.Caller() != "api_key:7" || id.KeyID != good[4:20]) {
				t.Errorf("identity %+v", id)
			}
		})
	}
	for _, id := range keys.used {
		if id != good[4:20] {
			t.Errorf("the key %s counts as used", id)
		}
	}
}

func TestUnknownKeyWithoutStore(t *testing.T) {
	t.Parallel()
	keys := keyring{down: true}
	known := keys.add(nil)
	unknown, _ := auth.NewSecret(auth.PrefixKey)
	v := newVerifier(t, auth.Config{}, auth.Options{Credentials: &keys})
	policy, err := v.Policy(&store.Auth{Any: []string{"api_key"}, Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{known: http.StatusOK, unknown: http.StatusServiceUnavailable, "isk_malformed": http.StatusUnauthorized} {
		r, repl := newRequest("/", "X-API-Key", text)
		_, err := policy.Authenticate(r, repl)
		h := make(http.Header)
		if got := status(h, err); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
		if want == http.StatusServiceUnavailable && (h.Get("Retry-After") != "5" || h.Get("WWW-Authenticate") != "") {
			t.Errorf("header %v", h)
		}
	}

	// A key that nobody knows now and a wrong one: the first could be right.
	r, _ := newRequest("/", "X-API-Key", unknown, "Authorization", "Bearer isk_malformed")
	if _, err := v.Authenticate(r, []string{"api_key"}); !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("error %v, want %v", err, auth.ErrUnavailable)
	}
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	var keys keyring
	good := keys.add(nil)
	v := newVerifier(t, auth.Config{
		Realm: `the "realm"`, MTLS: true, Basic: accounts,
		JWT: map[string]*auth.IssuerConfig{"corp": {Issuer: "corp", Audience: []string{"*"}, Key: newRSA(t).pem}},
	}, auth.Options{Credentials: &keys})
	const realm = `realm="the \"realm\""`
	for name, c := range map[string]struct {
		policy     store.Auth
		header     []string
		status     int
		challenges []string
	}{
		"key":             {store.Auth{Any: []string{"api_key"}}, []string{"X-API-Key", good}, 200, nil},
		"in the group":    {store.Auth{Any: []string{"api_key"}, Groups: []string{"x", "eu"}}, []string{"X-API-Key", good}, 200, nil},
		"wrong group":     {store.Auth{Any: []string{"api_key"}, Groups: []string{"x", "EU", "e"}}, []string{"X-API-Key", good}, 403, nil},
		"anonymous":       {store.Auth{Any: []string{"api_key"}, Anonymous: true}, nil, 200, nil},
		"anonymous lies":  {store.Auth{Any: []string{"api_key"}, Anonymous: true}, []string{"X-API-Key", "x"}, 401, []string{"ApiKey " + realm}},
		"nothing":         {store.Auth{Any: []string{"api_key"}}, nil, 401, []string{"ApiKey " + realm}},
		"method order":    {store.Auth{Any: []string{"basic", "jwt", "mtls", "api_key"}}, nil, 401, []string{`Basic ` + realm + `, charset="UTF-8"`, "Bearer " + realm, "ApiKey " + realm}},
		"bad token":       {store.Auth{Any: []string{"jwt"}}, []string{"Authorization", "Bearer x"}, 401, []string{"Bearer " + realm + `, error="invalid_token"`}},
		"only mtls":       {store.Auth{Any: []string{"mtls"}}, nil, 401, []string{"ClientCertificate " + realm}},
		"other's key":     {store.Auth{Any: []string{"basic"}}, []string{"X-API-Key", good}, 401, []string{`Basic ` + realm + `, charset="UTF-8"`}},
		"bad token, key":  {store.Auth{Any: []string{"jwt", "api_key"}}, []string{"Authorization", "Bearer x", "X-API-Key", good}, 200, nil},
		"key as a token":  {store.Auth{Any: []string{"jwt"}}, []string{"Authorization", "Bearer " + good}, 401, []string{"Bearer " + realm + `, error="invalid_token"`}},
		"key or token":    {store.Auth{Any: []string{"jwt", "api_key"}}, []string{"Authorization", "Bearer " + good}, 200, nil},
		"anonymous twice": {store.Auth{Any: []string{"jwt"}, Anonymous: true}, []string{"Authorization", "Bearer a", "Authorization", "Bearer b"}, 401, []string{"Bearer " + realm}},
	} {
		t.Run(name, func(t *testing.T) {
			policy, err := v.Policy(&c.policy)
			if err != nil {
				t.Fatal(err)
			}
			r, repl := newRequest("/", c.header...)
			id, err := policy.Authenticate(r, repl)
			h := make(http.Header)
			if got := status(h, err); got != c.status {
				t.Errorf("status %d (%v), want %d", got, err, c.status)
			}
			if c.status == http.StatusForbidden && id.Caller() != "api_key:7" {
				t.Errorf("forbidden to %+v", id)
			}
			if diff := cmp.Diff(c.challenges, h.Values("WWW-Authenticate")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	all := auth.Methods()
	for name, c := range map[string]struct {
		policy     store.Auth
		configured []string
		fields     []string
	}{
		"good":            {store.Auth{Any: all, Groups: []string{"a"}}, all, nil},
		"nothing":         {store.Auth{}, all, []string{"any"}},
		"unknown":         {store.Auth{Any: []string{"api_key", "oauth"}}, all, []string{"any[1]"}},
		"twice":           {store.Auth{Any: []string{"jwt", "jwt"}}, all, []string{"any[1]"}},
		"not configured":  {store.Auth{Any: []string{"api_key", "jwt", "basic", "mtls"}}, []string{"api_key"}, []string{"any[1]", "any[2]", "any[3]"}},
		"groups for none": {store.Auth{Any: all, Groups: []string{"a"}, Anonymous: true}, all, []string{"groups"}},
		"groups":          {store.Auth{Any: all, Groups: []string{"", strings.Repeat("a", 201), "b"}}, all, []string{"groups[0]", "groups[1]"}},
		"many groups":     {store.Auth{Any: all, Groups: strings.Fields(strings.Repeat("a ", 101))}, all, []string{"groups"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			errs, _ := errors.AsType[store.FieldErrors](auth.Check(&c.policy, c.configured))
			var got []string
			for _, e := range errs {
				got = append(got, e.Field)
			}
			if diff := cmp.Diff(c.fields, got); diff != "" {
				t.Errorf("%s\n%v", diff, errs)
			}
		})
	}
}
