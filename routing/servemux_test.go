package routing_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// TestAgainstServeMux takes Go's http.ServeMux as an oracle for sets of patterns
// that both can express. Not compared, since they differ on purpose:
//
//   - sets that ServeMux refuses because neither of two patterns is more specific;
//   - "/a/{r...}" with the path "/a", which only our pattern matches: each set that
//     has the one has a route for the other;
//   - methods of "/a/", which ServeMux allows for "/a", too;
//   - empty segments and dot segments, which ServeMux cleans.
func TestAgainstServeMux(t *testing.T) {
	t.Parallel()
	compared := 0
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
		mux := http.NewServeMux()
		var rows []*store.Route
		known := map[string]bool{}
		// add puts the route into both, and reports whether the mux has it.
		add := func(method, host, ours, theirs string) bool {
			pattern := strings.TrimSpace(method + " " + host + theirs)
			if known[pattern] || !register(mux, pattern) {
				return known[pattern]
			}
			known[pattern] = true
			if method == "" {
				method = "*"
			}
			rows = append(rows, row(int64(len(rows)+1), method, host, ours, named(pattern)))
			return true
		}
		for range 40 {
			method, host := pick("", "GET", "POST", "HEAD"), pick("", "", "h.com", "a.h.com")
			path := ""
			for d := range 1 + rnd.IntN(3) {
				path += "/" + strings.ReplaceAll(pick("a", "b", "c", "{x}"), "x", fmt.Sprintf("x%d", d))
			}
			switch rnd.IntN(5) {
			case 0:
				if add(method, host, path, path) {
					add(method, host, path+"/{r...}", path+"/{r...}")
				}
			case 1:
				add(method, host, path+"/", path+"/{$}")
			default:
				add(method, host, path, path)
			}
		}
		table := routing.NewTable(rows, 1)
		for range 300 {
			path := ""
			for range 1 + rnd.IntN(4) {
				path += "/" + pick("a", "b", "c", "d", "a%2Fb")
			}
			path += pick("", "", "/")
			method, host := pick("GET", "POST", "HEAD", "PUT"), pick("h.com", "a.h.com", "b.com", "h.com:80")
			req := httptest.NewRequest(method, "http://"+host+path, nil)
			h, want := mux.Handler(req)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			if rec.Code >= 300 && rec.Code < 400 {
				continue // ServeMux would rather have a slash at the end
			}
			compared++
			q := request(t, method, host, path)
			got := ""
			if r := table.Match(q); r != nil {
				got = r.Name()
			}
			if got != want {
				t.Fatalf("seed %d: %s %s%s is %q, ServeMux says %q", seed, method, host, path, got, want)
			}
			if got == "" {
				allow := table.Allow(q)
				if !strings.HasSuffix(path, "/") {
					allow = append(allow, table.Allow(request(t, method, host, path+"/"))...)
					slices.Sort(allow)
					allow = slices.Compact(allow)
				}
				if got, want := strings.Join(allow, ", "), rec.Header().Get("Allow"); got != want {
					t.Fatalf("seed %d: %s %s%s allows %q, ServeMux %q", seed, method, host, path, got, want)
				}
			}
		}
	}
	if compared < 10000 {
		t.Errorf("only %d requests compared", compared)
	}
}

// register reports whether the mux takes the pattern.
func register(mux *http.ServeMux, pattern string) (ok bool) {
	defer func() { ok = recover() == nil }()
	mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	return true
}
