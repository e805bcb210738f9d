package storetest

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/isekai-gateway/isekai/store"
)

func testEmpty(t *testing.T, open Opener) {
	s := open(t)
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if revision := must[int64](t)(s.Revision(t.Context())); revision != 0 {
		t.Errorf("revision %d, want 0", revision)
	}
	routes, revision, err := s.Load(t.Context())
	if err != nil || len(routes) != 0 || revision != 0 {
		t.Errorf("Load: %d routes, revision %d, error %v", len(routes), revision, err)
	}
	routes, revision, err = changes(s.Changes(t.Context(), 0))
	if err != nil || len(routes) != 0 || revision != 0 {
		t.Errorf("Changes: %d routes, revision %d, error %v", len(routes), revision, err)
	}
	if history := must[[]store.Change](t)(s.History(t.Context(), 0, 10)); len(history) != 0 {
		t.Errorf("History: %d changes", len(history))
	}
	for _, id := range []int64{-1, 0, 1, math.MaxInt32, math.MaxInt32 + 1, math.MaxInt64} {
		_, err := s.Get(t.Context(), id)
		wantError(t, err, store.ErrNotFound)
	}
}

func testMigrateAgain(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://a"))
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := diff(route, must[*store.Route](t)(s.Get(t.Context(), route.ID))); d != "" {
		t.Error(d)
	}
}

func testCreate(t *testing.T, open Opener) {
	s := open(t)
	got := create(t, s, store.NewRoute("/a", "http://a"))
	if got.ID != 1 || got.Revision != 1 {
		t.Errorf("id %d, revision %d, want 1 and 1", got.ID, got.Revision)
	}
	if !isRecentUTC(got.CreatedAt) || !got.UpdatedAt.Equal(got.CreatedAt) {
		t.Errorf("created %v, updated %v", got.CreatedAt, got.UpdatedAt)
	}
	if d := diffContent(store.NewRoute("/a", "http://a"), got); d != "" {
		t.Error(d)
	}
	if d := diff(got, must[*store.Route](t)(s.Get(t.Context(), got.ID))); d != "" {
		t.Error("Get differs from Create's answer:", d)
	}
	second := create(t, s, store.NewRoute("/b", "http://b"))
	if second.ID != 2 || second.Revision != 2 {
		t.Errorf("id %d, revision %d, want 2 and 2", second.ID, second.Revision)
	}
	routes, revision, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := diff([]*store.Route{got, second}, routes); d != "" || revision != 2 {
		t.Errorf("Load at revision %d: %s", revision, d)
	}
}

func fullRoute() *store.Route {
	return &store.Route{
		Name: "órders ✓", Host: "*.example.com", Path: "/orders/{id:[0-9]+}", Method: "GET,POST",
		TargetURL: "https://10.0.0.5:9000/v2/{id}", Enabled: false, RateLimit: 100, Timeout: 0, Priority: -7,
		MatchKey: "*.example.com /orders/{:[0-9]+}",
		Spec: store.Spec{
			Headers: map[string]string{"X-Env": "beta"}, Query: map[string]string{"v": "2", "é": ""},
			StripPrefix: true, PreserveHost: true, MergeSlashes: true,
			Upstream: &store.Upstream{Protocol: "http1", TLS: &store.UpstreamTLS{ServerName: "a", CA: "PEM\n", InsecureSkipVerify: true}},
			Limits: &store.Limits{
				Window: 30, Key: "{client_ip}", Cost: 2, Rules: []store.LimitRule{{Name: "day", Limit: 10_000, Window: 86_400, Key: "{http.request.host}", Cost: 3}},
				DryRun: true, Headers: "legacy", BodyMax: 1 << 40, MaxConcurrent: 7,
			},
			CORS: &store.CORS{
				Origins: []string{`~https://[a-z]+\.app\.test`}, Methods: []string{"PUT"}, Headers: []string{"X-A"}, ExposeHeaders: []string{"X-B"},
				Credentials: true, MaxAge: -1, PrivateNetwork: true,
			},
			Plugins: []json.RawMessage{
				json.RawMessage(`{"handler":"headers","response":{"set":{"X-B":["<b>"],"X-A":["\"\\u0000\""]}}}`),
				json.RawMessage(`{"handler":"x","n":1.50,"big":12345678901234567890,"null":null,"deep":[[{}]]}`),
			},
			Labels: map[string]string{"team": "shop"},
		},
	}
}

