package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/store"
)

func newRoute(path string, change ...func(*store.Route)) *store.Route {
	r := store.NewRoute(path, "http://a")
	r.MatchKey = path
	for _, c := range change {
		c(r)
	}
	return r
}

// now returns the state that the edits of a test are made for.
func now(t *testing.T, s store.Store) int64 {
	t.Helper()
	return must[int64](t)(s.Revision(t.Context()))
}

func apply(t *testing.T, s store.Store, edits store.Edits) *store.Applied {
	t.Helper()
	return must[*store.Applied](t)(s.Apply(t.Context(), edits, now(t, s), admin))
}

func load(t *testing.T, s store.Store) []*store.Route {
	t.Helper()
	routes, _, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return routes
}

func testApply(t *testing.T, open Opener) {
	s := open(t)
	keep, change, remove, back := create(t, s, newRoute("/keep")), create(t, s, newRoute("/change")), create(t, s, newRoute("/remove")), create(t, s, newRoute("/back"))
	must[int64](t)(s.Delete(t.Context(), back.ID, 0, admin))

	changed, restored, full := fullRoute(), newRoute("/back", func(r *store.Route) { r.Timeout = 7 }), fullRoute()
	changed.ID, restored.ID, full.Path, full.MatchKey = change.ID, back.ID, "/full", "full"
	done := apply(t, s, store.Edits{
		Create: []*store.Route{newRoute("/b"), newRoute("/a"), full},
		Update: []*store.Route{changed, restored},
		Delete: []int64{remove.ID},
	})
	if done.Revision != 6 || now(t, s) != 6 || len(done.Created) != 3 {
		t.Fatalf("applied %+v", done)
	}
	after := load(t, s)
	var paths []string
	for _, r := range after {
		paths = append(paths, fmt.Sprint(r.ID, r.Path))
	}
	want := []string{
		fmt.Sprint(keep.ID, "/keep"), fmt.Sprint(change.ID, changed.Path), fmt.Sprint(back.ID, "/back"),
		fmt.Sprint(done.Created[0], "/b"), fmt.Sprint(done.Created[1], "/a"), fmt.Sprint(done.Created[2], "/full"),
	}
	slices.Sort(paths)
	slices.Sort(want)
	if d := cmp.Diff(want, paths); d != "" {
		t.Error(d)
	}
	for _, r := range after {
		switch r.ID {
		case keep.ID:
			if d := diff(keep, r); d != "" {
				t.Errorf("the route that was not named: %s", d)
			}
			continue
		case change.ID:
			if d := diffContent(changed, r); d != "" {
				t.Error(d)
			}
			if !r.CreatedAt.Equal(change.CreatedAt) {
				t.Error("an update changes when the route was made")
			}
		case back.ID:
			if d := diffContent(restored, r); d != "" {
				t.Error(d)
			}
		case done.Created[2]:
			if d := diffContent(full, r); d != "" {
				t.Error(d)
			}
		}
		if r.Revision != 6 || !isRecentUTC(r.UpdatedAt) {
			t.Errorf("route %d is at revision %d, changed at %v", r.ID, r.Revision, r.UpdatedAt)
		}
	}
	// What is returned is what other processes are told.
	told := must[*store.Changes](t)(s.Changes(t.Context(), 5))
	if d := diff(told.Routes, done.Routes); d != "" || told.Revision != 6 {
		t.Errorf("revision %d: %s", told.Revision, d)
	}
	if len(done.Routes) != 6 {
		t.Errorf("%d routes changed", len(done.Routes))
	}
}

func testApplyStale(t *testing.T, open Opener) {
	s := open(t)
	create(t, s, newRoute("/a"))
	for _, at := range []int64{0, 2} {
		_, err := s.Apply(t.Context(), store.Edits{Create: []*store.Route{newRoute("/b")}}, at, admin)
		wantError(t, err, store.ErrStale)
	}
	if n := now(t, s); n != 1 || len(load(t, s)) != 1 {
		t.Errorf("revision %d", n)
	}
}

