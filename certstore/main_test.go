package certstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/certstore"
)

func TestMain(m *testing.M) {
	if dsn := os.Getenv(childDSN); dsn != "" {
		if err := child(context.Background(), dsn); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m,
		// certmagic's own file storage keeps its lock files longer than it needs them.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

func openStorage(t *testing.T, opts certstore.Options) *certstore.Storage {
	t.Helper()
	if opts.Log == nil {
		opts.Log = zap.NewNop
	}
	s, err := certstore.Open(opts)
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

func testKey(b byte) []byte { return bytes.Repeat([]byte{b}, certstore.KeySize) }

// database is a connection past the storage.
type database struct {
	t    *testing.T
	conn *pgx.Conn
}

func connect(t *testing.T, dsn string) *database {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &database{t, conn}
}

func (d *database) exec(statement string, args ...any) {
	d.t.Helper()
	if _, err := d.conn.Exec(d.t.Context(), statement, args...); err != nil {
		d.t.Fatal(err)
	}
}

func (d *database) one(to any, query string, args ...any) {
	d.t.Helper()
	if err := d.conn.QueryRow(d.t.Context(), query, args...).Scan(to); err != nil {
		d.t.Fatal(err)
	}
}
