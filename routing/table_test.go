package routing_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// headers and query return edits for row that set predicates: name, value, ...
func headers(pairs ...string) func(*store.Route) {
	return func(r *store.Route) { r.Headers = toMap(pairs) }
}

func query(pairs ...string) func(*store.Route) {
	return func(r *store.Route) { r.Query = toMap(pairs) }
}

func priority(n int) func(*store.Route) { return func(r *store.Route) { r.Priority = n } }

func disabled(r *store.Route) { r.Enabled = false }

func toMap(pairs []string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func TestMatch(t *testing.T) {
	t.Parallel()
	type ask struct {
		request string // method, host and path; "-" for no host
		want    int64
	}
	tests := []struct {
		name string
		rows []*store.Route
		asks []ask
	}{
		{
			"hosts",
			[]*store.Route{
				row(1, "GET", "a.example.com", "/x"), row(2, "GET", "*.example.com", "/x"), row(3, "GET", "*.a.example.com", "/x"),
				row(4, "GET", "", "/x"), row(5, "GET", "", "/only-any"), row(6, "GET", "*.example.com", "/wild"), row(7, "GET", "::1", "/x"),
			},
			[]ask{
				{"GET a.example.com /x", 1},
				{"GET A.EXAMPLE.COM.:8080 /x", 1},
				{"GET b.example.com /x", 2},
				{"GET b.c.example.com /x", 2},
				{"GET b.a.example.com /x", 3},
				{"GET c.b.a.example.com /x", 3},
				{"GET example.com /x", 4},
				{"GET .example.com /x", 4},
				{"GET notexample.com /x", 4},
				{"GET - /x", 4},
				{"GET [::1]:80 /x", 7},
				{"GET a.example.com /only-any", 5},
				{"GET a.example.com /wild", 6},
				{"GET b.a.example.com /wild", 6},
				{"GET example.com /wild", 0},
				{"GET " + strings.Repeat("a.", 200) + "example.com /wild", 0},
				{"GET " + strings.Repeat("a.", 200) + "example.com /x", 4},
			},
		},
		{
			"a better host before a better path",
			[]*store.Route{row(1, "GET", "", "/a/b"), row(2, "GET", "h.com", "/*"), row(3, "POST", "h.com", "/a/b")},
			[]ask{{"GET h.com /a/b", 2}, {"GET x.com /a/b", 1}, {"POST h.com /a/b", 3}, {"POST h.com /a", 0}},
		},
		{
			"segment kinds",
			[]*store.Route{
				row(1, "GET", "", "/a/b"), row(2, "GET", "", "/a/{x:b+}"), row(3, "GET", "", "/a/{x}"), row(4, "GET", "", "/a/*"),
				row(5, "GET", "", "/a"), row(6, "GET", "", "/a/"), row(7, "GET", "", "/{x}"), row(8, "GET", "", "/*"), row(9, "GET", "", "/"),
			},
			[]ask{
				{"GET - /a/b", 1}, {"GET - /a/bb", 2}, {"GET - /a/c", 3}, {"GET - /a/b/c", 4}, {"GET - /a", 5}, {"GET - /a/", 6},
				{"GET - /z", 7}, {"GET - /z/", 8}, {"GET - /", 9}, {"GET - /ab/c", 8}, {"GET - /a/b/", 4}, {"GET - /a/%62", 1}, {"GET - /a/b%2Fc", 3},
			},
		},
		{
			"rest matches its own prefix",
			[]*store.Route{row(1, "GET", "", "/a/*"), row(2, "GET", "", "/b/{r...}"), row(3, "GET", "", "/{x}")},
			[]ask{{"GET - /a", 1}, {"GET - /a/", 1}, {"GET - /a/b", 1}, {"GET - /ab", 3}, {"GET - /b", 2}, {"GET - /c", 3}, {"GET - /c/d", 0}},
		},
		{
			"backtracking",
			[]*store.Route{
				row(1, "GET", "", "/a/b/c"), row(2, "GET", "", "/a/{x}/d"), row(3, "GET", "", "/{x}/b/e"), row(4, "GET", "", "/{x:a+}/b/f"), row(5, "GET", "", "/a/*"), row(6, "POST", "", "/{x}/{y}/{z}"),
			},
			[]ask{{"GET - /a/b/c", 1}, {"GET - /a/b/d", 2}, {"GET - /a/b/e", 5}, {"GET - /z/b/e", 3}, {"GET - /aa/b/f", 4}, {"POST - /a/b/c", 6}, {"GET - /z/z/z", 0}},
		},
		{
			"methods",
			[]*store.Route{
				row(1, "*", "", "/m"), row(2, "GET", "", "/m"), row(3, "HEAD", "", "/h"), row(4, "GET", "", "/h"), row(5, "*", "", "/g"), row(6, "GET", "", "/g"),
				row(7, "POST,PURGE", "", "/m"), row(8, "*", "", "/h"),
			},
			[]ask{
				{"GET - /m", 2}, {"HEAD - /m", 2}, {"PUT - /m", 1}, {"POST - /m", 7}, {"PURGE - /m", 7}, {"BAN - /m", 1}, {"get - /m", 1},
				{"HEAD - /h", 3}, {"GET - /h", 4}, {"HEAD - /g", 6}, {"TRACE - /m", 0}, {"CONNECT - /m", 0}, {"PURGE - /g", 5},
			},
		},
		{
			"the right method before a better path",
			[]*store.Route{row(1, "POST", "", "/a/b"), row(2, "GET", "", "/a/{x}"), row(3, "DELETE", "", "/*")},
			[]ask{{"GET - /a/b", 2}, {"POST - /a/b", 1}, {"DELETE - /a/b", 3}, {"PUT - /a/b", 0}},
		},
		{
			"priority and id",
			[]*store.Route{row(4, "GET", "", "/p"), row(3, "GET", "", "/p"), row(5, "GET", "", "/p", priority(1)), row(6, "GET", "", "/q", priority(-1)), row(7, "GET", "", "/q"), row(8, "GET", "", "/{x}", priority(9)), row(9, "GET", "", "/r"), row(2, "GET", "", "/r")},
			[]ask{{"GET - /p", 5}, {"GET - /q", 7}, {"GET - /r", 2}},
		},
		{
			"regexps are even",
			[]*store.Route{
				row(1, "GET", "", "/{a:[a-z]+}/{b}"), row(2, "GET", "", "/{a:[a-m]+}/x"), row(3, "GET", "", "/{a:.+}/x", priority(1)),
				row(4, "*", "", "/{a:[0-9]+}", priority(5)), row(5, "GET", "", "/{a:[0-4]+}"), row(6, "GET", "", "/{a:[a-z]+}/y"),
			},
			[]ask{{"GET - /abc/x", 3}, {"GET - /abc/y", 6}, {"GET - /abc/z", 1}, {"GET - /12", 5}, {"POST - /12", 4}, {"GET - /99", 4}},
		},
		{
			"disabled and deleted rows",
			[]*store.Route{row(1, "GET", "", "/a", disabled), row(2, "GET", "", "/{x}"), row(3, "GET", "", "/b", func(r *store.Route) { r.DeletedAt = new(time.Time) })},
			[]ask{{"GET - /a", 2}, {"GET - /b", 2}},
		},
		{
			"case counts in paths",
			[]*store.Route{row(1, "GET", "", "/Case")},
			[]ask{{"GET - /Case", 1}, {"GET - /case", 0}, {"GET - /CASE", 0}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := routing.NewTable(tt.rows, 1)
			for _, a := range tt.asks {
				f := strings.Fields(a.request)
				q := request(t, f[0], strings.TrimPrefix(f[1], "-"), f[2])
				if got := id(table.Match(q)); got != a.want {
					t.Errorf("%s: route %d, want %d", a.request, got, a.want)
				}
			}
		})
	}
}

func TestMatchPredicates(t *testing.T) {
	t.Parallel()
	table := routing.NewTable([]*store.Route{
		row(1, "GET", "", "/a"),
		row(2, "GET", "", "/a", headers("x-env", "beta")),
		row(3, "GET", "", "/a", headers("X-Env", "*")),
		row(4, "GET", "", "/a", headers("X-Env", "beta", "X-B", "1")),
		row(5, "GET", "", "/a", query("v", "2")),
		row(6, "GET", "", "/a", query("v", "2", "w", "*")),
		row(7, "GET", "", "/a", headers("X-Env", "beta"), query("v", "3")),
		row(8, "GET", "", "/a/{x}", headers("X-Env", "beta")),
		row(9, "GET", "", "/a/b"),
		row(10, "*", "", "/a", headers("X-Env", "beta", "X-B", "1", "X-C", "1")),
		row(11, "GET", "", "/empty", headers("X-Empty", ""), query("e", "")),
	}, 1)
	tests := []struct {
		path, query string
		header      http.Header
		want        int64
	}{
		{"/a", "", nil, 1},
		{"/a", "", http.Header{"X-Env": {"beta"}}, 2},
		{"/a", "", http.Header{"X-Env": {"other", "beta"}}, 2},
		{"/a", "", http.Header{"X-Env": {"BETA"}}, 3},
		{"/a", "", http.Header{"X-Env": {"beta,gamma"}}, 3},
		{"/a", "", http.Header{"X-Env": {""}}, 3},
		{"/a", "", http.Header{"X-Env": {}}, 1},
		{"/a", "", http.Header{"X-Env": {"beta"}, "X-B": {"1"}}, 4},
		{"/a", "", http.Header{"X-Env": {"beta"}, "X-B": {"1"}, "X-C": {"1"}}, 4},
		{"/a", "v=2", nil, 5},
		{"/a", "v=1&v=2", nil, 5},
		{"/a", "v=%32", nil, 5},
		{"/a", "v=2&w", nil, 6},
		{"/a", "v=2&w=x", nil, 6},
		{"/a", "V=2", nil, 1},
		{"/a", "v=2;w=x", nil, 1},
		{"/a", "v=2&w=1;x", nil, 6},
		{"/a", "v=2&w=%zz", nil, 6},
		{"/a", "v=2&%77=1%zz", nil, 6},
		{"/a", "v=2&w" + strings.Repeat("&", 9_998), nil, 6},
		{"/a", "%zz&v=2", nil, 5},
		{"/a", "v=2", http.Header{"X-Env": {"beta"}}, 2},
		{"/a", "v=3", http.Header{"X-Env": {"beta"}}, 7},
		{"/a/b", "", http.Header{"X-Env": {"beta"}}, 9},
		{"/a/c", "", http.Header{"X-Env": {"beta"}}, 8},
		{"/a/c", "", nil, 0},
		{"/empty", "e", http.Header{"X-Empty": {""}}, 11},
		{"/empty", "e=", http.Header{"X-Empty": {""}}, 11},
		{"/empty", "e=1", http.Header{"X-Empty": {""}}, 0},
		{"/empty", "e", nil, 0},
	}
	for _, tt := range tests {
		q := request(t, "GET", "", tt.path)
		q.RawQuery, q.Header = tt.query, tt.header
		if got := id(table.Match(q)); got != tt.want {
			t.Errorf("%s?%s %v: route %d, want %d", tt.path, tt.query, tt.header, got, tt.want)
		}
	}
}

func TestQueryOfVeryManyParameters(t *testing.T) {
	t.Parallel()
	table := routing.NewTable([]*store.Route{row(1, "GET", "", "/a", query("v", "1")), row(2, "GET", "", "/b")}, 1)
	for path, wantProblem := range map[string]bool{"/a": true, "/b": false} {
		q := request(t, "GET", "", path)
		q.RawQuery = "v=1" + strings.Repeat("&", 10_000)
		table.Match(q)
		if (q.Problem() != nil) != wantProblem {
			t.Errorf("%s: the problem is %v", path, q.Problem())
		}
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	table := routing.NewTable([]*store.Route{
		row(1, "GET", "", "/a"),
		row(2, "POST,PURGE", "h.com", "/a"),
		row(3, "PUT", "*.com", "/{x}"),
		row(4, "DELETE", "", "/{x:a+}"),
		row(5, "PATCH", "", "/*"),
		row(6, "OPTIONS", "", "/a", headers("X-Env", "beta")),
		row(7, "LOCK", "", "/a", disabled),
		row(8, "*", "star.com", "/s"),
		row(9, "GET", "", "/b/c"),
	}, 1)
	tests := []struct {
		method, host, path string
		want               []string
	}{
		{"LINK", "h.com", "/a", []string{"DELETE", "GET", "HEAD", "PATCH", "POST", "PURGE", "PUT"}},
		{"LINK", "", "/a", []string{"DELETE", "GET", "HEAD", "PATCH"}},
		{"LINK", "", "/b", []string{"PATCH"}},
		{"LINK", "", "/b/c", []string{"GET", "HEAD", "PATCH"}},
		{"TRACE", "star.com", "/s", []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}},
	}
	for _, tt := range tests {
		q := request(t, tt.method, tt.host, tt.path)
		if r := table.Match(q); r != nil {
			t.Errorf("%s %s%s: route %d", tt.method, tt.host, tt.path, r.ID)
		}
		if diff := cmp.Diff(tt.want, table.Allow(q)); diff != "" {
			t.Errorf("%s %s%s (-want +got):\n%s", tt.method, tt.host, tt.path, diff)
		}
	}
	q := request(t, "OPTIONS", "", "/a")
	q.Header = http.Header{"X-Env": {"beta"}}
	if got := id(table.Match(q)); got != 6 {
		t.Errorf("with the header: route %d", got)
	}
	if got := routing.NewTable(nil, 1).Allow(q); len(got) != 0 {
		t.Errorf("an empty table allows %v", got)
	}
}

// Caddy's own host matcher changes its algorithm above 100 hosts, and was once
// case-sensitive only then.
func TestManyHostsInMixedCase(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 99, 100, 101, 102, 5000} {
		var rows []*store.Route
		for i := range n {
			rows = append(rows, row(int64(i+1), "GET", fmt.Sprintf("Host%d.Example.COM", i), "/x"))
			rows = append(rows, row(int64(n+i+1), "GET", fmt.Sprintf("*.Wild%d.Example.COM", i), "/x"))
		}
		table := routing.NewTable(rows, 1)
		for i := range n {
			for _, host := range []string{"host%d.example.com", "HOST%d.EXAMPLE.COM:443", "hOsT%d.eXample.com."} {
				if got := id(table.Match(request(t, "GET", fmt.Sprintf(host, i), "/x"))); got != int64(i+1) {
					t.Fatalf("%d hosts: %s is route %d", n, fmt.Sprintf(host, i), got)
				}
			}
			if got := id(table.Match(request(t, "GET", fmt.Sprintf("A.wILD%d.example.com", i), "/x"))); got != int64(n+i+1) {
				t.Fatalf("%d hosts: wildcard %d is route %d", n, i, got)
			}
		}
	}
}

