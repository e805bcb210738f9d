package ondemand

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// table returns a table of routes with these hosts; those with "off " before them
// are not enabled, those with "broken " don't compile.
func table(hosts ...string) *routing.Table {
	var rows []*store.Route
	for i, host := range hosts {
		row := store.NewRoute(fmt.Sprintf("/%d", i), "http://127.0.0.1:1")
		row.ID, row.Revision = int64(i+1), 1
		var off, broken bool
		host, off = strings.CutPrefix(host, "off ")
		row.Host, broken = strings.CutPrefix(host, "broken ")
		row.Enabled = !off
		if broken {
			row.Path = "/{"
		}
		rows = append(rows, row)
	}
	return routing.NewTable(rows, 1)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	routes := table("api.example.com", "Mixed.Example.COM", "bücher.example", "192.0.2.7", "2001:db8::1", "*.wild.test", "",
		"off off.example.com", "broken broken.example.com", "*.other.test", "*.deep.other.test")
	for name, want := range map[string]error{
		"api.example.com":       nil,
		"API.Example.com":       nil,
		"api.example.com.":      nil,
		"mixed.example.com":     nil,
		"xn--bcher-kva.example": nil,
		"XN--BCHER-KVA.example": nil,
		"bücher.example":        nil,
		"192.0.2.7":             nil,
		"2001:db8::1":           nil,
		"2001:0db8:0::1":        nil,
		"[2001:db8::1]":         nil,
		"192.0.2.8":             ErrNoRoute,
		"2001:db8::2":           ErrNoRoute,
		"example.com":           ErrNoRoute,
		"x.api.example.com":     ErrNoRoute,
		"off.example.com":       ErrNoRoute,
		"broken.example.com":    ErrNoRoute,
		"anything.test":         ErrNoRoute,
		"wild.test":             ErrNoRoute,
		"a.wild.test":           ErrWildcard,
		"a.b.wild.test":         ErrWildcard,
		"*.wild.test":           ErrNoRoute,
		"*.a.wild.test":         ErrNoRoute,
	} {
		err := Check(routes, nil, name)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"", "*", "a b", "http://api.example.com", "api.example.com:443", "api.example.com/", "a\x00b", "-a.example.com", "fe80::1%eth0",
		strings.Repeat("a.", 127) + "test"} {
		if Check(routes, NewBudget(9, time.Hour), name) == nil {
			t.Errorf("%q is allowed", name)
		}
	}
	if err := Check(nil, nil, "api.example.com"); !errors.Is(err, ErrNotReady) {
		t.Errorf("without a table: %v", err)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	routes := table("*.a.test", "*.b.test", "*.sub.a.test", "named.a.test")
	b := NewBudget(3, time.Hour)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b.now = func() time.Time { return now }
	try := func(want error, names ...string) {
		t.Helper()
		for _, name := range names {
			if err := Check(routes, b, name); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
	try(nil, "1.a.test")
	now = now.Add(30 * time.Minute)
	try(nil, "2.a.test", "3.a.test", "1.a.test", "2.A.test.", "3.a.test")
	try(ErrTooMany, "4.a.test", "5.a.test")
	// Other wildcards have their own; the longest one counts, and exact names take none.
	try(nil, "1.b.test", "x.sub.a.test", "y.sub.a.test", "z.sub.a.test", "named.a.test")
	try(ErrTooMany, "w.sub.a.test")
	// The first place is free again, the others are not.
	now = now.Add(31 * time.Minute)
	try(nil, "4.a.test", "2.a.test")
	try(ErrTooMany, "1.a.test", "5.a.test")
	now = now.Add(2 * time.Hour)
	try(nil, "1.a.test", "5.a.test", "6.a.test")
	try(ErrTooMany, "2.a.test")
}

// TestBudgetIsBounded floods many wildcards.
func TestBudgetIsBounded(t *testing.T) {
	t.Parallel()
	b := NewBudget(maxTracked, time.Hour)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b.now = func() time.Time { return now }
	allowed := 0
	for i := range maxTracked + 1000 {
		if b.take(fmt.Sprintf("*.%d.test", i%1000), fmt.Sprintf("%d.%d.test", i, i%1000)) {
			allowed++
		}
	}
	if allowed != maxTracked || b.tracked != maxTracked {
		t.Errorf("%d names were allowed and %d are remembered, want %d", allowed, b.tracked, maxTracked)
	}
	now = now.Add(time.Hour)
	if !b.take("*.new.test", "x.new.test") || b.tracked != 1 || len(b.wildcards) != 1 {
		t.Errorf("after the window %d names of %d wildcards are remembered", b.tracked, len(b.wildcards))
	}
}

func TestBudgetConcurrently(t *testing.T) {
	t.Parallel()
	b := NewBudget(50, time.Hour)
	var mu sync.Mutex
	allowed := make(map[string]bool)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				name := fmt.Sprintf("%d.a.test", i)
				if b.take("*.a.test", name) {
					mu.Lock()
					allowed[name] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(allowed) != 50 {
		t.Errorf("%d names were allowed, want 50", len(allowed))
	}
}
