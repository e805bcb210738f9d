package storetest

import (
	"errors"
	"testing"

	"github.com/isekai-gateway/isekai/store"
)

func wantConflict(t *testing.T, err error, with int64) {
	t.Helper()
	conflict, ok := errors.AsType[*store.ConflictError](err)
	if !ok || conflict.ID != with {
		t.Errorf("got error %v, want a conflict with route %d", err, with)
	}
	wantError(t, err, store.ErrConflict)
}

func testConflicts(t *testing.T, open Opener) {
	for _, test := range []struct {
		a, b, keyA, keyB string
		conflict         bool
	}{
		{"GET", "GET", "k", "k", true},
		{"GET,POST", "POST", "k", "k", true},
		{"POST", "GET,POST", "k", "k", true},
		{"GET, POST", "POST ,PUT", "k", "k", true},
		{"*", "*", "k", "k", true},
		{"*", "GET", "k", "k", false},
		{"GET", "*", "k", "k", false},
		{"GET", "POST", "k", "k", false},
		{"GET", "HEAD", "k", "k", false},
		{"GET", "GET", "k", "l", false},
		{"GET", "GET", "k", "K", false},
		{"GET", "GET", "", "", false},
		{"GET", "GET", "k", "", false},
	} {
		name := test.a + " " + test.keyA + " and " + test.b + " " + test.keyB
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			first := store.NewRoute("/{a}", "http://a")
			first.Method, first.MatchKey = test.a, test.keyA
			first.Enabled = false // a disabled route counts too
			id := create(t, s, first).ID
			second := store.NewRoute("/{b}", "http://b")
			second.Method, second.MatchKey = test.b, test.keyB
			_, err := s.Create(t.Context(), second, admin)
			if test.conflict {
				wantConflict(t, err, id)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func testConflictByColumns(t *testing.T, open Opener) {
	s := open(t)
	base := func() *store.Route {
		r := store.NewRoute("/a", "http://a")
		r.Headers = map[string]string{"A": "1", "B": "2"}
		return r
	}
	id := create(t, s, base()).ID
	_, err := s.Create(t.Context(), base(), admin)
	wantConflict(t, err, id)
	for _, differ := range []func(*store.Route){
		func(r *store.Route) { r.Host = "h" },
		func(r *store.Route) { r.Path = "/b" },
		func(r *store.Route) { r.Method = "POST" },
		func(r *store.Route) { r.Priority = 1 },
		func(r *store.Route) { r.Headers = nil },
		func(r *store.Route) { r.Headers = map[string]string{"A": "1", "B": "3"} },
		func(r *store.Route) { r.Query = map[string]string{"A": "1"} },
	} {
		r := base()
		differ(r)
		created := create(t, s, r)
		_, err := s.Create(t.Context(), r, admin)
		wantConflict(t, err, created.ID)
	}
}

func testConflictOnUpdate(t *testing.T, open Opener) {
	s := open(t)
	first := store.NewRoute("/a", "http://a")
	first.MatchKey = "a"
	first = create(t, s, first)
	second := store.NewRoute("/b", "http://b")
	second.MatchKey = "b"
	second = create(t, s, second)

	change := *second
	change.MatchKey = "a"
	_, err := s.Update(t.Context(), &change, 0, admin)
	wantConflict(t, err, first.ID)
	change = *second
	change.Path = "/a"
	_, err = s.Update(t.Context(), &change, 0, admin)
	wantConflict(t, err, first.ID)

	change = *second
	change.Timeout = 1 // not in conflict with itself
	must[*store.Route](t)(s.Update(t.Context(), &change, 0, admin))
}

func testNoConflictWithDeleted(t *testing.T, open Opener) {
	s := open(t)
	route := store.NewRoute("/a", "http://a")
	route.MatchKey = "k"
	for range 3 {
		created := create(t, s, route)
		must[int64](t)(s.Delete(t.Context(), created.ID, 0, admin))
	}
}
