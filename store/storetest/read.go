package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/store"
)

func testChanges(t *testing.T, open Opener) {
	s := open(t)
	a := create(t, s, store.NewRoute("/a", "http://a")) // revision 1
	b := create(t, s, store.NewRoute("/b", "http://b")) // 2
	c := create(t, s, store.NewRoute("/c", "http://c")) // 3
	change := *a
	change.RateLimit = 9
	a = must[*store.Route](t)(s.Update(t.Context(), &change, 0, admin)) // 4
	must[int64](t)(s.Delete(t.Context(), b.ID, 0, admin))               // 5

	for since, want := range [][]int64{{a.ID, b.ID, c.ID}, {a.ID, b.ID, c.ID}, {a.ID, b.ID, c.ID}, {a.ID, b.ID}, {b.ID}, {}} {
		routes, revision, err := changes(s.Changes(t.Context(), int64(since)))
		if err != nil {
			t.Fatal(err)
		}
		if revision != 5 {
			t.Errorf("since %d: revision %d, want 5", since, revision)
		}
		if d := cmp.Diff(want, ids(routes)); d != "" {
			t.Errorf("since %d: %s", since, d)
		}
		for _, r := range routes {
			switch {
			case r.ID == b.ID && (r.DeletedAt == nil || !isRecentUTC(*r.DeletedAt)):
				t.Errorf("since %d: the deleted route has DeletedAt %v", since, r.DeletedAt)
			case r.ID != b.ID && r.DeletedAt != nil:
				t.Errorf("since %d: route %d is deleted", since, r.ID)
			case r.ID == a.ID:
				if d := diff(a, r); d != "" {
					t.Errorf("since %d: not the present state: %s", since, d)
				}
			}
		}
	}
}

func testChangesResync(t *testing.T, open Opener) {
	s := open(t)
	create(t, s, store.NewRoute("/a", "http://a"))
	for _, since := range []int64{2, 1000} {
		_, err := s.Changes(t.Context(), since)
		wantError(t, err, store.ErrResync)
	}
}

// testSnapshots writes pairs of routes, which must never be seen apart.
func testSnapshots(t *testing.T, open Opener) {
	s := open(t)
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		defer stop()
		for i := range 40 {
			if _, err := s.Create(t.Context(), store.NewRoute(fmt.Sprintf("/%d", i), "http://a"), admin); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer writer.Wait()
	known := map[int64]bool{}
	var at int64
	for last := false; !last; {
		last = ctx.Err() != nil // one more look after the last write
		routes, revision, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Every revision here makes one route.
		if int64(len(routes)) != revision {
			t.Fatalf("Load: %d routes at revision %d", len(routes), revision)
		}
		changed, now, err := changes(s.Changes(t.Context(), at))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range changed {
			known[r.ID] = true
		}
		if at = now; int64(len(known)) != at {
			t.Fatalf("Changes: %d routes at revision %d", len(known), at)
		}
	}
	if at != 40 {
		t.Errorf("at revision %d in the end, want 40", at)
	}
}

func testConcurrentWriters(t *testing.T, open Opener) {
	s := open(t)
	const writers, each = 6, 10
	var all sync.WaitGroup
	revisions := make(chan int64, writers*each)
	for w := range writers {
		all.Go(func() {
			for i := range each {
				r, err := s.Create(t.Context(), store.NewRoute(fmt.Sprintf("/%d/%d", w, i), "http://a"), admin)
				if err != nil {
					t.Error(err)
					return
				}
				revisions <- r.Revision
				// What is committed is seen at once, and all before it.
				routes, revision, err := s.Load(t.Context())
				if err != nil || revision < r.Revision || int64(len(routes)) != revision {
					t.Errorf("after revision %d: %d routes at %d, error %v", r.Revision, len(routes), revision, err)
				}
			}
		})
	}
	all.Wait()
	close(revisions)
	got := slices.Sorted(func(yield func(int64) bool) {
		for r := range revisions {
			if !yield(r) {
				return
			}
		}
	})
	for i, r := range got {
		if r != int64(i+1) {
			t.Fatalf("revisions %v", got)
		}
	}
}

func testCancelled(t *testing.T, open Opener) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	route := store.NewRoute("/a", "http://a")
	for name, call := range map[string]func() error{
		"Ping":     func() error { return s.Ping(ctx) },
		"Migrate":  func() error { return s.Migrate(ctx) },
		"Revision": func() error { _, err := s.Revision(ctx); return err },
		"Load":     func() error { _, _, err := s.Load(ctx); return err },
		"Changes":  func() error { _, err := s.Changes(ctx, 0); return err },
		"Get":      func() error { _, err := s.Get(ctx, 1); return err },
		"Create":   func() error { _, err := s.Create(ctx, route, admin); return err },
		"Update":   func() error { r := *route; r.ID = 1; _, err := s.Update(ctx, &r, 0, admin); return err },
		"Delete":   func() error { _, err := s.Delete(ctx, 1, 0, admin); return err },
		"Seed":     func() error { _, err := s.Seed(ctx, []*store.Route{route}, admin); return err },
		"History":  func() error { _, err := s.History(ctx, 0, 1); return err },
	} {
		if err := call(); err == nil {
			t.Errorf("%s succeeded with a cancelled context", name)
		} else if !isCancelled(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := create(t, s, route); got.Revision != 1 {
		t.Errorf("revision %d after cancelled calls, want 1", got.Revision)
	}
}

func testClosed(t *testing.T, open Opener) {
	s := open(t)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a closed store answers")
	}
}

func testStats(t *testing.T, open Opener) {
	s := open(t)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	stats := s.Stats()
	if stats.Driver == "" || stats.Open < 1 || stats.MaxConns < stats.Open || stats.InUse != 0 {
		t.Errorf("got %+v", stats)
	}
}