func TestBadRowsDisturbNobody(t *testing.T) {
	t.Parallel()
	var rows []*store.Route
	for i := range int64(10000) {
		rows = append(rows, row(i+1, "GET", "", fmt.Sprintf("/r%d/{id}", i)))
	}
	rows[4999].Path = "/r4999/{id"
	rows = append(rows, row(20000, "GET", "", "/decode", func(r *store.Route) { r.DecodeError = "spec: unknown field" }))
	table := routing.NewTable(rows, 7)
	if table.Len() != 10001 || table.Served() != 9999 || table.Broken() != 2 || table.Revision() != 7 {
		t.Errorf("length %d, served %d, broken %d, revision %d", table.Len(), table.Served(), table.Broken(), table.Revision())
	}
	for i := range int64(10000) {
		want := i + 1
		if i == 4999 {
			want = 0
		}
		if got := id(table.Match(request(t, "GET", "", fmt.Sprintf("/r%d/1", i)))); got != want {
			t.Fatalf("/r%d/1 is route %d, want %d", i, got, want)
		}
	}
	got, problem, ok := table.Get(5000)
	if !ok || got != rows[4999] || !errors.Is(problem, store.ErrInvalid) {
		t.Errorf("Get(5000) = %v, %v, %v", got, problem, ok)
	}
	if _, problem, ok := table.Get(20000); !ok || !strings.Contains(problem.Error(), "unknown field") {
		t.Errorf("Get(20000): %v, %v", problem, ok)
	}
	if got, problem, ok := table.Get(1); !ok || !reflect.DeepEqual(got, rows[0]) || problem != nil {
		t.Errorf("Get(1) = %v, %v, %v", got, problem, ok)
	}
	if _, _, ok := table.Get(99999); ok {
		t.Error("Get(99999) found a row")
	}
	rowsSeen, problems := 0, 0
	for _, problem := range table.All() {
		rowsSeen++
		if problem != nil {
			problems++
		}
	}
	if rowsSeen != 10001 || problems != 2 {
		t.Errorf("All yields %d rows, %d with a problem", rowsSeen, problems)
	}
	for range table.All() {
		break
	}
	broken := func(table *routing.Table) (ids []int64) {
		for row, problem := range table.Problems() {
			if problem == nil {
				t.Errorf("Problems yields route %d, which has none", row.ID)
			}
			ids = append(ids, row.ID)
		}
		slices.Sort(ids)
		return ids
	}
	if diff := cmp.Diff([]int64{5000, 20000}, broken(table)); diff != "" {
		t.Error(diff)
	}
	for range table.Problems() {
		break
	}

	fixed := *rows[4999]
	fixed.Path, fixed.Revision = "/fixed", 8
	next := table.Apply([]*store.Route{&fixed}, 8)
	if next.Served() != 10000 || next.Broken() != 1 || id(next.Match(request(t, "GET", "", "/fixed"))) != 5000 {
		t.Errorf("after the repair: served %d, broken %d", next.Served(), next.Broken())
	}
	if diff := cmp.Diff([][]int64{{20000}, {5000, 20000}}, [][]int64{broken(next), broken(table)}); diff != "" {
		t.Errorf("broken in the new table and in the old one: %s", diff)
	}
}