func testCreateKeepsEveryField(t *testing.T, open Opener) {
	s := open(t)
	got := create(t, s, fullRoute())
	if d := diffContent(fullRoute(), got); d != "" {
		t.Error(d)
	}
	if d := diff(got, must[*store.Route](t)(s.Get(t.Context(), got.ID))); d != "" {
		t.Error("Get differs from Create's answer:", d)
	}
	routes, _, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := diff([]*store.Route{got}, routes); d != "" {
		t.Error("Load differs from Create's answer:", d)
	}
}

func testCreateIgnoresAssigned(t *testing.T, open Opener) {
	s := open(t)
	first := create(t, s, store.NewRoute("/a", "http://a"))
	route := store.NewRoute("/b", "http://b")
	route.ID, route.Revision, route.DeletedAt, route.DecodeError = first.ID, 99, &first.CreatedAt, "bad"
	got := create(t, s, route)
	if got.ID == first.ID || got.Revision != 2 || got.DeletedAt != nil || got.DecodeError != "" {
		t.Errorf("got %+v", got)
	}
}

func testUpdate(t *testing.T, open Opener) {
	s := open(t)
	before := create(t, s, store.NewRoute("/a", "http://a"))
	other := create(t, s, store.NewRoute("/other", "http://a"))
	change := fullRoute()
	change.ID = before.ID
	after := must[*store.Route](t)(s.Update(t.Context(), change, 0, admin))
	if d := diffContent(fullRoute(), after); d != "" {
		t.Error(d)
	}
	if after.ID != before.ID || after.Revision != 3 {
		t.Errorf("id %d, revision %d, want %d and 3", after.ID, after.Revision, before.ID)
	}
	if !after.CreatedAt.Equal(before.CreatedAt) || after.UpdatedAt.Before(before.UpdatedAt) || !isRecentUTC(after.UpdatedAt) {
		t.Errorf("created %v, updated %v, before %v", after.CreatedAt, after.UpdatedAt, before.CreatedAt)
	}
	if d := diff(after, must[*store.Route](t)(s.Get(t.Context(), before.ID))); d != "" {
		t.Error(d)
	}
	if d := diff(other, must[*store.Route](t)(s.Get(t.Context(), other.ID))); d != "" {
		t.Error("another route has changed:", d)
	}
}

func testUpdateNotFound(t *testing.T, open Opener) {
	s := open(t)
	deleted := create(t, s, store.NewRoute("/a", "http://a"))
	must[int64](t)(s.Delete(t.Context(), deleted.ID, 0, admin))
	for _, id := range []int64{-1, 0, deleted.ID, 7, math.MaxInt64} {
		route := store.NewRoute("/b", "http://b")
		route.ID = id
		for _, ifRevision := range []int64{0, 1} {
			_, err := s.Update(t.Context(), route, ifRevision, admin)
			wantError(t, err, store.ErrNotFound)
			_, err = s.Delete(t.Context(), id, ifRevision, admin)
			wantError(t, err, store.ErrNotFound)
		}
	}
	if revision := must[int64](t)(s.Revision(t.Context())); revision != 2 {
		t.Errorf("revision %d, want 2", revision)
	}
}

