package routing_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// naiveTable is the order of routes written down as plainly as possible: it looks
// at every route and sorts those that match.
type naiveTable map[int64]*store.Route

var naivePatterns sync.Map // by text: *routing.Pattern, nil for a bad one

func naivePattern(text string) *routing.Pattern {
	if p, ok := naivePatterns.Load(text); ok {
		return p.(*routing.Pattern)
	}
	p, _ := routing.ParsePattern(text)
	naivePatterns.Store(text, p)
	return p
}

// score is what a route is sorted by, smaller first.
type score []int

func (n naiveTable) match(t *testing.T, q *routing.Request) int64 {
	best, bestScore := int64(0), score(nil)
	for id, r := range n {
		if s := naiveScore(t, r, q, false); s != nil && (bestScore == nil || slices.Compare(s, bestScore) < 0) {
			best, bestScore = id, s
		}
	}
	return best
}

func (n naiveTable) allow(t *testing.T, q *routing.Request) []string {
	found := map[string]bool{}
	for _, r := range n {
		if naiveScore(t, r, q, true) == nil {
			continue
		}
		for m := range strings.SplitSeq(r.Method, ",") {
			if m == "*" {
				for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
					found[m] = true
				}
				continue
			}
			found[m] = true
			if m == "GET" {
				found["HEAD"] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func naiveScore(t *testing.T, r *store.Route, q *routing.Request, anyMethod bool) score {
	if !r.Enabled {
		return nil
	}
	p := naivePattern(r.Path)
	if p == nil {
		return nil // a broken row
	}
	host := naiveHost(r.Host, q.Host)
	method := naiveMethod(r.Method, q.Method)
	if anyMethod {
		method = 0
	}
	if host < 0 || method < 0 || !p.Match(q.Path) || !naivePredicates(r, q) {
		return nil
	}
	s := score{-host}
	for _, seg := range strings.Split(strings.ReplaceAll(r.Path, ".*/.*", ".*"), "/")[1:] {
		switch {
		case seg == "*" || strings.HasSuffix(seg, "...}"):
			s = append(s, 4)
		case strings.Contains(seg, ":"):
			s = append(s, 2)
		case strings.Contains(seg, "{"):
			s = append(s, 3)
		default:
			s = append(s, 1)
		}
	}
	for len(s) < 10 {
		s = append(s, 0)
	}
	return append(s, method, -len(r.Headers), -len(r.Query), -r.Priority, int(r.ID))
}

// naiveHost returns how specific a matching host is, -1 for none.
func naiveHost(pattern, host string) int {
	suffix, isWild := strings.CutPrefix(pattern, "*")
	switch {
	case pattern == "":
		return 0
	case isWild && len(host) > len(suffix) && strings.HasSuffix(host, suffix):
		return len(suffix)
	case pattern == host:
		return 1000
	}
	return -1
}

func naiveMethod(methods, method string) int {
	names := strings.Split(methods, ",")
	switch {
	case method == "TRACE" || method == "CONNECT":
		return -1
	case slices.Contains(names, method):
		return 0
	case method == "HEAD" && slices.Contains(names, "GET"):
		return 1
	case methods == "*":
		return 2
	}
	return -1
}

func naivePredicates(r *store.Route, q *routing.Request) bool {
	values, _ := url.ParseQuery(strings.ReplaceAll(q.RawQuery, "%zz", "%25zz"))
	for name, want := range r.Headers {
		if got := q.Header.Values(name); len(got) == 0 || want != "*" && !slices.Contains(got, want) {
			return false
		}
	}
	for name, want := range r.Query {
		if got := values[name]; len(got) == 0 || want != "*" && !slices.Contains(got, want) {
			return false
		}
	}
	return true
}

// randomRoutes makes routes and requests over an alphabet so small that they
// overlap all the time.
type randomRoutes struct{ *rand.Rand }

func (g randomRoutes) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g randomRoutes) path() string {
	var b strings.Builder
	depth := 1 + g.IntN(4)
	for i := range depth {
		seg := g.pick("a", "a", "b", "ab", "{x}", "{x}", "{x:a+}", "{x:.+}", "{x:[ab]+}", "{x:.*/.*}")
		b.WriteString("/" + strings.ReplaceAll(seg, "x", "x"+string(rune('0'+i))))
	}
	b.WriteString(g.pick("", "", "", "/", "/*", "/{r...}"))
	if s := b.String(); g.IntN(20) > 0 {
		return s
	}
	return g.pick("/", "/*", "/{r...}")
}

func (g randomRoutes) row(id, revision int64) *store.Route {
	r := row(id, g.pick("GET", "GET", "POST", "GET,POST", "*", "HEAD", "PURGE", "PURGE,GET"),
		g.pick("", "", "a.x", "b.a.x", "*.x", "*.a.x"), g.path(), priority(g.IntN(3)))
	r.Revision = revision
	if g.IntN(4) == 0 {
		r.Headers = map[string]string{g.pick("X-A", "X-B"): g.pick("1", "2", "*")}
	}
	if g.IntN(6) == 0 {
		r.Query = map[string]string{g.pick("a", "b"): g.pick("1", "2", "*")}
	}
	r.Enabled = g.IntN(10) > 0
	if g.IntN(50) == 0 {
		r.Path = "/{broken"
	}
	return r
}

func (g randomRoutes) request() *routing.Request {
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString("/" + g.pick("a", "b", "ab", "c", "a%2Fb", "aa", "%C3%A9"))
	}
	b.WriteString(g.pick("", "", "", "/"))
	if g.IntN(20) == 0 {
		b.Reset()
		b.WriteByte('/')
	}
	q := &routing.Request{
		Method: g.pick("GET", "GET", "POST", "HEAD", "PURGE", "PUT", "TRACE", "CONNECT"),
		Host:   g.pick("", "a.x", "b.a.x", "c.a.x", "x", "c.x", "y", "c.c.a.x"),
		Path:   b.String(),
		Header: http.Header{},
	}
	for range g.IntN(3) {
		q.Header.Add(g.pick("X-A", "X-B"), g.pick("1", "2", "3"))
	}
	q.RawQuery = g.pick("", "", "a=1", "b=2", "a=2&b=1", "a=1&a=2", "%zz&a=1", "a=%zz")
	return q
}

// compareTables asks both tables the same questions.
func compareTables(t *testing.T, g randomRoutes, what string, table *routing.Table, naive naiveTable, n int) {
	t.Helper()
	for range n {
		q := g.request()
		got, want := id(table.Match(q)), naive.match(t, q)
		if got != want {
			t.Fatalf("%s: %s %s %s ?%s %v is route %d (%s), want %d (%s)", what, q.Method, q.Host, q.Path, q.RawQuery, q.Header,
				got, describe(naive[got]), want, describe(naive[want]))
		}
		if want == 0 {
			if got, want := table.Allow(q), naive.allow(t, q); !slices.Equal(got, want) {
				t.Fatalf("%s: %s %s %s ?%s %v allows %v, want %v", what, q.Method, q.Host, q.Path, q.RawQuery, q.Header, got, want)
			}
		}
	}
}

func describe(r *store.Route) string {
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("%s %s%s headers %v query %v priority %d", r.Method, r.Host, r.Path, r.Headers, r.Query, r.Priority)
}

// TestAgainstNaiveMatcher applies random changes, and compares every table with
// the naive matcher, with a fresh build, and, at the end, all old tables with what
// they were.
func TestAgainstNaiveMatcher(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			g := randomRoutes{rand.New(rand.NewPCG(seed, 1))}
			naive := naiveTable{}
			table := routing.NewTable(nil, 0)
			size := int64(5 + g.IntN(120))
			type version struct {
				table *routing.Table
				naive naiveTable
			}
			var versions []version
			for revision := range int64(25) {
				var changed []*store.Route
				for range 1 + g.IntN(30) {
					r := g.row(1+g.Int64N(size), revision*1000+int64(len(changed)))
					if g.IntN(4) == 0 {
						r.DeletedAt = new(time.Time)
						delete(naive, r.ID)
					} else {
						naive[r.ID] = r
					}
					changed = append(changed, r)
				}
				table = table.Apply(changed, revision)
				versions = append(versions, version{table, maps.Clone(naive)})
				compareTables(t, g, "after Apply", table, naive, 40)
				fresh := routing.NewTable(slices.Collect(maps.Values(naive)), revision)
				compareTables(t, g, "built anew", fresh, naive, 20)
				if got, want := []int{table.Len(), table.Served(), table.Broken()}, []int{fresh.Len(), fresh.Served(), fresh.Broken()}; !slices.Equal(got, want) {
					t.Fatalf("counts %v, want %v", got, want)
				}
			}
			for i, v := range versions {
				compareTables(t, g, fmt.Sprintf("old table %d", i), v.table, v.naive, 30)
			}
			for _, r := range naive {
				d := *r
				d.Revision++
				d.DeletedAt = new(time.Time)
				table = table.Apply([]*store.Route{&d}, 99)
			}
			if table.Len() != 0 || table.Served() != 0 || table.Broken() != 0 || table.Match(g.request()) != nil {
				t.Error("a table is not empty after all its rows are deleted")
			}
		})
	}
}

