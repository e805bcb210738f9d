package routing_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/routing"
)

func TestPattern(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, text, key, prefix string
		params                []string
	}{
		{in: "/", text: "/", key: "/", prefix: "/"},
		{in: "/a", text: "/a", key: "/a", prefix: "/a"},
		{in: "/a/", text: "/a/", key: "/a/", prefix: "/a/"},
		{in: "/a/b.c-d", text: "/a/b.c-d", key: "/a/b.c-d", prefix: "/a/b.c-d"},
		{in: "/café", text: "/caf%C3%A9", key: "/caf%C3%A9", prefix: "/caf%C3%A9"},
		{in: "/caf%c3%a9/%61 b", text: "/caf%C3%A9/a%20b", key: "/caf%C3%A9/a%20b", prefix: "/caf%C3%A9/a%20b"},
		{in: "/:id/@me/$x", text: "/:id/@me/$x", key: "/:id/@me/$x", prefix: "/:id/@me/$x"},
		{in: "/{id}", text: "/{id}", key: "/{}", prefix: "", params: []string{"id"}},
		{in: "/orders/{id}/items/{item-id}", text: "/orders/{id}/items/{item-id}", key: "/orders/{}/items/{}", prefix: "/orders", params: []string{"id", "item-id"}},
		{in: "/{_a}/", text: "/{_a}/", key: "/{}/", prefix: "", params: []string{"_a"}},
		{in: "/*", text: "/*", key: "/*", prefix: ""},
		{in: "/a/*", text: "/a/*", key: "/a/*", prefix: "/a"},
		{in: "/a/{rest...}", text: "/a/{rest...}", key: "/a/*", prefix: "/a", params: []string{"rest"}},
		{in: "/%C3%A9/{id}/x", text: "/%C3%A9/{id}/x", key: "/%C3%A9/{}/x", prefix: "/%C3%A9", params: []string{"id"}},
		{in: "/é/{id:[0-9]{3}}", text: "/%C3%A9/{id:[0-9]{3}}", key: "/%C3%A9/{:[0-9]{3}}", prefix: "/%C3%A9", params: []string{"id"}},
		{in: `/{a:\{x\}}/b`, text: `/{a:\{x\}}/b`, key: `/{:\{x\}}/b`, prefix: "", params: []string{"a"}},
		{in: `/{a:[^{}/]+}/{b:a/b}`, text: `/{a:[^{}/]+}/{b:a/b}`, key: `/{:[^{}/]+}/{:a/b}`, prefix: "", params: []string{"a", "b"}},
		{in: `/{a:[]}x]+}`, text: `/{a:[]}x]+}`, key: `/{:[]}x]+}`, prefix: "", params: []string{"a"}},
		{in: `/{a:[[:alpha:]}]}`, text: `/{a:[[:alpha:]}]}`, key: `/{:[[:alpha:]}]}`, prefix: "", params: []string{"a"}},
		{in: "/{v:v[0-9]+}/é/*", text: "/{v:v[0-9]+}/%C3%A9/*", key: "/{:v[0-9]+}/%C3%A9/*", prefix: "", params: []string{"v"}},
		{in: "/{a:a:b}", text: "/{a:a:b}", key: "/{:a:b}", prefix: "", params: []string{"a"}},
	}
	for _, tt := range tests {
		p, err := routing.ParsePattern(tt.in)
		if err != nil {
			t.Errorf("ParsePattern(%q): %v", tt.in, err)
			continue
		}
		got := []any{p.String(), p.Key(), p.LiteralPrefix(), p.ParamNames()}
		if diff := cmp.Diff([]any{tt.text, tt.key, tt.prefix, tt.params}, got); diff != "" {
			t.Errorf("ParsePattern(%q) (-want +got):\n%s", tt.in, diff)
		}
		again, err := routing.ParsePattern(p.String())
		if err != nil || again.String() != p.String() || again.Key() != p.Key() {
			t.Errorf("ParsePattern(%q) again: %v, %v", p, again, err)
		}
	}
}

func TestPatternErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"", `write "/*"`},
		{"a", "must start with a slash"},
		{"/" + strings.Repeat("é", 400), "2048 bytes once"},
		{"{id}", "must start with a slash"},
		{"/" + strings.Repeat("a", 2048), "2048 bytes"},
		{"//", "at position 2: an empty segment"},
		{"/a//b", "at position 4: an empty segment"},
		{"/a/../b", `at position 4: segment ".." has a dot segment`},
		{"/%2e", "dot segment"},
		{"/a%2f..", "dot segment"},
		{"/a%", "percent sign"},
		{"/a%00", "control character"},
		{"/a\\b", "backslash"},
		{"/a%252fb", "more than once"},
		{"/a?b=c", `"query"`},
		{"/a#b", "%23"},
		{"/a/*/b", "write {name} for one segment"},
		{"/a*", "{name:a.*}"},
		{"/*.js", `{name:.*\.js}`},
		{"/**", "must be a whole segment"},
		{"/a/{x...}/b", "write {x} for one segment"},
		{"/v{n}", "write {n:v.*}"},
		{"/file.{ext}", `write {ext:file\..*}`},
		{"/{a}.{b}", "a parameter must be a whole segment"},
		{"/{id}:cancel", "write {id:.*:cancel}"},
		{"/{id:[0-9]+}.json", `write {id:[0-9]+\.json}`},
		{"/{}", "needs a name, like {name}"},
		{"/{...}", `write {name...} or "*"`},
		{"/{:x}", "needs a name"},
		{"/{1}", "begin with a letter"},
		{"/{-a}", "begin with a letter"},
		{"/{a b}", "is no name"},
		{"/{é}", "is no name"},
		{"/{$}", "not needed"},
		{"/{a", `"{" has no "}"`},
		{"/a}", `"}" has no "{"`},
		{"/{a}}", "must be a whole segment"},
		{"/{a}/{a}", "{a} is there twice"},
		{"/{a}/{a...}", "{a} is there twice"},
		{"/{a:}", "write {a}"},
		{"/{a:[}", "missing closing ]"},
		{"/{a:(}", "the regexp of {a}"},
		{"/{a:x)|(y}", "the regexp of {a}"},
		{"/{a:(?=x)}", "the regexp of {a}"},
		{"/{a:" + strings.Repeat("x", 513) + "}", "512 bytes"},
		{"/{a:(a?){1000}(a?){1000}}", "too complex"},
		{"/" + strings.Repeat("{a}/", 2), "twice"},
		{manyParams(33), "32 parameters"},
	}
	for _, tt := range tests {
		p, err := routing.ParsePattern(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParsePattern(%q) = %v, %v; want an error with %q", tt.in, p, err, tt.want)
		}
	}
	if _, err := routing.ParsePattern(manyParams(32)); err != nil {
		t.Error(err)
	}
}

func manyParams(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("/{p" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "}")
	}
	return b.String()
}

func TestPatternMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, path string
		want          []routing.Param // nil: no match
	}{
		{"/", "/", []routing.Param{}},
		{"/", "/a", nil},
		{"/a", "/a", []routing.Param{}},
		{"/a", "/a/", nil},
		{"/a/", "/a", nil},
		{"/a/", "/a/", []routing.Param{}},
		{"/a", "/A", nil},
		{"/a", "/%61", []routing.Param{}},
		{"/%61", "/a", []routing.Param{}},
		{"/caf%c3%a9", "/café", []routing.Param{}},
		{"/{x}", "/", nil},
		{"/{x}", "/a", []routing.Param{{"x", "a"}}},
		{"/{x}", "/a/", nil},
		{"/{x}", "/a/b", nil},
		{"/{x}", "/a%2Fb", []routing.Param{{"x", "a%2Fb"}}},
		{"/{x}/", "/a/", []routing.Param{{"x", "a"}}},
		{"/{x}/{y}", "/a/b", []routing.Param{{"x", "a"}, {"y", "b"}}},
		{"/{x}/b/{y}", "/a/b/c%20d", []routing.Param{{"x", "a"}, {"y", "c%20d"}}},
		{"/*", "/", []routing.Param{}},
		{"/*", "/a/b", []routing.Param{}},
		{"/{r...}", "/", []routing.Param{{"r", ""}}},
		{"/{r...}", "/a/b/", []routing.Param{{"r", "a/b/"}}},
		{"/a/*", "/a", []routing.Param{}},
		{"/a/*", "/a/", []routing.Param{}},
		{"/a/*", "/ab", nil},
		{"/a/*", "/", nil},
		{"/a/{r...}", "/a", []routing.Param{{"r", ""}}},
		{"/a/{r...}", "/a/", []routing.Param{{"r", ""}}},
		{"/a/{r...}", "/a/b/c", []routing.Param{{"r", "b/c"}}},
		{"/{x}/{r...}", "/a", []routing.Param{{"x", "a"}, {"r", ""}}},
		{"/{x}/*", "/", nil},
		{"/{x:[0-9]+}", "/42", []routing.Param{{"x", "42"}}},
		{"/{x:[0-9]+}", "/42a", nil},
		{"/{x:a|b}", "/ab", nil},
		{"/{x:a|b}", "/b", []routing.Param{{"x", "b"}}},
		{"/{x:.*}", "/", nil},
		{"/{x:a/b}", "/a%2Fb", []routing.Param{{"x", "a%2Fb"}}},
		{"/{x:a/b}", "/a/b", nil},
		{"/{x:é+}", "/éé", []routing.Param{{"x", "%C3%A9%C3%A9"}}},
		{"/{x:(?i)abc}", "/ABC", []routing.Param{{"x", "ABC"}}},
		{"/{x:(?m)^a$}", "/a", []routing.Param{{"x", "a"}}},
		{`/{x:\d{2}}/{y:\d{3}}`, "/12/123", []routing.Param{{"x", "12"}, {"y", "123"}}},
		{`/{x:\d{2}}/{y:\d{3}}`, "/123/12", nil},
	}
	for _, tt := range tests {
		p := mustPattern(t, tt.pattern)
		path := request(t, "GET", "", tt.path).Path
		if got := p.Match(path); got != (tt.want != nil) {
			t.Errorf("%s matches %s: %v", tt.pattern, tt.path, got)
			continue
		}
		if tt.want == nil {
			continue
		}
		if diff := cmp.Diff(tt.want, p.AppendParams([]routing.Param{}, path)); diff != "" {
			t.Errorf("parameters of %s in %s (-want +got):\n%s", tt.pattern, tt.path, diff)
		}
	}
}

func TestPatternAllocations(t *testing.T) {
	p := mustPattern(t, "/a/{x}/{y:[a-z]+}/{r...}")
	params := make([]routing.Param, 0, 4)
	n := testing.AllocsPerRun(100, func() {
		if p.Match("/a/1/b/c/d") {
			params = p.AppendParams(params[:0], "/a/1/b/c/d")
		}
	})
	if n != 0 || len(params) != 3 {
		t.Errorf("%v allocations, parameters %v", n, params)
	}
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"/", "/a/{b}/*", "/{x:[0-9]{3}}/é", "/{r...}", `/{a:[^\]}]\}}`, "/v{n}", "/a%2f..", "/{a", "/%7B/x"} {
		f.Add(s, "/a/b")
	}
	f.Fuzz(func(t *testing.T, s, path string) {
		p, err := routing.ParsePattern(s)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		again, err := routing.ParsePattern(p.String())
		if err != nil || again.String() != p.String() || again.Key() != p.Key() {
			t.Fatalf("%q is %q, which is %v, %v", s, p, again, err)
		}
		if len(p.ParamNames()) == 0 && !strings.HasSuffix(s, "*") && !p.Match(p.String()) {
			t.Fatalf("%q does not match itself", p)
		}
		canonical, err := routing.CanonicalPath(path)
		if err != nil {
			return
		}
		matches := p.Match(canonical.Text)
		if matches != again.Match(canonical.Text) {
			t.Fatalf("%q and %q differ on %q", p, again, path)
		}
		if matches {
			if got := p.AppendParams(nil, canonical.Text); len(got) != len(p.ParamNames()) {
				t.Fatalf("%q on %q: %v", p, path, got)
			}
		}
	})
}
