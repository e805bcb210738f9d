package gateway_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	_ "modernc.org/sqlite"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bundle struct {
	*gateway.Gateway
	logs *observer.ObservedLogs
}

func open(t *testing.T, dsn string, edit func(*gateway.Config)) bundle {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	cfg := gateway.Config{
		DSN:          dsn,
		Store:        store.Options{ConnectTimeout: time.Minute, QueryTimeout: time.Minute}, // a busy machine is no outage
		PollInterval: 10 * time.Millisecond,
		Log:          func() *zap.Logger { return zap.New(core) },
	}
	if edit != nil {
		edit(&cfg)
	}
	g, err := gateway.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	g.Start(t.Context())
	return bundle{g, logs}
}

func sqliteDSN(t *testing.T) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "isekai.db")
}

func (b bundle) create(t *testing.T, path string) *store.Route {
	t.Helper()
	row, _, err := b.Create(t.Context(), store.NewRoute(path, "http://127.0.0.1:1"), store.Author{Actor: "test"})
	if err != nil {
		t.Fatalf("creating %s: %v", path, err)
	}
	return row
}

func (b bundle) match(path string) *routing.Route {
	return b.Table().Match(&routing.Request{Method: "GET", Host: "x", Path: path})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it never happened: %s", what)
}

func TestWritesAreLiveWhenTheyReturn(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), func(cfg *gateway.Config) { cfg.PollInterval = time.Hour })
	row := g.create(t, "/a")
	if got := g.match("/a"); got == nil || got.ID != row.ID {
		t.Fatalf("after Create /a matches %v", got)
	}
	row.Path = "/b"
	updated, _, err := g.Update(t.Context(), row, row.Revision, store.Author{})
	if err != nil {
		t.Fatal(err)
	}
	if g.match("/a") != nil || g.match("/b") == nil {
		t.Error("after Update the old path is served, or the new one is not")
	}
	if _, _, err := g.Update(t.Context(), row, row.Revision, store.Author{}); !errors.Is(err, store.ErrStale) {
		t.Errorf("updating from an old revision: %v", err)
	}
	if err := g.Delete(t.Context(), row.ID, updated.Revision, store.Author{}); err != nil {
		t.Fatal(err)
	}
	if g.match("/b") != nil {
		t.Error("after Delete the route is served")
	}
	if _, _, err := g.Get(row.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get after Delete: %v", err)
	}
}

// What a gateway writes itself it need not ask the store for; what others have written
// before, it must.
func TestWritesAreNotReadBack(t *testing.T) {
	t.Parallel()
	dsn := sqliteDSN(t)
	seldom := func(cfg *gateway.Config) { cfg.PollInterval = time.Hour }
	g := open(t, dsn, seldom)
	loads := func() uint64 { return g.calls(store.CallLoad) }
	before := loads()
	row := g.create(t, "/a")
	if _, _, err := g.Update(t.Context(), row, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	if err := g.Delete(t.Context(), row.ID, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	if n := loads() - before; n != 0 {
		t.Errorf("the store was asked %d times", n)
	}
	open(t, dsn, seldom).create(t, "/b")
	g.create(t, "/c")
	if g.match("/b") == nil || g.match("/c") == nil || loads() == before {
		t.Error("a route is missing that another gateway has written before")
	}
}

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), nil)
	first := g.create(t, "/orders/{id}")
	tests := []struct {
		name string
		row  *store.Route
		want error
	}{
		{"conflict", store.NewRoute("/orders/{order}", "http://x"), store.ErrConflict},
		{"bad path", store.NewRoute("orders", "http://x"), store.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := g.Create(t.Context(), tt.row, store.Author{})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var conflict *store.ConflictError
			if errors.As(err, &conflict) && conflict.ID != first.ID {
				t.Errorf("the conflict names route %d, want %d", conflict.ID, first.ID)
			}
		})
	}
}

func TestConflictWithWhatAnotherNodeHasRemoved(t *testing.T) {
	t.Parallel()
	dsn := sqliteDSN(t)
	slow := func(cfg *gateway.Config) { cfg.PollInterval = time.Hour }
	one, other := open(t, dsn, slow), open(t, dsn, slow)
	row := one.create(t, "/a")
	if _, _, err := other.Create(t.Context(), store.NewRoute("/a", "http://x"), store.Author{}); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("a route of another node is no conflict: %v", err)
	}
	other.create(t, "/b") // it knows of /a now
	if err := one.Delete(t.Context(), row.ID, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	other.create(t, "/a")
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), nil)
	first := store.NewRoute("/a", "http://x")
	first.Priority = 1
	if _, _, err := g.Create(t.Context(), first, store.Author{}); err != nil {
		t.Fatal(err)
	}
	_, warnings, err := g.Create(t.Context(), store.NewRoute("/a", "http://x"), store.Author{})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "route 1") {
		t.Errorf("got %q, %v", warnings, err)
	}
}

