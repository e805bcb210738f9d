package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isekai-gateway/isekai/store"
)

func testStatistics(t *testing.T, open Opener) {
	s := open(t)
	hour := time.Date(2026, 5, 6, 7, 0, 0, 0, time.UTC)
	minute := func(replica string, n int, document string) *store.StatsDocument {
		return &store.StatsDocument{Replica: replica, Period: time.Minute, Start: hour.Add(time.Duration(n) * time.Minute), Document: []byte(document)}
	}
	save := func(documents ...*store.StatsDocument) {
		t.Helper()
		if err := s.SaveStats(t.Context(), documents, nil); err != nil {
			t.Fatal(err)
		}
	}
	check := func(besides string, after int64, since time.Time, want ...*store.StatsDocument) []*store.StatsDocument {
		t.Helper()
		got := must[[]*store.StatsDocument](t)(s.RequestStats(t.Context(), besides, after, since))
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(store.StatsDocument{}, "ID"), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		return got
	}
	a0, a1, b1 := minute("a", 0, "\x00one"), minute("a", 1, "two"), minute("b", 1, "three")
	save(a0, a1)
	save(b1)
	all := check("", 0, hour, a0, a1, b1)
	check("b", 0, hour, a0, a1)
	check("", all[0].ID, hour, a1, b1)
	check("", 0, hour.Add(time.Minute), a1, b1)

	a1 = minute("a", 1, "two, again")
	save(a1)
	check("b", 0, hour, a0, a1)

	second := minute("a", 60, "the next hour")
	whole := &store.StatsDocument{Replica: "a", Period: time.Hour, Start: hour, Document: []byte("hour")}
	save(second, whole)
	check("", 0, hour, a0, a1, b1, second, whole)
	next := &store.StatsDocument{Replica: "a", Period: time.Hour, Start: hour.Add(time.Hour), Document: []byte("hour")}
	save(next) // the minutes before it are in another hour
	check("", 0, hour, b1, second, whole, next)

	if err := s.PruneStats(t.Context(), hour.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	check("", 0, time.Time{}, b1, second, next)
}

func testLastHits(t *testing.T, open Opener) {
	s := open(t)
	a := create(t, s, store.NewRoute("/a", "http://x")).ID
	b := create(t, s, store.NewRoute("/b", "http://x")).ID
	create(t, s, store.NewRoute("/never", "http://x"))
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	save := func(hits map[int64]time.Time) {
		t.Helper()
		if err := s.SaveStats(t.Context(), nil, hits); err != nil {
			t.Fatal(err)
		}
	}
	save(map[int64]time.Time{a: at, b: at, 99: at, -1: at, 1 << 40: at})
	save(map[int64]time.Time{a: at.Add(-time.Hour), b: at.Add(time.Hour)})
	if diff := cmp.Diff(map[int64]time.Time{a: at, b: at.Add(time.Hour)}, must[map[int64]time.Time](t)(s.LastHits(t.Context()))); diff != "" {
		t.Error(diff)
	}
}