// TestWarningsAreTrue shows that a route that is said never to match never does,
// and that one that a warning-free write would hide is not.
func TestWarningsAreTrue(t *testing.T) {
	t.Parallel()
	warned := 0
	for seed := range uint64(40) {
		g := randomRoutes{rand.New(rand.NewPCG(seed, 2))}
		var rows []*store.Route
		for i := range int64(60) {
			r := g.row(i+1, i)
			if g.IntN(2) == 0 {
				r.Host = ""
				r.Path = g.pick("/a", "/{x}", "/{x:.+}", "/{x:a+}", "/a/*")
			}
			rows = append(rows, r)
		}
		table := routing.NewTable(rows, 1)
		hits := map[int64]bool{}
		for range 2500 {
			hits[id(table.Match(g.request()))] = true
		}
		for _, r := range rows {
			c, err := routing.Compile(r)
			if err != nil {
				continue
			}
			for _, w := range table.Warnings(c) {
				if !strings.HasPrefix(w, "can never match: ") {
					continue
				}
				warned++
				if hits[r.ID] {
					t.Errorf("seed %d: route %d %s matches, though: %s", seed, r.ID, describe(r), w)
				}
			}
		}
	}
	if warned < 50 {
		t.Errorf("only %d warnings: the test shows nothing", warned)
	}
}

// A small sanity check of the oracle itself.
func TestNaiveScore(t *testing.T) {
	t.Parallel()
	q := request(t, "GET", "b.a.x", "/a/b")
	order := []*store.Route{
		row(9, "GET", "b.a.x", "/*"), row(8, "GET", "*.a.x", "/a/b"), row(7, "GET", "*.x", "/a/b"), row(6, "GET", "", "/a/b"),
		row(5, "GET", "", "/a/{x:b}"), row(4, "GET", "", "/a/{x}"), row(3, "GET", "", "/a/*"), row(2, "GET", "", "/{x}/b"), row(1, "*", "", "/{x}/b"),
	}
	sorted := slices.Clone(order)
	slices.SortFunc(sorted, func(a, b *store.Route) int {
		return cmp.Or(slices.Compare(naiveScore(t, a, q, false), naiveScore(t, b, q, false)))
	})
	if !slices.Equal(sorted, order) {
		t.Error("the naive matcher sorts in another order than the package documents")
	}
}
