package store_test

import (
	"database/sql"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// A connection to a server that no longer takes writes, since another was promoted, is
// let go at the first write, which then reaches the one that does.
func TestPostgresServerThatBecameAStandby(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	create(t, p, "/a", "a")
	p.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)
	p.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	if _, err := p.Create(t.Context(), store.NewRoute("/b", "http://b"), admin); err == nil {
		t.Fatal("a server that only reads took a write")
	}
	if _, _, err := p.Load(t.Context()); err != nil { // on the connection that only reads
		t.Fatal(err)
	}
	p.exec(t, `SET default_transaction_read_only = off`)
	p.exec(t, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$`)
	if _, err := p.Create(t.Context(), store.NewRoute("/b", "http://b"), admin); err != nil {
		t.Error(err)
	}
}

// "cached plan must not change result type" is what a statement ends with that was
// prepared before a column's type has changed.
func TestPostgresStatementsPreparedBeforeAChange(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	s := open(t, dsn, store.Options{MaxConns: 1})
	route := create(t, s, "/a", "a")
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, call := range map[string]func() error{
		"Load":    func() error { _, _, err := s.Load(t.Context()); return err },
		"Changes": func() error { _, err := s.Changes(t.Context(), 0); return err },
		"Get":     func() error { _, err := s.Get(t.Context(), route.ID); return err },
	} {
		for _, kind := range []string{"varchar(200)", "text"} {
			if err := call(); err != nil { // which prepares it
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := db.ExecContext(t.Context(), "ALTER TABLE routes ALTER COLUMN updated_by TYPE "+kind); err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), "ALTER TABLE routes ALTER COLUMN match_key TYPE "+kind); err != nil {
				t.Fatal(err)
			}
			if err := call(); err != nil {
				t.Errorf("%s after the change: %v", name, err)
			}
		}
	}
}
