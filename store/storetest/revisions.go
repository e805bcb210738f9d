package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/store"
)

func testPast(t *testing.T, open Opener) {
	s := open(t)
	a := create(t, s, newRoute("/a"))
	b := create(t, s, newRoute("/b"))
	changed := newRoute("/b2")
	changed.ID = b.ID
	b2 := must[*store.Route](t)(s.Update(t.Context(), changed, 0, admin)) // 3
	must[int64](t)(s.Delete(t.Context(), a.ID, 0, admin))                 // 4
	must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("c"), admin))
	back := newRoute("/a")
	back.ID = a.ID
	apply(t, s, store.Edits{Update: []*store.Route{back}}) // 6
	changed.Path = "/b3"
	must[*store.Route](t)(s.Update(t.Context(), changed, 0, admin)) // 7

	for n, want := range []map[int64]*store.Route{
		{a.ID: nil, b.ID: nil},
		{a.ID: a, b.ID: nil},
		{a.ID: a, b.ID: b},
		{a.ID: a, b.ID: b2},
		{a.ID: nil, b.ID: b2},
		{a.ID: nil, b.ID: b2},
		{b.ID: b2},
		{},
	} {
		past := must[*store.Past](t)(s.Past(t.Context(), int64(n)))
		if d := diff(want, past.Routes); d != "" || past.Now != 7 {
			t.Errorf("at %d of %d: %s", n, past.Now, d)
		}
	}
	for _, n := range []int64{-1, 8} {
		_, err := s.Past(t.Context(), n)
		wantError(t, err, store.ErrNoRevision)
	}

	gone := must[*store.Route](t)(s.Row(t.Context(), a.ID))
	if gone.DeletedAt != nil {
		t.Error("a restored route is deleted")
	}
	must[int64](t)(s.Delete(t.Context(), a.ID, 0, admin))
	if gone = must[*store.Route](t)(s.Row(t.Context(), a.ID)); gone.DeletedAt == nil || gone.Path != "/a" {
		t.Errorf("got %+v", gone)
	}
	for _, id := range []int64{0, a.ID + 1000, 1 << 40} {
		_, err := s.Row(t.Context(), id)
		wantError(t, err, store.ErrNotFound)
	}
}

// told puts revisions into short texts.
func told(revisions []*store.Revision) []string {
	var all []string
	for _, r := range revisions {
		var parts []string
		for _, c := range r.Routes {
			op := c.Op
			if c.Restored {
				op = "restore"
			}
			parts = append(parts, fmt.Sprintf("%s %d", op, c.RouteID))
		}
		for _, c := range r.Credentials {
			parts = append(parts, fmt.Sprintf("%s %s %s", c.Op, c.Kind, c.ID))
		}
		all = append(all, fmt.Sprintf("%d %s %s %d+%d: %s", r.Number, r.Actor, r.Source, r.TotalRoutes, r.TotalCredentials, strings.Join(parts, ", ")))
	}
	return all
}

func testRevisions(t *testing.T, open Opener) {
	s := open(t)
	ben := store.Author{Actor: "ben"}
	done := apply(t, s, store.Edits{Create: []*store.Route{newRoute("/1"), newRoute("/2"), newRoute("/3")}})
	id := done.Created
	must[int64](t)(s.Delete(t.Context(), id[0], 0, ben))
	c := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("anna"), ben))
	must[*store.APIKey](t)(s.CreateKey(t.Context(), newKey(c.ID, 1), ben))
	if err := s.DeleteConsumer(t.Context(), c.ID, 0, ben); err != nil {
		t.Fatal(err)
	}
	back := newRoute("/1")
	back.ID = id[0]
	apply(t, s, store.Edits{Update: []*store.Route{back}})

	key := newKey(c.ID, 1).ID
	all := []string{
		fmt.Sprintf("6 admin 192.0.2.1 1+0: restore %d", id[0]),
		fmt.Sprintf("5 ben  0+2: delete api_key %s, delete consumer %d", key, c.ID),
		fmt.Sprintf("4 ben  0+1: create api_key %s", key),
		fmt.Sprintf("3 ben  0+1: create consumer %d", c.ID),
		fmt.Sprintf("2 ben  1+0: delete %d", id[0]),
		fmt.Sprintf("1 admin 192.0.2.1 3+0: create %d, create %d, create %d", id[0], id[1], id[2]),
	}
	for _, test := range []struct {
		filter        store.RevisionFilter
		before        int64
		limit, within int
		want          []string
	}{
		{store.RevisionFilter{}, 0, 10, 10, all},
		{store.RevisionFilter{}, 0, 2, 10, all[:2]},
		{store.RevisionFilter{}, 4, 10, 10, all[3:]},
		{store.RevisionFilter{}, 2, 10, 1, []string{fmt.Sprintf("1 admin 192.0.2.1 3+0: create %d", id[0])}},
		{store.RevisionFilter{}, 1, 10, 10, nil},
		{store.RevisionFilter{}, 0, 0, 10, nil},
		{store.RevisionFilter{RouteID: id[0]}, 0, 10, 10, []string{all[0], all[4], fmt.Sprintf("1 admin 192.0.2.1 1+0: create %d", id[0])}},
		{store.RevisionFilter{Actor: "ben"}, 0, 3, 10, all[1:4]},
		{store.RevisionFilter{Actor: "nobody"}, 0, 10, 10, nil},
	} {
		got := told(must[[]*store.Revision](t)(s.Revisions(t.Context(), test.filter, test.before, test.limit, test.within)))
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%+v before %d, %d with %d: %s", test.filter, test.before, test.limit, test.within, d)
		}
	}

	one := must[*store.Revision](t)(s.RevisionChanges(t.Context(), 1, id[0], 1))
	if d := cmp.Diff([]string{fmt.Sprintf("1 admin 192.0.2.1 3+0: create %d", id[1])}, told([]*store.Revision{one})); d != "" {
		t.Error(d)
	}
	if !isRecentUTC(one.CreatedAt) || one.Routes[0].After.Path != "/2" {
		t.Errorf("got %+v", one)
	}
	five := must[*store.Revision](t)(s.RevisionChanges(t.Context(), 5, 0, 10))
	for _, c := range five.Credentials {
		if c.After != nil || len(c.Before) == 0 || strings.Contains(string(c.Before), "hash") {
			t.Errorf("%s: before %s, after %s", c.Kind, c.Before, c.After)
		}
	}
	for _, n := range []int64{0, 7} {
		_, err := s.RevisionChanges(t.Context(), n, 0, 10)
		wantError(t, err, store.ErrNoRevision)
	}
}