func testDelete(t *testing.T, open Opener) {
	s := open(t)
	kept := create(t, s, store.NewRoute("/a", "http://a"))
	gone := create(t, s, store.NewRoute("/b", "http://b"))
	if revision := must[int64](t)(s.Delete(t.Context(), gone.ID, gone.Revision, admin)); revision != 3 {
		t.Errorf("revision %d, want 3", revision)
	}
	_, err := s.Get(t.Context(), gone.ID)
	wantError(t, err, store.ErrNotFound)
	routes, revision, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := diff([]*store.Route{kept}, routes); d != "" || revision != 3 {
		t.Errorf("Load at revision %d: %s", revision, d)
	}
	if next := create(t, s, store.NewRoute("/c", "http://c")); next.ID == gone.ID {
		t.Error("the id of a deleted route was used again")
	}
}

func testStale(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://a"))
	create(t, s, store.NewRoute("/b", "http://b"))
	change := *route
	change.RateLimit = 5
	updated := must[*store.Route](t)(s.Update(t.Context(), &change, route.Revision, admin))

	_, err := s.Update(t.Context(), &change, route.Revision, admin)
	wantError(t, err, store.ErrStale)
	_, err = s.Delete(t.Context(), route.ID, route.Revision, admin)
	wantError(t, err, store.ErrStale)
	if d := diff(updated, must[*store.Route](t)(s.Get(t.Context(), route.ID))); d != "" {
		t.Error("a stale write had an effect:", d)
	}
	must[*store.Route](t)(s.Update(t.Context(), &change, updated.Revision, admin))
}

func testTwoWriters(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://a"))
	const writers = 8
	errs := make([]error, writers)
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			change := *route
			change.RateLimit = i + 1
			_, errs[i] = s.Update(t.Context(), &change, route.Revision, admin)
		})
	}
	all.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatal("two writers have won")
		case err == nil:
			winner = i
		default:
			wantError(t, err, store.ErrStale)
		}
	}
	if winner < 0 {
		t.Fatal("no writer has won")
	}
	if got := must[*store.Route](t)(s.Get(t.Context(), route.ID)); got.RateLimit != winner+1 || got.Revision != 2 {
		t.Errorf("rate limit %d at revision %d, want %d at 2", got.RateLimit, got.Revision, winner+1)
	}
}

func testBadValues(t *testing.T, open Opener) {
	s := open(t)
	kept := create(t, s, store.NewRoute("/kept", "http://a"))
	plugin := func(text string) func(*store.Route) {
		return func(r *store.Route) { r.Plugins = []json.RawMessage{json.RawMessage(text)} }
	}
	for name, spoil := range map[string]func(*store.Route){
		"NUL in name":                func(r *store.Route) { r.Name = "a\x00b" },
		"NUL in host":                func(r *store.Route) { r.Host = "\x00" },
		"NUL in path":                func(r *store.Route) { r.Path = "/\x00" },
		"NUL in method":              func(r *store.Route) { r.Method = "GET\x00" },
		"NUL in target":              func(r *store.Route) { r.TargetURL = "http://a\x00" },
		"NUL in match key":           func(r *store.Route) { r.MatchKey = "\x00" },
		"NUL in a header":            func(r *store.Route) { r.Headers = map[string]string{"X": "\x00"} },
		"NUL in a label's name":      func(r *store.Route) { r.Labels = map[string]string{"\x00": ""} },
		"NUL in a plugin":            plugin(`{"handler":"\u0000"}`),
		"not UTF-8 in name":          func(r *store.Route) { r.Name = "\xff" },
		"not UTF-8 in a plugin":      plugin("{\"handler\":\"\xff\"}"),
		"high surrogate in a plugin": plugin(`{"handler":"\ud83d"}`),
		"high surrogates":            plugin(`["\ud83d\ud83d\ude00"]`),
		"low surrogate in a plugin":  plugin(`{"handler":"\uDE00 "}`),
		"surrogates apart":           plugin(`["\ud83d", "\ude00"]`),
		"not JSON in a plugin":       plugin(`{`),
		"NaN in a plugin":            plugin(`{"n":NaN}`),
		"huge number in a plugin":    plugin(`{"n":1e309}`),
		"absurd number in a plugin":  plugin(`{"n":1e1000000}`),
		"depth in a plugin":          plugin(strings.Repeat("[", 2000) + strings.Repeat("]", 2000)),
		"absurd depth in a plugin":   plugin(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)),
		"rate limit too high":        func(r *store.Route) { r.RateLimit = math.MaxInt32 + 1 },
		"timeout too low":            func(r *store.Route) { r.Timeout = math.MinInt32 - 1 },
		"priority too high":          func(r *store.Route) { r.Priority = math.MaxInt64 },
	} {
		route := store.NewRoute("/a", "http://a")
		spoil(route)
		if _, err := s.Create(t.Context(), route, admin); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: Create: %v", name, err)
		}
		route.ID = kept.ID
		if _, err := s.Update(t.Context(), route, 0, admin); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: Update: %v", name, err)
		}
		if _, err := s.Seed(t.Context(), []*store.Route{route}, admin); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: Seed: %v", name, err)
		}
	}
	for _, by := range []store.Author{{Actor: "\x00"}, {Source: "\xff"}} {
		_, err := s.Create(t.Context(), store.NewRoute("/b", "http://b"), by)
		wantError(t, err, store.ErrInvalid)
		_, err = s.Delete(t.Context(), kept.ID, 0, by)
		wantError(t, err, store.ErrInvalid)
	}
	routes, revision, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := diff([]*store.Route{kept}, routes); d != "" || revision != 1 {
		t.Errorf("refused writes left something, at revision %d: %s", revision, d)
	}
}

