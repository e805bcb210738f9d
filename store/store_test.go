package store_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
	"github.com/isekai-gateway/isekai/store/storetest"
)

var admin = store.Author{Actor: "admin", Source: "192.0.2.1"}

// childDSN makes the test binary a process that writes to this store.
const childDSN = "ISEKAI_TEST_CHILD_DSN"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childDSN); dsn != "" {
		if err := child(context.Background(), dsn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, pgtest.New(t), store.Options{}) })
}

func TestSQLiteFile(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, newSQLite(t), store.Options{}) })
}

func TestSQLiteMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, "sqlite::memory:", store.Options{}) })
}

func newSQLite(t *testing.T) (dsn string) {
	return "sqlite://" + filepath.Join(t.TempDir(), "isekai.db")
}

// open returns the migrated store at dsn, closed when the test ends.
func open(t *testing.T, dsn string, opts store.Options) store.Store {
	t.Helper()
	s := openOnly(t, dsn, opts)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func openOnly(t *testing.T, dsn string, opts store.Options) store.Store {
	t.Helper()
	// Unless a test is about them, a busy machine must not run into time limits.
	opts.ConnectTimeout = cmp.Or(opts.ConnectTimeout, time.Minute)
	opts.QueryTimeout = cmp.Or(opts.QueryTimeout, time.Minute)
	s, err := store.Open(t.Context(), dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t *testing.T, s store.Store, path, matchKey string) *store.Route {
	t.Helper()
	route := store.NewRoute(path, "http://a")
	route.MatchKey = matchKey
	route, err := s.Create(t.Context(), route, admin)
	if err != nil {
		t.Fatal(err)
	}
	return route
}

func revision(t *testing.T, s store.Store) int64 {
	t.Helper()
	number, err := s.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return number
}

func get(t *testing.T, s store.Store, id int64) *store.Route {
	t.Helper()
	route, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return route
}

func history(t *testing.T, s store.Store) []store.Change {
	t.Helper()
	changes, err := s.History(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}