func testRevisionFilters(t *testing.T, open Opener) {
	s := open(t)
	create(t, s, newRoute("/1"))
	first := must[*store.Revision](t)(s.RevisionChanges(t.Context(), 1, 0, 1)).CreatedAt
	// The next one is made at another time.
	for last := first; !last.After(first.Add(5 * time.Millisecond)); {
		last = must[*store.Route](t)(s.Create(t.Context(), newRoute(fmt.Sprint("/", last.UnixNano())), admin)).CreatedAt
	}
	count := func(from, to time.Time) int {
		return len(must[[]*store.Revision](t)(s.Revisions(t.Context(), store.RevisionFilter{From: from, To: to}, 0, 100_000, 1)))
	}
	all := count(time.Time{}, time.Time{})
	middle := first.Add(5 * time.Millisecond)
	if before, after := count(time.Time{}, middle), count(middle, time.Time{}); before < 1 || after < 1 || before+after != all {
		t.Errorf("of %d, %d before and %d after", all, before, after)
	}
	if n := count(first, first.Add(time.Hour)); n != all {
		t.Errorf("%d of %d since the first", n, all)
	}
	if n := count(first.Add(time.Hour), time.Time{}); n != 0 {
		t.Errorf("%d in the future", n)
	}
}

func testPruneHistory(t *testing.T, open Opener) {
	s := open(t)
	if n := must[int](t)(s.PruneHistory(t.Context(), time.Now().Add(time.Hour))); n != 0 {
		t.Errorf("%d revisions removed of none", n)
	}
	kept := create(t, s, newRoute("/kept"))
	deleted := create(t, s, newRoute("/deleted"))
	must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("c"), admin))
	must[int64](t)(s.Delete(t.Context(), deleted.ID, 0, admin))
	if n := must[int](t)(s.PruneHistory(t.Context(), time.Now().Add(-time.Hour))); n != 0 {
		t.Errorf("%d revisions removed that are not that old", n)
	}
	if n := must[int](t)(s.PruneHistory(t.Context(), time.Now().Add(time.Hour))); n != 4 {
		t.Errorf("%d revisions removed, want 4", n)
	}
	// What counts is still there: routes, the number, what can be restored.
	if d := diff([]*store.Route{kept}, load(t, s)); d != "" || now(t, s) != 4 {
		t.Error(d)
	}
	if r := must[*store.Route](t)(s.Row(t.Context(), deleted.ID)); r.Path != "/deleted" {
		t.Errorf("the deleted route is %+v", r)
	}
	if must[bool](t)(s.Seed(t.Context(), seeds(1), admin)) {
		t.Error("seeded a store that had routes")
	}
	// A reader that is behind must load; one that is not goes on.
	_, err := s.Changes(t.Context(), 3)
	wantError(t, err, store.ErrResync)
	_, err = s.Past(t.Context(), 3)
	wantError(t, err, store.ErrHistoryGone)
	create(t, s, newRoute("/next"))
	if c := must[*store.Changes](t)(s.Changes(t.Context(), 4)); c.Revision != 5 || len(c.Routes) != 1 {
		t.Errorf("got %+v", c)
	}
	if p := must[*store.Past](t)(s.Past(t.Context(), 4)); len(p.Routes) != 1 {
		t.Errorf("got %+v", p)
	}
}
