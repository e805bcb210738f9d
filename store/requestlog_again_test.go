package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// uncancelled returns a DSN that leads to the database past requests to cancel a
// statement: as with a server that is slow or paused, they do not arrive in time.
func uncancelled(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := u.Host
	u.Host = l.Addr().String()
	var done sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	done.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer client.Close()
				var head [8]byte
				const cancelRequest = 80877102
				if _, err := io.ReadFull(client, head[:]); err != nil || binary.BigEndian.Uint32(head[4:]) == cancelRequest {
					return
				}
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				done.Go(func() {
					defer server.Close()
					if _, err := server.Write(head[:]); err == nil {
						_, _ = io.Copy(server, client) // the end shows on the other way
					}
				})
				_, _ = io.Copy(client, server)
			})
		}
	})
	return u.String()
}

// awaitWaiting returns when a server process of the database waits for such a lock.
func awaitWaiting(t *testing.T, p plain, lock string) {
	t.Helper()
	for waiting := 0; waiting == 0; {
		err := p.db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = $1`, lock).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A batch that was given up, while a server process still works at it, is in the log
// once: the second attempt waits for the first.
func TestPostgresLogBatchUnderWay(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	p := openPlain(t, "pgx", dsn, dsn)
	p.exec(t, `CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$`)
	p.exec(t, `CREATE TRIGGER hold AFTER INSERT ON request_logs FOR EACH STATEMENT EXECUTE FUNCTION hold()`)
	holding, err := p.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holding.Close()
	if _, err := holding.ExecContext(t.Context(), "SELECT pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}

	batch := store.LogBatch{Writer: uuid.NewString(), Number: 1, Rows: []*store.RequestLog{{Path: "/a", CreatedAt: time.Now()}, {Path: "/b", CreatedAt: time.Now()}}}
	first := openOnly(t, uncancelled(t, dsn), store.Options{})
	giveUp, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- first.InsertLogs(giveUp, batch) }()
	awaitWaiting(t, p, "advisory")
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("the first attempt: %v", err)
	}

	second := make(chan error, 1)
	go func() { second <- p.InsertLogs(t.Context(), batch) }()
	awaitWaiting(t, p, "transactionid")
	if _, err := holding.ExecContext(t.Context(), "SELECT pg_advisory_unlock(1)"); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	rows, err := p.Logs(t.Context(), store.LogFilter{}, nil, 10)
	if err != nil || len(rows) != 2 {
		t.Errorf("%d rows of a batch of 2, %v", len(rows), err)
	}
}