func TestPlainSQLBecomesLive(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		dsn := sqliteDSN(t)
		g := open(t, dsn, nil)
		db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(dsn, "sqlite://")+"?_pragma=busy_timeout(5000)")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		plainSQL(t, g, func(statement string) error {
			_, err := db.ExecContext(t.Context(), statement)
			return err
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		dsn := pgtest.New(t)
		g := open(t, dsn, nil)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		plainSQL(t, g, func(statement string) error {
			_, err := conn.Exec(t.Context(), statement)
			return err
		})
	})
}

func plainSQL(t *testing.T, g bundle, exec func(string) error) {
	t.Helper()
	steps := []struct {
		statement, what string
		ok              func() bool
	}{
		{"INSERT INTO routes (path, target_url) VALUES ('/sql', 'http://127.0.0.1:1')", "the inserted route is served",
			func() bool { return g.match("/sql") != nil }},
		{"INSERT INTO routes (path, target_url) VALUES ('broken', 'http://127.0.0.1:1')", "the broken one is known",
			func() bool { return g.Table().Broken() == 1 && g.Health().Status == gateway.StatusDegraded }},
		{"UPDATE routes SET path = '/mended' WHERE path = 'broken'", "the mended one is served",
			func() bool { return g.match("/mended") != nil && g.Health().Status == gateway.StatusOK }},
		{"UPDATE routes SET enabled = false WHERE path = '/mended'", "the disabled one is not",
			func() bool { return g.match("/mended") == nil }},
		{"DELETE FROM routes WHERE path = '/sql'", "the deleted one is gone",
			func() bool { return g.match("/sql") == nil && g.Table().Len() == 1 }},
	}
	for _, step := range steps {
		if err := exec(step.statement); err != nil {
			t.Fatalf("%s: %v", step.statement, err)
		}
		eventually(t, step.what, step.ok)
	}
}

