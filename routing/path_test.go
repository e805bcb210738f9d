package routing_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
)

func TestCanonicalPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, want string
		merged   bool
	}{
		{in: "/", want: "/"},
		{in: "/a/b", want: "/a/b"},
		{in: "/a/b/", want: "/a/b/"},
		{in: "/.well-known/x", want: "/.well-known/x"},
		{in: "/...", want: "/..."},
		{in: "/a..b/..c/d../.e", want: "/a..b/..c/d../.e"},
		{in: "/%61%7E%2d%5f%2E%2E%2e", want: "/a~-_..."},
		{in: "/a%2fb", want: "/a%2Fb"},
		{in: "/a%2F%2fb", want: "/a%2F%2Fb"},
		{in: "/%c3%a9", want: "/%C3%A9"},
		{in: "/é", want: "/%C3%A9"},
		{in: "/%E9", want: "/%E9"},
		{in: "/日本", want: "/%E6%97%A5%E6%9C%AC"},
		{in: "/\u00ff\U0001F600", want: "/%C3%BF%F0%9F%98%80"},
		{in: "/a b", want: "/a%20b"},
		{in: "/a+b", want: "/a+b"},
		{in: `/"<>^` + "`{|}", want: "/%22%3C%3E%5E%60%7B%7C%7D"},
		{in: "/[1]", want: "/%5B1%5D"},
		{in: "/a?b#c", want: "/a%3Fb%23c"},
		{in: "/a;v=1/b;c", want: "/a;v=1/b;c"},
		{in: "/%3b%40", want: "/%3B%40"},
		{in: "/!$&'()*+,;=:@-._~", want: "/!$&'()*+,;=:@-._~"},
		{in: "/100%25", want: "/100%25"},
		{in: "/%2541", want: "/%2541"},
		{in: "/%25%34%31", want: "/%2541"},
		{in: "/%252525", want: "/%252525"},
		{in: "/%25zz", want: "/%25zz"},
		{in: "/%257Bx%257D", want: "/%257Bx%257D"},
		{in: "//", want: "/", merged: true},
		{in: "//a", want: "/a", merged: true},
		{in: "/a//b///c//", want: "/a/b/c/", merged: true},
		{in: "/a//%2f", want: "/a/%2F", merged: true},
	}
	for _, tt := range tests {
		got, err := routing.CanonicalPath(tt.in)
		if err != nil || got.Text != tt.want || got.Merged != tt.merged {
			t.Errorf("CanonicalPath(%q) = %+v, %v; want %q, merged %v", tt.in, got, err, tt.want, tt.merged)
		}
	}
}

// badPaths are what attackers send, by reason.
var badPaths = map[string][]string{
	"does not start with a slash": {"", "a", "*", "http://a/", "%2Fa", `\a`},
	"percent sign":                {"/%", "/%2", "/%zz", "/a%g0", "/%u002e%u002e/", "/%%32%65", "/%%35c", "/a/%/b", "/%2/e"},
	"control character": {
		"/%00", "/a%00.jpg", "/a\x00b", "/%0a", "/%0D%0aSet-Cookie:x", "/\n", "/\r\n", "/%1f", "/%7F", "/\x7f", "/a%09b", "/%1b[31m",
	},
	"backslash": {`/a\b`, "/a%5cb", "/a%5Cb", `/..\..\etc`, "/..%5c..%5cwindows", "/%2e%2e%5c", "/%c0%5c"},
	"dot segment": {
		"/.", "/..", "/./", "/../", "/a/..", "/a/../b", "/a/./b", "/a/.", "/%2e", "/%2E%2e/x", "/.%2e/", "/%2e./a",
		"/a/%2e%2e/b", "/a/..;/b", "/a/.;/b", "/..;x=1/b", "/..;", "/.;x", "/..%3b/a", "/%2e%2e%3bx/", "/..%3B",
		"/a%2f..%2fb", "/a%2F..", "/..%2fa", "/.%2f", "/a%2f.%2fb", "/a%2F%2e%2E%2fb", "/..%2f..%2f..%2fetc%2fpasswd", "/a%2f..;x%2fb",
		"/..%253b", "/a%2F..%253Bx", "//..", "/a//..//b", "/./admin", "/a/..%2f", "/%2e%2f", "/.;/actuator", "/api/..;/manager/html", "/a;/../b",
	},
	"more than once": {
		"/%252e", "/%252e%252e/", "/%252E", "/%25252F", "/%252f", "/%255c", "/%255C", "/%2500", "/a%252f..%252fb", "/%25252e", "/%252525252e", "/x%252ejpg",
		"/%25%32%65", "/%25%32%66", "/%25%35%63", "/%25%30%30", "/.%252e/", "/..%252f", "/..%255c", "/%2525%32%65", "/%250a", "/%257f", "/%25%2532%2565",
	},
	"overlong": {
		"/%C0%AE", "/%c0%ae%c0%ae/", "/%C0%AF", "/..%c0%af..", "/%E0%80%AF", "/%e0%80%ae", "/%F0%80%80%AF", "/%f0%80%80%ae", "/%F8%80%80%80%AF", "/%FC%80%80%80%80%AF",
		"/%c0%2f", "/%c0%2e", "/%c1%9c", "/%C1%9c", "/%e0%40%ae", "/%25c0%25ae", "/%c0%80", "/\xc0\xae", "/\xe0\x80\xaf", "/%E0%80%AE%E0%80%AE/", "/%e0%80%a5",
	},
}