func testApplyIsAtomic(t *testing.T, open Opener) {
	s := open(t)
	a := create(t, s, newRoute("/a"))
	missing := newRoute("/x")
	missing.ID = a.ID + 1000
	for _, test := range []struct {
		edits store.Edits
		want  error
	}{
		{store.Edits{Create: []*store.Route{newRoute("/b")}, Update: []*store.Route{missing}}, store.ErrNotFound},
		{store.Edits{Create: []*store.Route{newRoute("/b")}, Delete: []int64{missing.ID}}, store.ErrNotFound},
		{store.Edits{Create: []*store.Route{newRoute("/b"), newRoute("/b")}}, store.ErrConflict},
		{store.Edits{Create: []*store.Route{newRoute("/b"), newRoute("/a")}}, store.ErrConflict},
		{store.Edits{Create: []*store.Route{newRoute("/b"), newRoute("/\x00")}}, store.ErrInvalid},
	} {
		_, err := s.Apply(t.Context(), test.edits, 1, admin)
		wantError(t, err, test.want)
	}
	if d := diff([]*store.Route{a}, load(t, s)); d != "" || now(t, s) != 1 {
		t.Error(d)
	}
}

func testApplySwaps(t *testing.T, open Opener) {
	s := open(t)
	a, b, c := create(t, s, newRoute("/a")), create(t, s, newRoute("/b")), create(t, s, newRoute("/c"))
	moved := func(r *store.Route, to string) *store.Route {
		m := newRoute(to)
		m.ID = r.ID
		return m
	}
	// A ring, into which a new route comes, and out of which one goes.
	done := must[*store.Applied](t)(s.Apply(t.Context(), store.Edits{
		Update: []*store.Route{moved(a, "/b"), moved(b, "/a")},
		Delete: []int64{c.ID},
		Create: []*store.Route{newRoute("/c")},
	}, 3, store.Author{Actor: "anna", Source: "192.0.2.7"}))
	got := make(map[int64]string)
	for _, r := range load(t, s) {
		got[r.ID] = r.Path
	}
	if d := cmp.Diff(map[int64]string{a.ID: "/b", b.ID: "/a", done.Created[0]: "/c"}, got); d != "" {
		t.Error(d)
	}
	// The history tells the change as a whole, not how it was made.
	for _, change := range must[[]store.Change](t)(s.History(t.Context(), 0, 4)) {
		var op, was, is string
		if op = change.Op; change.Before != nil {
			was = change.Before.Path
		}
		if change.After != nil {
			is = change.After.Path
		}
		want := map[int64]string{a.ID: "update /a /b", b.ID: "update /b /a", c.ID: "delete /c ", done.Created[0]: "create  /c"}[change.RouteID]
		if got := op + " " + was + " " + is; got != want || change.Actor != "anna" || change.Source != "192.0.2.7" {
			t.Errorf("route %d: %q by %s from %s, want %q", change.RouteID, got, change.Actor, change.Source, want)
		}
	}
}

func testApplyMany(t *testing.T, open Opener) {
	s := open(t)
	const n = 10_000
	routes := make([]*store.Route, n)
	for i := range routes {
		routes[i] = newRoute(fmt.Sprint("/", i))
	}
	begin := time.Now()
	done := apply(t, s, store.Edits{Create: routes})
	t.Logf("creating %d routes took %v", n, time.Since(begin))
	if done.Revision != 1 || len(done.Created) != n || len(load(t, s)) != n {
		t.Fatalf("revision %d, %d created", done.Revision, len(done.Created))
	}
	for i, r := range routes {
		if r.ID = done.Created[i]; r.ID == 0 {
			t.Fatalf("route %d has no id", i)
		}
		r.Timeout = 99
	}
	begin = time.Now()
	apply(t, s, store.Edits{Update: routes})
	t.Logf("updating them took %v", time.Since(begin))
	begin = time.Now()
	apply(t, s, store.Edits{Delete: done.Created})
	t.Logf("deleting them took %v", time.Since(begin))
	if n := now(t, s); n != 3 || len(load(t, s)) != 0 {
		t.Errorf("revision %d", n)
	}
}