func TestSubscribersHearOfChanges(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), nil)
	kept, edited := g.create(t, "/kept"), g.create(t, "/edited")
	was := map[int64]*routing.Route{kept.ID: g.Table().Compiled(kept.ID), edited.ID: g.Table().Compiled(edited.ID)}

	var added, dropped atomic.Pointer[[]*routing.Route]
	cancel := g.Subscribe(&gateway.Subscriber{
		Changed: func(now, before []*routing.Route) {
			added.Store(&now)
			dropped.Store(&before)
		},
		CacheStats: func() cache.Stats { return cache.Stats{Size: 7} },
	})
	if got := g.CacheStats().Size; got != 7 {
		t.Errorf("cache size %d", got)
	}
	edited.Timeout = 5
	if _, _, err := g.Update(t.Context(), edited, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	if got := dropped.Load(); got == nil || len(*got) != 1 || (*got)[0] != was[edited.ID] {
		t.Errorf("dropped %v", got)
	}
	if got := added.Load(); got == nil || len(*got) != 1 || (*got)[0] != g.Table().Compiled(edited.ID) {
		t.Errorf("added %v", got)
	}
	if g.Table().Compiled(kept.ID) != was[kept.ID] {
		t.Error("a route that did not change was compiled anew")
	}
	cancel()
	dropped.Store(nil)
	if err := g.Delete(t.Context(), edited.ID, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	if dropped.Load() != nil {
		t.Error("told after the subscription was cancelled")
	}
}

func TestOpenOnlyReadsUntilStart(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tables := func() (n int) {
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}

	core, logs := observer.New(zapcore.InfoLevel)
	g, err := gateway.Open(gateway.Config{DSN: dsn, Log: func() *zap.Logger { return zap.New(core) }})
	if err != nil {
		t.Fatal(err)
	}
	g.WaitLoaded(t.Context())
	if g.Table() != nil || tables() != 0 {
		t.Errorf("table %v, %d tables in the database", g.Table(), tables())
	}
	if logs.Len() != 0 {
		t.Errorf("logged %v", logs.All())
	}
	g.Start(t.Context())
	if g.Table() == nil || tables() == 0 {
		t.Errorf("after Start: table %v, %d tables in the database", g.Table(), tables())
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}

	again, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.WaitLoaded(t.Context()); again.Table() == nil {
		t.Error("a store in use is not served before Start")
	}
}

func TestSeedOnlyOnce(t *testing.T) {
	t.Parallel()
	dsn := sqliteDSN(t)
	seed := func(path string) func(*gateway.Config) {
		return func(cfg *gateway.Config) { cfg.Seed = []*store.Route{store.NewRoute(path, "http://127.0.0.1:1")} }
	}
	first := open(t, dsn, seed("/first"))
	if first.match("/first") == nil {
		t.Fatal("the seed is not served")
	}
	if err := first.Delete(t.Context(), 1, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	second := open(t, dsn, seed("/second"))
	if second.Table().Len() != 0 {
		t.Error("a store that has had routes was seeded again")
	}
}

func TestStoreOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	g := open(t, server.DSN(), nil)
	row := g.create(t, "/a")

	server.Stop(t)
	eventually(t, "the outage is noticed", func() bool { return g.Health().Status == gateway.StatusDegraded })
	if g.match("/a") == nil {
		t.Error("the route is not served without the store")
	}
	if _, _, err := g.Create(t.Context(), store.NewRoute("/b", "http://x"), store.Author{}); !errors.Is(err, gateway.ErrStoreDown) {
		t.Errorf("Create: %v", err)
	}
	if err := g.Delete(t.Context(), row.ID, 0, store.Author{}); !errors.Is(err, gateway.ErrStoreDown) {
		t.Errorf("Delete: %v", err)
	}

	server.Start(t)
	eventually(t, "the recovery is noticed", func() bool { return g.Health().Status == gateway.StatusOK })
	g.create(t, "/b")
	for message, want := range map[string]int{"route store is down": 1, "route store is up": 1, "route store is up again": 1} {
		if got := g.logs.FilterMessage(message).Len(); got != want {
			t.Errorf("logged %q %d times, want %d", message, got, want)
		}
	}
	for _, entry := range g.logs.All() {
		if strings.Contains(entry.Message, "password") {
			t.Errorf("log line %q", entry.Message)
		}
	}
}

func TestStoreDownAtStart(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	server.Stop(t)
	g := open(t, server.DSN(), nil)
	if g.Table() != nil || g.Health().Status != gateway.StatusNotReady {
		t.Fatalf("health %+v", g.Health())
	}
	if _, _, err := g.Create(t.Context(), store.NewRoute("/a", "http://x"), store.Author{}); !errors.Is(err, gateway.ErrNotReady) {
		t.Errorf("Create: %v", err)
	}
	server.Start(t)
	eventually(t, "the gateway is ready", func() bool { return g.Health().Status == gateway.StatusOK })
	g.create(t, "/a")
}

func TestRestoredDumpIsLoadedAnew(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, nil)
	for _, path := range []string{"/a", "/b", "/c"} {
		g.create(t, path)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	// What restoring a dump taken after the first route amounts to.
	for _, statement := range []string{
		"SET session_replication_role = replica",
		"DELETE FROM routes WHERE id > 1",
		"DELETE FROM revisions WHERE revision > 1",
		"UPDATE revision_counter SET revision = 1",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	eventually(t, "the table goes back", func() bool { return g.Table().Revision() == 1 })
	if g.match("/a") == nil || g.match("/b") != nil {
		t.Error("the table is not the restored one")
	}
}

// A dump that is restored under a listener that goes on may have another change under
// the number of the last one.
func TestRestoredDumpWithTheSameRevision(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, nil)
	kept := g.create(t, "/kept")
	g.create(t, "/a")
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, statement := range []string{"SET session_replication_role = replica", "UPDATE routes SET path = '/b' WHERE path = '/a'"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	was := g.Table().Compiled(kept.ID)
	eventually(t, "the table is the restored one", func() bool {
		// More than once, since a poll has to have seen what was before.
		if _, err := conn.Exec(t.Context(), "UPDATE revision_counter SET changed_at = clock_timestamp()"); err != nil {
			t.Fatal(err)
		}
		return g.match("/b") != nil && g.match("/a") == nil
	})
	if revision := g.Table().Revision(); revision != 2 || g.Table().Compiled(kept.ID) != was {
		t.Errorf("revision %d, or a route that is the same was compiled anew", revision)
	}
}

func TestOpenRefusesWhatCanNotWork(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"", "mysql://x", "postgres://user:secret@%zz/"} {
		g, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop})
		if err == nil {
			_ = g.Close()
			t.Errorf("Open(%q) succeeded", dsn)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}
