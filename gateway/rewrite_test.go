package gateway_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func plan(edits ...gateway.Edit) func(context.Context, *routing.Table) (*gateway.Plan, error) {
	return func(context.Context, *routing.Table) (*gateway.Plan, error) {
		return &gateway.Plan{Edits: append([]gateway.Edit(nil), edits...)}, nil
	}
}

func TestRewriteIsOneChangeOfTheTable(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), func(cfg *gateway.Config) { cfg.PollInterval = time.Hour })
	old := g.create(t, "/old")
	var told [][2]int
	cancel := g.Subscribe(&gateway.Subscriber{CacheStats: func() cache.Stats { return cache.Stats{} }, Changed: func(added, dropped []*routing.Route) {
		told = append(told, [2]int{len(added), len(dropped)})
	}})
	defer cancel()
	moved := *old
	moved.Path = "/moved"
	done, err := g.Rewrite(t.Context(), gateway.Rewrite{Plan: plan(
		gateway.Edit{Ref: 1, After: store.NewRoute("/old", "http://127.0.0.1:1")},
		gateway.Edit{Ref: 2, Before: old, After: &moved},
	)}, store.Author{})
	if err != nil {
		t.Fatal(err)
	}
	if done.Revision != 2 || done.Table != g.Table() || g.match("/moved").ID != old.ID || g.match("/old").ID != done.Edits[0].After.ID {
		t.Errorf("revision %d, %+v", done.Revision, done.Edits)
	}
	if len(told) != 1 || told[0] != [2]int{2, 1} {
		t.Errorf("subscribers were told %v", told)
	}
}

func TestRewriteNeverLosesAnothersWrite(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	first, second := open(t, dsn, nil), open(t, dsn, nil)
	counter := first.create(t, "/counter")
	// Everybody counts up what they see; only if none overwrites another does it add up.
	const each = 10
	var all sync.WaitGroup
	for _, g := range []bundle{first, second} {
		all.Go(func() {
			for range each {
				_, err := g.Rewrite(t.Context(), gateway.Rewrite{Plan: func(_ context.Context, table *routing.Table) (*gateway.Plan, error) {
					row, _, _ := table.Get(counter.ID)
					next := *row
					next.Timeout++
					return &gateway.Plan{Edits: []gateway.Edit{{Before: row, After: &next}}}, nil
				}}, store.Author{})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	row, err := first.Store().Get(t.Context(), counter.ID)
	if err != nil || row.Timeout != counter.Timeout+2*each {
		t.Errorf("counted to %d, want %d; %v", row.Timeout, counter.Timeout+2*each, err)
	}
}

func TestRewriteErrors(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), nil)
	g.create(t, "/a")
	broken := errors.New("broken")
	attempts := 0
	_, err := g.Rewrite(t.Context(), gateway.Rewrite{Plan: func(context.Context, *routing.Table) (*gateway.Plan, error) {
		attempts++
		return nil, store.ErrStale
	}}, store.Author{})
	if !errors.Is(err, store.ErrStale) || attempts < 2 {
		t.Errorf("after %d attempts: %v", attempts, err)
	}
	_, err = g.Rewrite(t.Context(), gateway.Rewrite{Plan: func(context.Context, *routing.Table) (*gateway.Plan, error) { return nil, broken }}, store.Author{})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	_, err = g.Rewrite(t.Context(), gateway.Rewrite{Plan: plan(
		gateway.Edit{Ref: 4, After: store.NewRoute("no-slash", "http://a")},
		gateway.Edit{Ref: 2, After: store.NewRoute("/a", "http://a")},
		gateway.Edit{Ref: 3, After: store.NewRoute("/ok", "http://a")},
	)}, store.Author{})
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) || len(refused.Problems) != 2 {
		t.Fatalf("got %v", err)
	}
	if p := refused.Problems; p[0].Ref != 2 || !errors.Is(p[0].Err, store.ErrConflict) || p[1].Ref != 4 || !errors.Is(p[1].Err, store.ErrInvalid) {
		t.Errorf("got %+v", p)
	}
	if n := g.Table().Revision(); n != 1 {
		t.Errorf("revision %d", n)
	}
}

func TestHistoryIsPruned(t *testing.T) {
	t.Parallel()
	dsn := sqliteDSN(t)
	g := open(t, dsn, nil) // keeps all
	for i := range 3 {
		g.create(t, fmt.Sprint("/", i))
	}
	pruning := open(t, dsn, func(cfg *gateway.Config) { cfg.HistoryRetention = time.Nanosecond })
	eventually(t, "the history is empty", func() bool {
		list, err := g.Revisions(t.Context(), store.RevisionFilter{}, 0, 10, 1)
		return err == nil && len(list) == 0
	})
	if pruning.Table().Len() != 3 {
		t.Errorf("%d routes", pruning.Table().Len())
	}
	if _, err := g.RoutesAt(t.Context(), 1); !errors.Is(err, store.ErrHistoryGone) {
		t.Errorf("got %v", err)
	}
}

func TestHistoryThatMayNotBePruned(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	owner := open(t, dsn, nil)
	owner.create(t, "/a")
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	run := func(statements ...string) {
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Errorf("%s: %v", s, err)
			}
		}
	}
	const role = "isekai_test_no_pruning"
	run("DROP ROLE IF EXISTS "+role, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'",
		"GRANT ALL ON ALL TABLES IN SCHEMA public TO "+role, "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "+role,
		"REVOKE DELETE ON revisions, credential_revisions FROM "+role)
	t.Cleanup(func() { run("DROP OWNED BY "+role, "DROP ROLE "+role) })
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "secret")
	g := open(t, u.String(), func(cfg *gateway.Config) { cfg.HistoryRetention = time.Nanosecond })
	eventually(t, "it says that it may not", func() bool {
		return g.logs.FilterMessageSnippet("may not remove old revisions").Len() == 1
	})
	g.create(t, "/b") // it works nevertheless
	if list, err := g.Revisions(t.Context(), store.RevisionFilter{}, 0, 10, 1); err != nil || len(list) != 2 {
		t.Errorf("%d revisions, %v", len(list), err)
	}
}
