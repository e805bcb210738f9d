package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/store"
)

func isCancelled(err error) bool { return errors.Is(err, context.Canceled) }

func seeds(n int) []*store.Route {
	routes := make([]*store.Route, n)
	for i := range routes {
		routes[i] = store.NewRoute(fmt.Sprintf("/%d", i), "http://a")
		routes[i].MatchKey = routes[i].Path
	}
	return routes
}

func testSeed(t *testing.T, open Opener) {
	s := open(t)
	if must[bool](t)(s.Seed(t.Context(), nil, admin)) {
		t.Error("seeded with nothing")
	}
	if !must[bool](t)(s.Seed(t.Context(), seeds(3), admin)) {
		t.Fatal("an empty store was not seeded")
	}
	routes, revision, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if revision != 1 {
		t.Errorf("revision %d, want 1", revision)
	}
	if d := diffContent(seeds(3), routes); d != "" {
		t.Error(d)
	}
	for _, r := range routes {
		if r.Revision != 1 {
			t.Errorf("route %d is at revision %d, want 1", r.ID, r.Revision)
		}
	}
}

func testSeedOnce(t *testing.T, open Opener) {
	s := open(t)
	var done atomic.Int32
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			seeded, err := s.Seed(t.Context(), seeds(5), admin)
			if err != nil {
				t.Error(err)
			}
			if seeded {
				done.Add(1)
			}
		})
	}
	all.Wait()
	routes, revision, err := s.Load(t.Context())
	if err != nil || done.Load() != 1 || len(routes) != 5 || revision != 1 {
		t.Errorf("%d seeded, %d routes at revision %d, error %v", done.Load(), len(routes), revision, err)
	}
}

func testSeedNeverAgain(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://a"))
	must[int64](t)(s.Delete(t.Context(), route.ID, 0, admin))
	if must[bool](t)(s.Seed(t.Context(), seeds(1), admin)) {
		t.Error("seeded a store whose routes were deleted")
	}
	if revision := must[int64](t)(s.Revision(t.Context())); revision != 2 {
		t.Errorf("revision %d, want 2", revision)
	}
}

func testSeedIsAtomic(t *testing.T, open Opener) {
	s := open(t)
	routes := seeds(3)
	routes[2].MatchKey = routes[0].MatchKey
	seeded, err := s.Seed(t.Context(), routes, admin)
	wantError(t, err, store.ErrConflict)
	if got := must[int64](t)(s.Revision(t.Context())); seeded || got != 0 {
		t.Errorf("seeded %v, revision %d", seeded, got)
	}
	if !must[bool](t)(s.Seed(t.Context(), seeds(3), admin)) {
		t.Error("not seeded after a failure")
	}
}

func testHistory(t *testing.T, open Opener) {
	s := open(t)
	created := must[*store.Route](t)(s.Create(t.Context(), fullRoute(), store.Author{Actor: "anna", Source: "192.0.2.7"}))
	change := store.NewRoute("/new", "http://new")
	change.ID = created.ID
	updated := must[*store.Route](t)(s.Update(t.Context(), change, 0, store.Author{Actor: "ben"}))
	must[int64](t)(s.Delete(t.Context(), created.ID, 0, store.Author{Actor: "cleo", Source: "::1"}))

	want := []store.Change{
		{Revision: 3, RouteID: created.ID, Op: "delete", Actor: "cleo", Source: "::1", Before: updated},
		{Revision: 2, RouteID: created.ID, Op: "update", Actor: "ben", Before: created, After: updated},
		{Revision: 1, RouteID: created.ID, Op: "create", Actor: "anna", Source: "192.0.2.7", After: created},
	}
	got := must[[]store.Change](t)(s.History(t.Context(), 0, 10))
	if d := cmp.Diff(want, got, rawJSON, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(store.Change{}, "CreatedAt")); d != "" {
		t.Error(d)
	}
	for _, c := range got {
		if !isRecentUTC(c.CreatedAt) {
			t.Errorf("revision %d was made at %v", c.Revision, c.CreatedAt)
		}
	}
}

func testHistoryPages(t *testing.T, open Opener) {
	s := open(t)
	for i := range 5 {
		create(t, s, store.NewRoute(fmt.Sprintf("/%d", i), "http://a"))
	}
	for _, test := range []struct {
		before int64
		limit  int
		want   []int64
	}{
		{0, 2, []int64{5, 4}},
		{4, 2, []int64{3, 2}},
		{2, 2, []int64{1}},
		{1, 2, nil},
		{100, 10, []int64{5, 4, 3, 2, 1}},
		{0, 0, nil},
		{0, -1, nil},
	} {
		var got []int64
		for _, c := range must[[]store.Change](t)(s.History(t.Context(), test.before, test.limit)) {
			got = append(got, c.Revision)
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("before %d, limit %d: %s", test.before, test.limit, d)
		}
	}
}