func TestApplyKeepsIdentity(t *testing.T) {
	t.Parallel()
	rows := []*store.Route{row(1, "GET", "", "/a"), row(2, "GET", "", "/b/{x:[0-9]+}"), row(3, "GET", "", "/c")}
	t1 := routing.NewTable(rows, 3)
	match := func(table *routing.Table, path string) *routing.Route {
		return table.Match(request(t, "GET", "", path))
	}

	again := *rows[0]
	changed := *rows[2]
	changed.Revision, changed.TargetURL = 4, "http://127.0.0.1:10"
	t2 := t1.Apply([]*store.Route{&again, &changed}, 4)
	if match(t2, "/a") != match(t1, "/a") || match(t2, "/b/1") != match(t1, "/b/1") {
		t.Error("an unchanged row has another *Route")
	}
	if r := match(t2, "/c"); r == match(t1, "/c") || r.Row().TargetURL != changed.TargetURL {
		t.Errorf("the changed row is %+v", r)
	}
	if t1.Revision() != 3 || t2.Revision() != 4 || match(t1, "/c").Row().TargetURL == changed.TargetURL {
		t.Error("the old table has changed")
	}

	deleted := *rows[1]
	deleted.Revision, deleted.DeletedAt = 5, new(time.Time)
	t3 := t2.Apply([]*store.Route{&deleted, {ID: 77, DeletedAt: new(time.Time)}}, 5)
	if match(t3, "/b/1") != nil || match(t2, "/b/1") == nil || t3.Len() != 2 || t3.Served() != 2 {
		t.Error("deletion failed")
	}

	equal, other := *rows[0], changed
	other.Headers = map[string]string{"X-A": "1"} // at an equal revision, as after the restore of a dump
	t4 := t3.Replace([]*store.Route{&equal, &other, row(9, "GET", "", "/n")}, 2)
	if match(t4, "/a") != match(t3, "/a") {
		t.Error("Replace made another *Route of an equal row")
	}
	if match(t4, "/c") != nil || id(match(t4, "/n")) != 9 || t4.Revision() != 2 || t4.Len() != 3 {
		t.Error("Replace kept something old")
	}
}