func testOddValues(t *testing.T, open Opener) {
	s := open(t)
	for i, text := range []string{
		`it's; DROP TABLE routes; --`, `"$1" {x} \ %s ?`, "tab\tnewline\nend\r", "\U0001F600 \u202e \ufffd", strings.Repeat("n", 1500), "\x01\x7f",
	} {
		route := store.NewRoute("/"+text, "http://"+text)
		route.Name, route.Host, route.MatchKey = text, text, text
		route.Headers = map[string]string{text: text}
		document, err := json.Marshal(map[string]any{text: []any{text, 1e300, -5e-324, int64(math.MaxInt64)}})
		if err != nil {
			t.Fatal(err)
		}
		route.Plugins = []json.RawMessage{document, json.RawMessage(`"\\u0000 \ud83d\ude00 \uD83D\uDE00 \\ud83d"`)}
		if i == 4 { // longer than an index entry of PostgreSQL
			route.Headers, route.Host, route.Path = nil, "", "/long"
			route.MatchKey = strings.Repeat("long", 10_000)
		}
		got := must[*store.Route](t)(s.Create(t.Context(), route, admin))
		if d := diffContent(route, got); d != "" {
			t.Error(d)
		}
		if d := diff(got, must[*store.Route](t)(s.Get(t.Context(), got.ID))); d != "" {
			t.Error(d)
		}
	}
}

func testFailedWrite(t *testing.T, open Opener) {
	s := open(t)
	route := store.NewRoute("/a", "http://a")
	route.MatchKey = "k"
	create(t, s, route)
	for range 3 {
		_, err := s.Create(t.Context(), route, admin)
		wantError(t, err, store.ErrConflict)
	}
	if revision := must[int64](t)(s.Revision(t.Context())); revision != 1 {
		t.Errorf("revision %d, want 1", revision)
	}
	other := store.NewRoute("/b", "http://b")
	if got := create(t, s, other); got.Revision != 2 {
		t.Errorf("revision %d, want 2", got.Revision)
	}
	if history := must[[]store.Change](t)(s.History(t.Context(), 0, 10)); len(history) != 2 {
		t.Errorf("%d changes in the history, want 2", len(history))
	}
}