func TestCanonicalPathRefuses(t *testing.T) {
	t.Parallel()
	for reason, paths := range badPaths {
		for _, path := range paths {
			got, err := routing.CanonicalPath(path)
			if !errors.Is(err, routing.ErrBadPath) {
				t.Errorf("CanonicalPath(%q) = %+v, %v; want ErrBadPath", path, got, err)
				continue
			}
			if !strings.Contains(err.Error(), reason) {
				t.Errorf("CanonicalPath(%q): %v; want a text with %q", path, err, reason)
			}
		}
	}
}

func TestCanonicalURLPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		url  url.URL
		want string // "" for ErrBadPath
	}{
		{"empty", url.URL{}, "/"},
		{"plain", url.URL{Path: "/a b"}, "/a%20b"},
		{"raw", url.URL{Path: "/a/b", RawPath: "/a%2Fb"}, "/a%2Fb"},
		{"raw with a byte that ought to be encoded", url.URL{Path: `/a/b"c`, RawPath: `/a%2Fb"c`}, "/a%2Fb%22c"},
		{"raw without a change", url.URL{Path: "/a", RawPath: "/%61"}, "/a"},
		{"raw of another path", url.URL{Path: "/new/path", RawPath: "/old%2Fpath"}, "/new/path"},
		{"raw shorter than the path", url.URL{Path: "/ab", RawPath: "/a"}, "/ab"},
		{"raw longer than the path", url.URL{Path: "/a", RawPath: "/ab"}, "/a"},
		{"raw with a bad triplet", url.URL{Path: "/%zz", RawPath: "/%zz"}, "/%25zz"},
		{"percent sign", url.URL{Path: "/100%"}, "/100%25"},
		{"decoded dots", url.URL{Path: "/a/../b"}, ""},
		{"double encoded dots", url.URL{Path: "/%2e%2e/"}, ""},
		{"control character", url.URL{Path: "/a\nb"}, ""},
		{"asterisk", url.URL{Path: "*"}, ""},
		{"question mark", url.URL{Path: "/a?b"}, "/a%3Fb"},
		{"opaque", url.URL{Scheme: "x", Opaque: "http://h/admin"}, ""},
		{"opaque beside a path", url.URL{Scheme: "x", Opaque: "/admin", Path: "/"}, ""},
	}
	for _, tt := range tests {
		got, err := routing.CanonicalURLPath(&tt.url)
		if tt.want == "" {
			if !errors.Is(err, routing.ErrBadPath) {
				t.Errorf("%s: got %+v, %v; want ErrBadPath", tt.name, got, err)
			}
			continue
		}
		if err != nil || got.Text != tt.want {
			t.Errorf("%s: got %+v, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

// A parsed request target gives the same path as the target itself.
func TestCanonicalURLPathOfParsedURLs(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		"/", "/a%2fb", `/a%2fb"`, "/%61", "/é%2F", "/a b%2f", "/%c3%a9", "/x%25y", "/a;b%3b", "/[%2F]", "/|", "/%7c", "/a//b%2f", "/%252541", "/{a}%2f",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		want, err := routing.CanonicalPath(target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := routing.CanonicalURLPath(u); err != nil || got != want {
			t.Errorf("%q: got %+v, %v from the URL, %+v from the text", target, got, err, want)
		}
	}
}

func TestBadPathTextsHoldNothingOfTheClient(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/SECRET/..", "/SECRET%", "/SECRET\\", "/SECRET%00", "/SECRET%252e", "/SECRET%c0%ae", "SECRET"} {
		if _, err := routing.CanonicalPath(path); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("CanonicalPath(%q): %v", path, err)
		}
	}
}

func TestCanonicalPathAllocations(t *testing.T) {
	for _, path := range []string{"/", "/orders/42/items", "/.well-known/a;b=c", "/a%2Fb/caf%C3%A9", "/a/../b"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = routing.CanonicalPath(path) }); n != 0 {
			t.Errorf("CanonicalPath(%q) allocates %v times", path, n)
		}
	}
	u := &url.URL{Path: "/a/b c", RawPath: "/a%2Fb%20c"}
	if n := testing.AllocsPerRun(100, func() { _, _ = routing.CanonicalURLPath(u) }); n != 0 {
		t.Errorf("CanonicalURLPath allocates %v times", n)
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, paths := range badPaths {
		for _, path := range paths {
			f.Add(path)
		}
	}
	f.Add("/a%2fb//c;d/é%25")
	f.Fuzz(func(t *testing.T, in string) {
		p, err := routing.CanonicalPath(in)
		if err != nil {
			if !errors.Is(err, routing.ErrBadPath) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		again, err := routing.CanonicalPath(p.Text)
		if err != nil || again.Text != p.Text || again.Merged {
			t.Fatalf("%q is %q, which is %+v, %v", in, p.Text, again, err)
		}
		u, err := url.ParseRequestURI(p.Text)
		if err != nil {
			t.Fatalf("%q is %q: %v", in, p.Text, err)
		}
		if viaURL, err := routing.CanonicalURLPath(u); err != nil || viaURL.Text != p.Text {
			t.Fatalf("%q is %q, by URL %+v, %v", in, p.Text, viaURL, err)
		}
		// However often a server decodes it, it finds nothing to climb by.
		for text, last := p.Text, ""; text != last; {
			for seg := range strings.SplitSeq(text, "/") {
				seg, _, _ = strings.Cut(seg, ";")
				if seg == "." || seg == ".." {
					t.Fatalf("%q is %q, which decodes to %q", in, p.Text, text)
				}
			}
			if strings.ContainsAny(text, "\\\x00\r\n") {
				t.Fatalf("%q is %q, which decodes to %q", in, p.Text, text)
			}
			last = text
			if decoded, err := url.PathUnescape(text); err == nil {
				text = decoded
			}
		}
		if strings.Contains(p.Text, "//") {
			t.Fatalf("%q is %q", in, p.Text)
		}
	})
}
