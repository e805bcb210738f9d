package pgtest_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestNewGivesEachTestItsOwnDatabase(t *testing.T) {
	t.Parallel()
	first, second := pgtest.New(t), pgtest.New(t)
	for _, dsn := range []string{first, second} {
		if _, err := connect(t, dsn).Exec(t.Context(), "CREATE TABLE mine (id int)"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewDropsTheDatabase(t *testing.T) {
	t.Parallel()
	var dsn string
	t.Run("user", func(t *testing.T) {
		dsn = pgtest.New(t)
		conn, err := pgx.Connect(t.Context(), dsn) // left open on purpose
		if err != nil {
			t.Fatal(err)
		}
		_ = conn
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Error("the database outlived its test")
	}
}

func TestServerStopsAndStartsWithItsData(t *testing.T) {
	t.Parallel()
	s := pgtest.NewServer(t)
	if _, err := connect(t, s.DSN()).Exec(t.Context(), "CREATE TABLE kept (id int)"); err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	if conn, err := pgx.Connect(t.Context(), s.DSN()); err == nil {
		_ = conn.Close(t.Context())
		t.Fatal("a stopped server answers")
	}
	s.Start(t)
	if _, err := connect(t, s.DSN()).Exec(t.Context(), "TABLE kept"); err != nil {
		t.Error(err)
	}
}

func TestServerPausesAndResumes(t *testing.T) {
	t.Parallel()
	s := pgtest.NewServer(t)
	conn := connect(t, s.DSN())
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Pause(t)
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(context.Background()) }()
	select {
	case err := <-answered:
		t.Fatalf("a paused server answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	s.Resume(t)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// The download is some 24 MB, so it is tried only on request.
func TestDownload(t *testing.T) {
	if os.Getenv("ISEKAI_TEST_PG_DOWNLOAD") != "1" {
		t.Skip("set ISEKAI_TEST_PG_DOWNLOAD=1 to test with downloaded programs")
	}
	var version string
	if err := connect(t, pgtest.NewServer(t).DSN()).QueryRow(t.Context(), "SHOW server_version").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if version != "18.4" {
		t.Errorf("server version %q, not the pinned one", version)
	}
}
