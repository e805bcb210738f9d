package routing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func named(name string) func(*store.Route) { return func(r *store.Route) { r.Name = name } }

func TestWarnings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		rows []*store.Route
		r    *store.Route
		want []string
	}{
		{
			"the same at a higher priority",
			[]*store.Route{row(12, "GET", "", "/orders/{id}", named("orders"), priority(1))},
			row(0, "GET", "", "/orders/{n}"),
			[]string{`can never match: route 12 ("orders", GET /orders/{id}) takes all its requests`},
		},
		{
			"the same at a lower priority",
			[]*store.Route{row(12, "GET", "h.com", "/orders/{id}")},
			row(0, "GET", "h.com", "/orders/{n}", priority(1)),
			[]string{`route 12 (GET h.com/orders/{id}) can never match any more: this route takes all its requests`},
		},
		{
			"a set of methods",
			[]*store.Route{row(1, "GET,POST,PUT", "", "/a", priority(1))},
			row(0, "GET,POST", "", "/a"),
			[]string{`can never match: route 1 (GET,POST,PUT /a) takes all its requests`},
		},
		{
			"two routes together",
			[]*store.Route{row(1, "GET", "", "/a", priority(1)), row(2, "POST", "", "/a", priority(1))},
			row(0, "GET,POST", "", "/a"),
			[]string{`can never match: route 1 (GET /a) and route 2 (POST /a) together take all its requests`},
		},
		{
			"together with another",
			[]*store.Route{row(1, "GET", "", "/a", priority(1)), row(2, "GET,POST", "", "/a")},
			row(0, "POST", "", "/a", priority(1)),
			[]string{`route 2 (GET,POST /a) can never match any more: this route and route 1 (GET /a) together take all its requests`},
		},
		{"one method is left", []*store.Route{row(1, "GET", "", "/a", priority(1))}, row(0, "GET,POST", "", "/a"), nil},
		{"named before all", []*store.Route{row(1, "*", "", "/a", priority(9))}, row(0, "GET", "", "/a"), nil},
		{"HEAD is left to an implied one", []*store.Route{row(1, "HEAD", "", "/a", priority(9))}, row(0, "GET", "", "/a"), nil},
		{"implied HEAD does not take a named one", []*store.Route{row(1, "GET", "", "/a", priority(9))}, row(0, "HEAD", "", "/a"), nil},
		{
			"GET and HEAD together",
			[]*store.Route{row(1, "GET,HEAD", "", "/a", priority(9))},
			row(0, "GET", "", "/a"),
			[]string{`can never match: route 1 (GET,HEAD /a) takes all its requests`},
		},
		{
			"all methods",
			[]*store.Route{row(1, "*", "", "/a/*", priority(9))},
			row(0, "*", "", "/a/{rest...}"),
			[]string{`can never match: route 1 (* /a/*) takes all its requests`},
		},
		{"named methods never make all", []*store.Route{row(1, "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT", "", "/a", priority(9))}, row(0, "*", "", "/a"), nil},
		{
			"a regexp for everything before a parameter",
			[]*store.Route{row(1, "*", "", "/a/{x:.+}/c")},
			row(0, "GET", "", "/a/{x}/c", priority(9)),
			[]string{`can never match: route 1 (* /a/{x:.+}/c) takes all its requests`},
		},
		{
			"a regexp for everything over a parameter",
			[]*store.Route{row(1, "GET", "", "/a/{x}"), row(2, "GET", "", "/a/{x:[0-9]+}"), row(3, "GET", "", "/a/b"), row(4, "GET", "", "/a/{x}/c")},
			row(0, "GET", "", "/a/{x:.*}", priority(1)),
			[]string{
				`route 1 (GET /a/{x}) can never match any more: this route takes all its requests`,
				`route 2 (GET /a/{x:[0-9]+}) can never match any more: this route takes all its requests`,
			},
		},
		{"a regexp that may not match a slash", []*store.Route{row(1, "GET", "", "/a/{x:[^/]+}")}, row(0, "GET", "", "/a/{x}"), nil},
		{"other regexps", []*store.Route{row(1, "GET", "", "/a/{x:[a-z]+}", priority(9))}, row(0, "GET", "", "/a/{x:[a-c]+}"), nil},
		{"the same regexp", []*store.Route{row(1, "GET", "", "/a/{x:[a-z]+}", priority(9))}, row(0, "GET", "", "/a/{y:[a-z]+}"), []string{`can never match: route 1 (GET /a/{x:[a-z]+}) takes all its requests`}},
		{"a rest does not take an end", []*store.Route{row(1, "GET", "", "/a/*", priority(9))}, row(0, "GET", "", "/a"), nil},
		{"another host", []*store.Route{row(1, "GET", "", "/a", priority(9)), row(2, "GET", "*.com", "/a", priority(9))}, row(0, "GET", "h.com", "/a"), nil},
		{"more predicates come first but take less", []*store.Route{row(1, "GET", "", "/a", headers("X-A", "1"), priority(9))}, row(0, "GET", "", "/a"), nil},
		{"fewer predicates come later", []*store.Route{row(1, "GET", "", "/a", priority(9))}, row(0, "GET", "", "/a", headers("X-A", "1")), nil},
		{
			"equal predicates",
			[]*store.Route{row(1, "GET", "", "/a", headers("X-A", "1"), query("b", "2"), priority(9))},
			row(0, "GET", "", "/a", headers("x-a", "1"), query("b", "2")),
			[]string{`can never match: route 1 (GET /a) takes all its requests`},
		},
		{
			"presence includes a value",
			[]*store.Route{row(1, "GET", "", "/a", headers("X-A", "*"), priority(9))},
			row(0, "GET", "", "/a", headers("X-A", "1")),
			[]string{`can never match: route 1 (GET /a) takes all its requests`},
		},
		{"a value does not include presence", []*store.Route{row(1, "GET", "", "/a", headers("X-A", "1"), priority(9))}, row(0, "GET", "", "/a", headers("X-A", "*")), nil},
		{"disabled routes take nothing", []*store.Route{row(1, "GET", "", "/a", priority(9), disabled)}, row(0, "GET", "", "/a"), nil},
		{"and lose nothing", []*store.Route{row(1, "GET", "", "/a", priority(9))}, row(0, "GET", "", "/a", disabled), nil},
		{"its own old version", []*store.Route{row(1, "GET", "", "/a", priority(9))}, row(1, "GET", "", "/a"), nil},
		{"hidden before already", []*store.Route{row(1, "GET", "", "/a"), row(2, "GET", "", "/a", priority(1))}, row(0, "GET", "", "/a", priority(2)), []string{`route 2 (GET /a) can never match any more: this route takes all its requests`}},
		{"another notation", nil, row(0, "GET", "", "/users/:id/:x.y"), []string{`the path matches the text ":id"; a parameter is written {id}`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// Other routes on the way give the table more than one shape.
			for _, others := range [][]*store.Route{nil, {row(90, "GET", "", "/zz"), row(91, "GET", "h.com", "/a/b/c"), row(92, "GET", "", "/a/b/c/d"), row(93, "GET", "", "/orders")}} {
				table := routing.NewTable(append(others, tt.rows...), 1)
				if diff := cmp.Diff(tt.want, table.Warnings(mustCompile(t, tt.r))); diff != "" {
					t.Errorf("with %d other routes (-want +got):\n%s", len(others), diff)
				}
			}
		})
	}
}

func TestWarningsAreBounded(t *testing.T) {
	t.Parallel()
	var rows []*store.Route
	for i := range int64(30) {
		rows = append(rows, row(i+1, "GET", "", fmt.Sprintf("/a/{x:[a-z]{%d}}", i+1)))
	}
	got := routing.NewTable(rows, 1).Warnings(mustCompile(t, row(0, "GET", "", "/a/{x:.+}", priority(1))))
	if len(got) != 11 || !strings.Contains(got[10], "20 more routes") {
		t.Errorf("%d warnings, the last is %q", len(got), got[len(got)-1])
	}
}
