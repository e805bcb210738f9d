package routing_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// TestRowsAreKeptWhole gives rows to a route, or to a table, and takes them back.
func TestRowsAreKeptWhole(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 12, 1, 12, 30, 15, 123456789, time.UTC)
	edits := map[string]func(*store.Route){
		"as new":     func(*store.Route) {},
		"texts":      func(r *store.Route) { r.Name, r.MatchKey, r.Method = "héllo", "a key", "get, Post" },
		"long texts": func(r *store.Route) { r.Name, r.TargetURL = strings.Repeat("n", 127), strings.Repeat("t", 70000) },
		"host":       func(r *store.Route) { r.Host = "api.example.com" },
		"other host": func(r *store.Route) { r.Host, r.MatchKey = "API.example.com.", "k" },
		"path":       func(r *store.Route) { r.Path = "/%61/{x}/{y:[a-z]+}/*" },
		"other both": func(r *store.Route) { r.Path, r.Host = "/%61/b", "API.example.com" },
		"match key": func(r *store.Route) {
			r.Host, r.Path, r.Priority, r.MatchKey = "a.example.com", "/%61/{x}/{y:[a-z]+}/*", -3, "its own"
			r.Headers, r.Query = map[string]string{"X-A": "b"}, map[string]string{"a b": "c"}
		},
		"long match key": func(r *store.Route) { r.Path, r.MatchKey = "/"+strings.Repeat("long", 300), "its own" },
		"numbers":        func(r *store.Route) { r.RateLimit, r.Timeout, r.Priority, r.Revision = 7, 0, -3, 1<<40 },
		"large numbers":  func(r *store.Route) { r.RateLimit, r.Timeout = math.MaxInt64, 1<<40 },
		"disabled":       func(r *store.Route) { r.Enabled = false },
		"times":          func(r *store.Route) { r.CreatedAt, r.UpdatedAt = when, when.Add(time.Hour) },
		"far times":      func(r *store.Route) { r.CreatedAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"policies": func(r *store.Route) {
			r.Headers, r.StripPrefix = map[string]string{"X-A": "b"}, true
			r.Upstream = &store.Upstream{Policy: "first"}
		},
		"deleted": func(r *store.Route) { r.DeletedAt = &when },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row := store.NewRoute("/a", "http://10.0.0.1")
			row.ID = 7
			edit(row)
			if row.MatchKey == "its own" {
				var err error
				if row.MatchKey, err = routing.MatchKey(row); err != nil {
					t.Fatal(err)
				}
			}
			route := mustCompile(t, row)
			if diff := cmp.Diff(row, route.Row()); diff != "" {
				t.Errorf("of the route (-want +got):\n%s", diff)
			}
			if route.Name() != row.Name || route.Host() != row.Host || route.Path() != row.Path || route.Timeout() != row.Timeout || route.Enabled() != row.Enabled {
				t.Errorf("the route is called %q, for %q and %q, %d s, enabled %v", route.Name(), route.Host(), route.Path(), route.Timeout(), route.Enabled())
			}
			if diff := cmp.Diff(row.Spec, *route.Spec()); diff != "" {
				t.Errorf("policies (-want +got):\n%s", diff)
			}
			if row.DeletedAt != nil {
				return
			}
			table := routing.NewTable([]*store.Route{row}, 1)
			got, problem, _ := table.Get(7)
			if diff := cmp.Diff(row, got); diff != "" || problem != nil {
				t.Errorf("of the table, with problem %v (-want +got):\n%s", problem, diff)
			}
			// A row that is equal keeps its route.
			twin := *row
			if again := table.Replace([]*store.Route{&twin}, 2); again.Compiled(7) != table.Compiled(7) {
				t.Error("an equal row has got another route")
			}
		})
	}
}

// TestBrokenRowsAreKeptWhole lists rows that don't compile.
func TestBrokenRowsAreKeptWhole(t *testing.T) {
	t.Parallel()
	row := store.NewRoute("/a/{", "http://10.0.0.1")
	row.ID, row.Name, row.Host, row.Labels = 7, "half", "API.example.com:80", map[string]string{"team": "shop"}
	for route := range routing.NewTable([]*store.Route{row}, 1).Routes() {
		if route.Problem() == nil {
			t.Error("the row compiles")
		}
		if route.Name() != row.Name || route.Host() != row.Host || route.Path() != row.Path || !route.Enabled() || route.Spec().Labels["team"] != "shop" {
			t.Errorf("it is called %q, for %q and %q, enabled %v, with %v", route.Name(), route.Host(), route.Path(), route.Enabled(), route.Spec().Labels)
		}
		if diff := cmp.Diff(row, route.Row()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
