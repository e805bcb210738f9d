package routing_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

var braces = regexp.MustCompile(`\{[^}]*\}`)

// TestAPIs replays requests of well-known APIs. A file lists routes, then requests
// with the route that serves them.
func TestAPIs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			routes, requests, _ := strings.Cut(string(text), "# requests\n")
			var rows []*store.Route
			for line := range strings.Lines(routes) {
				if f := strings.Fields(line); len(f) == 2 {
					rows = append(rows, row(int64(len(rows)+1), f[0], "", f[1], named(strings.Join(f, " "))))
				}
			}
			table := routing.NewTable(rows, 1)
			if table.Served() != len(rows) {
				t.Fatalf("%d of %d routes are served", table.Served(), len(rows))
			}
			check := func(method, path, want string) {
				got := "none"
				if r := table.Match(request(t, method, "", path)); r != nil {
					got = r.Name()
				}
				if got != want {
					t.Errorf("%s %s is %s, want %s", method, path, got, want)
				}
			}
			for _, r := range rows {
				c := mustCompile(t, r)
				if w := table.Warnings(c); len(w) > 0 || table.Conflict(c) != nil {
					t.Errorf("%s: warnings %q, conflict %v", r.Name, w, table.Conflict(c))
				}
				for method := range strings.SplitSeq(r.Method, ",") {
					check(strings.ReplaceAll(method, "*", "PATCH"), braces.ReplaceAllString(r.Path, "42"), r.Name)
				}
			}
			for line := range strings.Lines(requests) {
				ask, want, _ := strings.Cut(strings.TrimSpace(line), "=")
				f := strings.Fields(ask)
				check(f[0], f[1], strings.TrimSpace(want))
			}
		})
	}
}