func TestDuplicateIDs(t *testing.T) {
	t.Parallel()
	table := routing.NewTable([]*store.Route{row(1, "GET", "", "/a"), row(1, "GET", "", "/b")}, 1)
	if table.Len() != 1 || table.Served() != 1 || table.Match(request(t, "GET", "", "/a")) != nil || id(table.Match(request(t, "GET", "", "/b"))) != 1 {
		t.Error("the last row with an id does not replace the first")
	}
}

func TestMatchAllocations(t *testing.T) {
	rows := []*store.Route{
		row(1, "GET", "h.com", "/a/b"), row(2, "GET", "*.h.com", "/{x}/{y:[a-z]+}"), row(3, "POST", "", "/a/*", headers("X-A", "1")), row(4, "GET", "", "/a/{x}/c"),
	}
	for i := range int64(200) {
		rows = append(rows, row(100+i, "GET", "", "/a/{x}/{y}", priority(int(i)), headers("X-A", fmt.Sprint(i))))
	}
	table := routing.NewTable(rows, 1)
	for _, q := range []*routing.Request{
		request(t, "GET", "h.com", "/a/b"), request(t, "GET", "x.y.h.com", "/p/q"), request(t, "POST", "z.com", "/a/b/c/d"), request(t, "GET", "", "/a/b/d"), request(t, "GET", "", "/none"),
	} {
		q.Header = http.Header{"X-A": {"1"}}
		if n := testing.AllocsPerRun(100, func() { table.Match(q) }); n != 0 {
			t.Errorf("%s %s%s allocates %v times", q.Method, q.Host, q.Path, n)
		}
	}
}

