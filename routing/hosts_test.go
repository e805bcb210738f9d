package routing_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func hostRow(id int64, host, path string) *store.Route {
	row := store.NewRoute(path, "http://127.0.0.1:1")
	row.ID, row.Revision, row.Host = id, id, host
	return row
}

func TestHosts(t *testing.T) {
	t.Parallel()
	var rows []*store.Route
	id := int64(0)
	add := func(host string, paths ...string) {
		for _, path := range paths {
			id++
			rows = append(rows, hostRow(id, host, path))
		}
	}
	add("", "/any")
	add("B.example.com", "/", "/a", "/a/b", "/a/{id}", "/a/{id:[0-9]+}", "/a/*", "/c")
	add("a.example.com", "/x")
	add("*.example.com", "/x", "/x/{id}", "/y")
	add("*.sub.example.com", "/x")
	for i := range 100 {
		add("many.test", fmt.Sprintf("/%d", i), fmt.Sprintf("/%d/{x}/tail", i))
	}
	off := hostRow(1000, "off.test", "/x")
	off.Enabled = false
	rows = append(rows, off)
	table := routing.NewTable(rows, 1)

	all := func(string) bool { return true }
	want := []routing.HostRoutes{
		{Host: "*.example.com", Routes: 3}, {Host: "*.sub.example.com", Routes: 1},
		{Host: "a.example.com", Routes: 1}, {Host: "b.example.com", Routes: 7}, {Host: "many.test", Routes: 200},
	}
	if diff := cmp.Diff(want, table.Hosts("", 100, all)); diff != "" {
		t.Error(diff)
	}
	for limit := 1; limit <= 6; limit++ {
		var got []routing.HostRoutes
		for after := ""; ; {
			page := table.Hosts(after, limit, all)
			got = append(got, page...)
			if len(page) < limit {
				break
			}
			after = page[len(page)-1].Host
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in pages of %d: %s", limit, diff)
		}
	}
	if got := table.Hosts("", 9, func(host string) bool { return host == "a.example.com" }); len(got) != 1 || got[0].Host != "a.example.com" {
		t.Errorf("filtered: %v", got)
	}

	for host, want := range map[string]struct {
		exact    bool
		wildcard string
	}{
		"b.example.com":       {true, "*.example.com"},
		"c.example.com":       {false, "*.example.com"},
		"x.sub.example.com":   {false, "*.sub.example.com"},
		"x.y.sub.example.com": {false, "*.sub.example.com"},
		"sub.example.com":     {false, "*.example.com"},
		"many.test":           {true, ""},
		"off.test":            {},
		"example.com":         {},
		"*.example.com":       {},
		".example.com":        {},
		"":                    {},
	} {
		if exact, wildcard := table.HasHost(host); exact != want.exact || wildcard != want.wildcard {
			t.Errorf("%q: %v, %q, want %+v", host, exact, wildcard, want)
		}
	}
	// Gone with the last route.
	gone := rows[8]
	deleted := *gone
	deleted.DeletedAt, deleted.Revision = &gone.CreatedAt, 2000
	if exact, _ := table.Apply([]*store.Route{&deleted}, 2000).HasHost("a.example.com"); exact {
		t.Error("a host is there without a route")
	}
}
