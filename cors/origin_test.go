package cors_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/cors"
)

func mustNew(t testing.TB, c cors.Config) *cors.Policy {
	t.Helper()
	p, err := cors.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(method string, header http.Header) *http.Request {
	r := httptest.NewRequest(method, "http://api.test/", nil)
	r.Header = header
	return r
}

// answerTo returns the Access-Control-Allow-Origin that a page of origin gets.
func answerTo(p *cors.Policy, origin string) string {
	h := http.Header{}
	p.Apply(h, request(http.MethodGet, http.Header{"Origin": {origin}}))
	return h.Get("Access-Control-Allow-Origin")
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	tests := []struct {
		allowed []string
		yes, no []string
	}{
		{
			allowed: []string{"https://example.com"},
			yes:     []string{"https://example.com"},
			no: []string{
				"http://example.com", "https://example.com:8443", "https://example.com:443", "https://www.example.com",
				"https://evil-example.com", "https://evilexample.com", "https://example.com.evil.com", "https://example.co",
				"https://example.com.", "https://EXAMPLE.com", "HTTPS://example.com", "https://example.com/", "https://user@example.com",
				"example.com", "//example.com", "null", " https://example.com", "https://example.com https://evil.com",
				"https://example.com, https://evil.com", "https://example.comevil", "https://example.com\x00",
			},
		},
		{
			allowed: []string{"HTTPS://App.Example.COM:443", "http://example.com:080", "http://example.com:8443"},
			yes:     []string{"https://app.example.com", "http://example.com", "http://example.com:8443"},
			no:      []string{"https://app.example.com:443", "https://App.Example.COM", "https://example.com", "http://example.com:80", "https://example.com:8443"},
		},
		{
			allowed: []string{"https://*.example.com"},
			yes:     []string{"https://a.example.com", "https://a.b.example.com", "https://a-b.example.com", "https://my_app.example.com", "https://xn--bcher-kva.example.com"},
			no: []string{
				"https://example.com", "https://.example.com", "https://*.example.com", "https://evil-example.com", "https://evilexample.com",
				"https://example.com.evil.com", "https://a.example.com.evil.com", "http://a.example.com", "https://a.example.com:8443",
				"https://a..example.com", "https://..example.com", "https://A.example.com", "https://evil.com/.example.com",
				"https://evil.com#.example.com", "https://evil.com?.example.com", "https://evil.com\\.example.com", "https://evil.com:80.example.com",
				"https://evil@a.example.com", "https://[::1].example.com", "https://evil.com .example.com", "https://evil.com,https://a.example.com", "https://%.example.com", "null",
			},
		},
		{
			allowed: []string{"HTTP://*.Example.com:8080", "https://*.bücher.example:443"},
			yes:     []string{"http://a.example.com:8080", "https://a.xn--bcher-kva.example"},
			no:      []string{"http://a.example.com", "http://a.example.com:80", "http://a.example.com:80800", "https://a.example.com:8080", "https://a.bücher.example"},
		},
		{
			allowed: []string{`~^https://pr-[0-9]+\.example\.com$`, `~https://(a|b)\.test|https://c\.test`},
			yes:     []string{"https://pr-1.example.com", "https://pr-42.example.com", "https://a.test", "https://c.test"},
			no: []string{
				"https://pr-.example.com", "https://pr-1.example.com.evil.com", "https://evil.com/https://pr-1.example.com", "https://pr-1xexample.com",
				"http://c.test", "https://c.test.evil.com", "https://c.test:1", "https://evil.com?https://c.test",
			},
		},
		{
			// What browsers never send, a careless expression must not let in.
			allowed: []string{`~https://.*\.example\.com`},
			yes:     []string{"https://a.example.com", "https://a.b.example.com"},
			no: []string{
				"https://evil.com/.example.com", "https://evil.com#.example.com", "https://evil.com\\.example.com",
				"https://user@a.example.com", "https://A.example.com", "https:// .example.com",
				"https://" + strings.Repeat("a.", 300) + "example.com",
			},
		},
		{
			allowed: []string{"~.*"},
			yes:     []string{"https://example.com", "http://localhost:3000", "http://[::1]:8080", "moz-extension://0a1b"},
			no:      []string{"null", "https://", "://example.com", "example.com", "1https://example.com", "https://a/b", "", "*"},
		},
		{
			allowed: []string{"null"},
			yes:     []string{"null"},
			no:      []string{"NULL", "", "https://null", "https://example.com"},
		},
		{
			allowed: []string{"http://localhost:3000", "http://127.0.0.1:3000", "http://[0:0::1]:3000", "capacitor://localhost", "https://bücher.example", "https://[2001:DB8::1]"},
			yes:     []string{"http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "capacitor://localhost", "https://xn--bcher-kva.example", "https://[2001:db8::1]"},
			no:      []string{"http://localhost", "http://localhost:30001", "http://127.0.0.1", "https://localhost:3000", "https://bücher.example"},
		},
	}
	for _, test := range tests {
		p := mustNew(t, cors.Config{Origins: test.allowed})
		for _, origin := range test.yes {
			if got := answerTo(p, origin); got != origin {
				t.Errorf("%q: %q is answered %q", test.allowed, origin, got)
			}
		}
		for _, origin := range test.no {
			if got := answerTo(p, origin); got != "" {
				t.Errorf("%q: %q is answered %q, want no answer", test.allowed, origin, got)
			}
		}
	}
}

func TestTwoOriginsAreNone(t *testing.T) {
	t.Parallel()
	p := mustNew(t, cors.Config{Origins: []string{"https://a.test", "https://b.test"}})
	h := http.Header{}
	p.Apply(h, request(http.MethodGet, http.Header{"Origin": {"https://a.test", "https://b.test"}}))
	if got := h["Access-Control-Allow-Origin"]; got != nil {
		t.Errorf("answered %q", got)
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("https://app.example.com", "https://app.example.com")
	f.Add("https://*.example.com:8443", "https://a.b.example.com:8443")
	f.Add("http://[::1]:80", "http://[::1]")
	f.Add("https://bücher.example", "https://xn--bcher-kva.example")
	f.Add("~https://.*", "https://evil.com/path")
	f.Add("~a)|(?:b", "b")
	f.Add("https://*.example.com", "https://evil.com/.example.com")
	f.Add("null", "null")
	f.Fuzz(func(t *testing.T, allowed, origin string) {
		p, err := cors.New(cors.Config{Origins: []string{allowed}})
		if err != nil || allowed == "*" || answerTo(p, origin) == "" {
			return
		}
		if got := answerTo(p, origin); got != origin {
			t.Fatalf("%q: %q is answered %q", allowed, origin, got)
		}
		if origin == "null" {
			if allowed != "null" {
				t.Fatalf("%q allows null", allowed)
			}
			return
		}
		if _, authority, ok := strings.Cut(origin, "://"); !ok || strings.ContainsAny(authority, "/\\?#@, ") {
			t.Fatalf("%q allows %q, which is no origin", allowed, origin)
		}
		if strings.HasPrefix(allowed, "~") {
			return
		}
		if u, err := url.Parse(origin); err != nil || u.Scheme+"://"+u.Host != origin {
			t.Fatalf("%q allows %q, which is no origin (%v)", allowed, origin, err)
		}
		if strings.Contains(allowed, "*.") {
			// Any number of labels more also match, and no label does not.
			more := strings.Replace(origin, "://", "://more.", 1)
			if answerTo(p, more) == "" {
				t.Fatalf("%q allows %q but not %q", allowed, origin, more)
			}
			return
		}
		// What an exact origin allows is its normal form, and only that.
		again, err := cors.New(cors.Config{Origins: []string{origin}})
		if err != nil || answerTo(again, origin) != origin {
			t.Fatalf("%q allows %q, which does not allow itself (%v)", allowed, origin, err)
		}
		for _, other := range []string{origin + ".evil.test", origin + "/", strings.Replace(origin, "://", "://evil-", 1), strings.ToUpper(origin)} {
			if other != origin && answerTo(p, other) != "" {
				t.Fatalf("%q allows %q", allowed, other)
			}
		}
	})
}