// TestLongRuns has more literal segments in a row than are looked for at once, and
// branches at all of them, through additions and removals.
func TestLongRuns(t *testing.T) {
	t.Parallel()
	var rows []*store.Route
	path := ""
	for i := range 40 {
		path += "/" + string(rune('a'+i%3))
		rows = append(rows,
			row(int64(3*i+1), "GET", "", path),
			row(int64(3*i+2), "GET", "", path+"/{p}"),
			row(int64(3*i+3), "GET", "", path+"/{p}/end"))
	}
	check := func(table *routing.Table, gone func(id int64) bool) {
		t.Helper()
		for _, want := range rows {
			q := &routing.Request{Method: "GET", Path: strings.ReplaceAll(want.Path, "{p}", "x")}
			got := table.Match(q)
			if gone(want.ID) != (got == nil || got.ID != want.ID) {
				t.Errorf("%s finds %v, want route %d", q.Path, got, want.ID)
			}
		}
	}
	table := routing.NewTable(rows, 1)
	check(table, func(int64) bool { return false })
	now := time.Now()
	var changed []*store.Route
	for _, was := range rows {
		if was.ID%2 == 0 {
			deleted := *was
			deleted.DeletedAt, deleted.Revision = &now, 2
			changed = append(changed, &deleted)
		}
	}
	without := table.Apply(changed, 2)
	check(without, func(id int64) bool { return id%2 == 0 })
	for _, row := range changed {
		row.DeletedAt, row.Revision = nil, 3
	}
	check(without.Apply(changed, 3), func(int64) bool { return false })
	check(table, func(int64) bool { return false })
}
