package routing_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func TestCompile(t *testing.T) {
	t.Parallel()
	r := mustCompile(t, row(1, "post,get", "*.Bücher.Example", "/caf%c3%a9/{id}"))
	if r.Pattern().String() != "/caf%C3%A9/{id}" || r.MatchHost() != "*.xn--bcher-kva.example" || r.Methods().String() != "GET,POST" || r.ID != 1 {
		t.Errorf("compiled to %s %s%s", r.Methods(), r.MatchHost(), r.Pattern())
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1025)
	bad := row(1, "TRACE", "h:80", "/v{n}", priority(math.MaxInt32+1),
		headers("Host", "a", "x env", "b", "X-Sp", " a", "X-Ctl", "a\nb", "X-Long", long, "x-twice", "1", "X-Twice", "2"), query("", "x", "q", long))
	_, err := routing.Compile(bad)
	var fields store.FieldErrors
	if !errors.As(err, &fields) || !errors.Is(err, store.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, f := range fields {
		if f.Message == "" {
			t.Errorf("%s has no message", f.Field)
		}
		got = append(got, f.Field)
	}
	want := []string{
		"path", "host", "method", "headers.Host", "headers.X-Ctl", "headers.X-Long", "headers.X-Sp", "headers.X-Twice", "headers.x env",
		"query.", "query.q", "priority",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}

	many := map[string]string{}
	for i := range 33 {
		many["h"+strings.Repeat("x", i)] = "1"
	}
	r := row(1, "GET", "", "/")
	r.Headers = many
	if _, err := routing.Compile(r); err == nil || !strings.Contains(err.Error(), "headers: must not have more than 32") {
		t.Errorf("33 headers: %v", err)
	}
	if _, err := routing.Compile(row(1, "GET", "", "/", func(r *store.Route) { r.DecodeError = "bad spec" })); err == nil || !strings.Contains(err.Error(), "bad spec") {
		t.Errorf("decode error: %v", err)
	}
}

// keyPairs are pairs of rows and whether they match exactly the same, by methods
// apart.
var keyPairs = []struct {
	a, b *store.Route
	same bool
}{
	{row(0, "GET", "", "/a/{x}"), row(0, "GET", "", "/a/{y}"), true},
	{row(0, "GET", "", "/a/*"), row(0, "GET", "", "/a/{r...}"), true},
	{row(0, "GET", "H.com", "/%61"), row(0, "GET", "h.com.", "/a"), true},
	{row(0, "GET", "bücher.de", "/é"), row(0, "GET", "xn--bcher-kva.de", "/%c3%a9"), true},
	{row(0, "GET", "", "/{x:[0-9]+}"), row(0, "GET", "", "/{y:[0-9]+}"), true},
	{row(0, "GET", "", "/", headers("x-a", "1")), row(0, "GET", "", "/", headers("X-A", "1")), true},
	{row(0, "GET", "", "/", query("a", "1", "b", "2")), row(0, "GET", "", "/", query("b", "2", "a", "1")), true},
	{row(0, "GET", "", "/a"), row(0, "GET", "", "/a/"), false},
	{row(0, "GET", "", "/a"), row(0, "GET", "", "/A"), false},
	{row(0, "GET", "", "/{x}"), row(0, "GET", "", "/{x:.+}"), false},
	{row(0, "GET", "", "/{x:a}"), row(0, "GET", "", "/{x:b}"), false},
	{row(0, "GET", "", "/{x}"), row(0, "GET", "", "/*"), false},
	{row(0, "GET", "a.com", "/"), row(0, "GET", "*.com", "/"), false},
	{row(0, "GET", "a.com", "/"), row(0, "GET", "", "/"), false},
	{row(0, "GET", "", "/"), row(0, "GET", "", "/", priority(1)), false},
	{row(0, "GET", "", "/"), row(0, "GET", "", "/", headers("A", "1")), false},
	{row(0, "GET", "", "/", headers("A", "1")), row(0, "GET", "", "/", query("A", "1")), false},
	{row(0, "GET", "", "/", headers("A", "1")), row(0, "GET", "", "/", headers("A", "2")), false},
	{row(0, "GET", "", "/", query("a", "1")), row(0, "GET", "", "/", query("A", "1")), false},
	{row(0, "GET", "", "/", query("a", `1" query "b"="2`)), row(0, "GET", "", "/", query("a", "1", "b", "2")), false},
	{row(0, "GET", "", "/"+strings.Repeat("a", 1000)), row(0, "GET", "", "/"+strings.Repeat("a", 1001)), false},
	{row(0, "GET", "", "/{x}/"+strings.Repeat("a", 1000)), row(0, "GET", "", "/{y}/"+strings.Repeat("a", 1000)), true},
}

func TestMatchKeyAndConflict(t *testing.T) {
	t.Parallel()
	for _, tt := range keyPairs {
		keyA, errA := routing.MatchKey(tt.a)
		keyB, errB := routing.MatchKey(tt.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if (keyA == keyB) != tt.same {
			t.Errorf("keys %q and %q: equal should be %v", keyA, keyB, tt.same)
		}
		if len(keyA) > 512 {
			t.Errorf("a key has %d bytes", len(keyA))
		}
		for _, edit := range []func(*store.Route){func(*store.Route) {}, disabled} {
			inTable := *tt.a
			inTable.ID = 5
			edit(&inTable)
			table := routing.NewTable([]*store.Route{row(3, "GET", "", "/other"), &inTable, row(4, "GET", "", "/{a}/{b}")}, 1)
			if got := id(table.Conflict(mustCompile(t, tt.b))); (got == 5) != tt.same || got != 0 && got != 5 {
				t.Errorf("%q conflicts with route %d; same is %v", tt.b.Path, got, tt.same)
			}
		}
	}
	if _, err := routing.MatchKey(row(1, "GET", "", "a")); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a key of a bad row: %v", err)
	}
}

func TestConflictNeedsAMethodInCommon(t *testing.T) {
	t.Parallel()
	table := routing.NewTable([]*store.Route{row(1, "GET,POST", "", "/a/{x}"), row(2, "*", "", "/a/{x}"), row(3, "GET", "", "/a")}, 1)
	for methods, want := range map[string]int64{"GET": 1, "PUT,POST": 1, "PUT": 0, "HEAD": 0, "*": 2} {
		if got := id(table.Conflict(mustCompile(t, row(0, methods, "", "/a/{y}")))); got != want {
			t.Errorf("%s conflicts with route %d, want %d", methods, got, want)
		}
	}
	if got := table.Conflict(mustCompile(t, row(1, "GET", "", "/a/{y}"))); got != nil {
		t.Errorf("route 1 conflicts with itself, or %d", got.ID)
	}
	if got := table.Conflict(mustCompile(t, row(9, "GET", "h.com", "/a/{y}"))); got != nil {
		t.Errorf("another host conflicts with %d", got.ID)
	}
}
