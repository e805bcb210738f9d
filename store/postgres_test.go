package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

func inTx(t *testing.T, p plain, statements ...string) {
	t.Helper()
	tx, err := p.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	for _, statement := range statements {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresOneRevisionPerTransaction(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	create(t, p, "/first", "k")
	p.exec(t, `INSERT INTO routes (path, target_url) SELECT '/' || n, 'http://a' FROM generate_series(1, 100) n`)
	if got := revision(t, p); got != 2 {
		t.Errorf("revision %d, want 2", got)
	}
	inTx(t, p,
		`UPDATE routes SET name = 'x' WHERE id <= 10`,
		`SAVEPOINT s`,
		`DELETE FROM routes`,
		`ROLLBACK TO s`,
		`INSERT INTO routes (path, target_url) VALUES ('/new', 'http://a')`,
		`UPDATE routes SET name = 'y' WHERE path = '/new' OR id = 1`,
		`DELETE FROM routes WHERE id = 2`)
	if got := revision(t, p); got != 3 {
		t.Errorf("revision %d, want 3", got)
	}
	ops := map[int64]string{}
	for _, c := range history(t, p) {
		if c.Revision != 3 {
			continue
		}
		ops[c.RouteID] = c.Op
		if (c.Before == nil) != (c.Op == "create") || (c.After == nil) != (c.Op == "delete") {
			t.Errorf("route %d: %+v", c.RouteID, c)
		}
		if c.RouteID == 1 && (c.Before.Name != "" || c.After.Name != "y") {
			t.Errorf("the whole change of route 1 is from %q to %q", c.Before.Name, c.After.Name)
		}
	}
	want := map[int64]string{1: "update", 2: "delete"}
	for id := int64(3); id <= 10; id++ {
		want[id] = "update"
	}
	want[102] = "create"
	if d := cmp.Diff(want, ops); d != "" {
		t.Error(d)
	}
}

func TestPostgresRollbackTakesNoRevision(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	inTx(t, p, `SAVEPOINT s`, `INSERT INTO routes (path, target_url) VALUES ('/a', 'http://a')`, `ROLLBACK TO s`)
	if got := revision(t, p); got != 0 {
		t.Errorf("revision %d, want 0", got)
	}
	if got := create(t, p, "/a", "a"); got.Revision != 1 {
		t.Errorf("revision %d, want 1", got.Revision)
	}
}

func TestPostgresTruncate(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	create(t, p, "/a", "a")
	for _, statements := range [][]string{
		{`TRUNCATE routes CASCADE`},
		{`INSERT INTO routes (path, target_url) VALUES ('/b', 'http://b')`, `TRUNCATE routes CASCADE`},
		{`TRUNCATE routes CASCADE`, `INSERT INTO routes (path, target_url) VALUES ('/c', 'http://c')`},
	} {
		before := revision(t, p)
		inTx(t, p, statements...)
		if got := revision(t, p); got <= before {
			t.Errorf("%v: revision went from %d to %d", statements, before, got)
		}
		if _, err := p.Changes(t.Context(), before); !errors.Is(err, store.ErrResync) {
			t.Errorf("%v: Changes: %v", statements, err)
		}
	}
	routes, at, err := p.Load(t.Context())
	if err != nil || len(routes) != 1 || routes[0].Path != "/c" || routes[0].Revision != at {
		t.Errorf("Load: %+v at %d, error %v", routes, at, err)
	}
	if _, err := p.Changes(t.Context(), at); err != nil {
		t.Errorf("up to date, and yet: %v", err)
	}
}

// What a newer program has added to the schema does not keep an older one from working.
func TestPostgresNewerSchema(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	known := p.Stats().Schema
	p.exec(t, `INSERT INTO isekai_migrations (version_id, is_applied) VALUES (99999, true)`)
	p.exec(t, `ALTER TABLE routes ADD COLUMN of_the_future text NOT NULL DEFAULT ''`)
	for range 2 {
		if err := p.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Stats(); s.Schema != 99999 || s.SchemaKnown != known || known == 0 {
		t.Errorf("schema %d, known %d, was %d", s.Schema, s.SchemaKnown, known)
	}
	create(t, p, "/a", "a")
	if routes, _, err := p.Load(t.Context()); err != nil || len(routes) != 1 {
		t.Errorf("%d routes, error %v", len(routes), err)
	}
}

func TestPostgresNotifies(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	s := open(t, dsn, store.Options{})
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "LISTEN isekai_routes"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "/a", "a")
	for _, statement := range []string{
		`INSERT INTO routes (path, target_url) VALUES ('/b', 'http://b'), ('/c', 'http://c')`,
		`UPDATE routes SET enabled = false`,
		`DELETE FROM routes WHERE path = '/b'`,
		`TRUNCATE routes CASCADE`,
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for want := 1; want <= 5; want++ {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload != fmt.Sprint(want) {
			t.Errorf("notified of %q, want %d", n.Payload, want)
		}
	}
}

// Someone who may write routes needs no right on the history, and cannot slip
// by it with tables of the same name.
func TestPostgresTriggersRunWithTheirOwnersRights(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	tx, err := p.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // takes the role along, which belongs to the server
	for _, statement := range []string{
		`CREATE ROLE isekai_test_writer`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON routes TO isekai_test_writer`,
		`GRANT USAGE ON SEQUENCE routes_id_seq TO isekai_test_writer`,
		`SET LOCAL ROLE isekai_test_writer`,
		`CREATE TEMP TABLE revisions (LIKE public.routes)`,
		`SET LOCAL search_path = ''`,
		`INSERT INTO public.routes (path, target_url) VALUES ('/a', 'http://a')`,
		`UPDATE public.routes SET enabled = false`,
		`DELETE FROM public.routes`,
		`RESET ROLE`,
	} {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	var rows int
	if err := tx.QueryRowContext(t.Context(), "SELECT count(*) FROM public.revisions").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if rows != 1 {
		t.Errorf("%d rows in the history, want 1", rows)
	}
}

func TestPostgresWritersDoNotDeadlock(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	route := create(t, p, "/a", "a")
	create(t, p, "/b", "b")
	const rounds = 30
	var all sync.WaitGroup
	all.Go(func() {
		for i := range rounds {
			change := *route
			change.RateLimit = i
			if _, err := p.Update(t.Context(), &change, 0, admin); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		all.Go(func() {
			for range rounds {
				if _, err := p.db.ExecContext(t.Context(), `UPDATE routes SET timeout = timeout + 1`); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := revision(t, p); got != 2+3*rounds {
		t.Errorf("revision %d, want %d", got, 2+3*rounds)
	}
}

func TestPostgresWaitsAreBounded(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	s := open(t, dsn, store.Options{QueryTimeout: 2 * time.Second})
	route := create(t, s, "/a", "a")
	other, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	// Someone began a change in psql and went for lunch.
	if _, err := tx.ExecContext(t.Context(), `UPDATE routes SET name = 'x'`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), route.ID, 0, admin); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete: %v", err)
	}
	if got := get(t, s, route.ID); got.Name != "" {
		t.Errorf("reads see %+v", got)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Delete(t.Context(), route.ID, 0, admin); err != nil {
		t.Error(err)
	}
}

func TestPostgresOneConnectionIsEnough(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.New(t), store.Options{MaxConns: 1})
	route := create(t, s, "/a", "a")
	if _, err := s.Create(t.Context(), route, admin); !errors.Is(err, store.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if stats := s.Stats(); stats.MaxConns != 1 || stats.Driver != "postgres" {
		t.Errorf("got %+v", stats)
	}
}

func TestPostgresPoolSizeInDSN(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t) + "&pool_max_conns=3"
	for _, test := range []struct{ option, want int }{{0, 3}, {5, 5}} {
		if got := openOnly(t, dsn, store.Options{MaxConns: test.option}).Stats().MaxConns; got != test.want {
			t.Errorf("option %d: pool of %d, want %d", test.option, got, test.want)
		}
	}
}

func TestPostgresConnectionsCutBetweenCalls(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	route := create(t, p, "/a", "a")
	cut := func() {
		t.Helper()
		var load sync.WaitGroup // several pooled connections, all to be cut
		for range 4 {
			load.Go(func() { _, _, _ = p.Load(t.Context()) })
		}
		load.Wait()
		p.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'isekai'`)
	}
	for name, call := range map[string]func() error{
		"Ping":     func() error { return p.Ping(t.Context()) },
		"Revision": func() error { _, err := p.Revision(t.Context()); return err },
		"Load":     func() error { _, _, err := p.Load(t.Context()); return err },
		"Changes":  func() error { _, err := p.Changes(t.Context(), 0); return err },
		"Get":      func() error { _, err := p.Get(t.Context(), route.ID); return err },
		"History":  func() error { _, err := p.History(t.Context(), 0, 1); return err },
		"Update":   func() error { _, err := p.Update(t.Context(), route, 0, admin); return err },
	} {
		cut()
		if err := call(); err != nil {
			t.Errorf("%s after its connection was cut: %v", name, err)
		}
	}
}

func TestPostgresOutages(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	s := open(t, server.DSN(), store.Options{QueryTimeout: 2 * time.Second, ConnectTimeout: 2 * time.Second})
	route := create(t, s, "/a", "a")

	fails := func(when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for name, call := range map[string]func() error{
			"Ping":    func() error { return s.Ping(ctx) },
			"Load":    func() error { _, _, err := s.Load(ctx); return err },
			"Update":  func() error { _, err := s.Update(ctx, route, 0, admin); return err },
			"Migrate": func() error { return s.Migrate(ctx) },
		} {
			if err := call(); err == nil {
				t.Errorf("%s succeeded with the server %s", name, when)
			}
			if ctx.Err() != nil {
				t.Errorf("%s waited without bound for a server %s", name, when)
			}
		}
	}
	server.Stop(t)
	fails("stopped")
	server.Start(t)
	if _, err := s.Update(t.Context(), route, 0, admin); err != nil {
		t.Errorf("with the server back: %v", err)
	}
	server.Stop(t)
	server.Start(t)
	if routes, _, err := s.Load(t.Context()); err != nil || len(routes) != 1 {
		t.Errorf("after a restart: %d routes, error %v", len(routes), err)
	}
	server.Pause(t)
	fails("paused")
	server.Resume(t)
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("with the server resumed: %v", err)
	}
}

func TestPostgresListen(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	s := open(t, dsn, store.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, heard, ended := make(chan string, 1), make(chan int64, 10), make(chan error, 1)
	go func() {
		ended <- s.Listen(ctx, time.Minute, store.Listener{
			Ready:    func(server string) { ready <- server },
			Revision: func(revision int64) { heard <- revision },
		})
	}()
	select {
	case server := <-ready:
		if server == "" {
			t.Error("the server has no name")
		}
	case err := <-ended:
		t.Fatal(err)
	}
	plain, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close(context.Background()) }()
	const others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'isekai-listener'"
	var n int
	if err := plain.QueryRow(t.Context(), others).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d listeners, error %v", n, err)
	}
	if _, err := plain.Exec(t.Context(), "NOTIFY isekai_routes, 'nonsense'"); err != nil {
		t.Fatal(err)
	}
	for want := range int64(20) {
		create(t, s, fmt.Sprint("/", want), fmt.Sprint(want))
		select {
		case got := <-heard:
			if got != want+1 {
				t.Errorf("heard of %d, want %d", got, want+1)
			}
		case err := <-ended:
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestListenNeedsPostgres(t *testing.T) {
	t.Parallel()
	err := open(t, newSQLite(t), store.Options{}).Listen(t.Context(), time.Second, store.Listener{})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
