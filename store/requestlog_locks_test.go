package store_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// logDay is when the maintenance of these tests runs; it keeps a day.
var logDay = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

// partitions returns the days that have a partition, as 0506.
func partitions(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'request_logs'::regclass AND c.relname LIKE 'request\_logs\_p%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var days []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		days = append(days, strings.TrimPrefix(name, "request_logs_p2026"))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(days)
	return days
}

// awaitWaitingOr returns when a server process of the database waits for a table, or
// when done has something.
func awaitWaitingOr[T any](t *testing.T, db *sql.DB, done <-chan T) {
	t.Helper()
	for waiting := 0; waiting == 0 && len(done) == 0; {
		err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'relation'`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever has a transaction open keeps maintenance from its work, and nobody else from
// theirs. What it could not do is done later, and what it could is done.
func TestPostgresLogMaintenanceBehindATransaction(t *testing.T) {
	t.Parallel()
	var (
		before  = []string{"0501", "0502", "0503", "0504", "0505", "0506", "0507", "0508"}
		made    = append(slices.Clone(before), "0509")
		dropped = before[4:]
		after   = made[4:]
	)
	for _, test := range []struct {
		name       string
		statement  string   // what the transaction has done
		next       string   // and does while maintenance waits for it
		partitions []string // that there are before it ends, if that is certain
		writes     bool     // routes can be written meanwhile
	}{
		{
			"a reader of a day", "SELECT FROM request_logs WHERE created_at >= '2026-05-06Z' AND created_at < '2026-05-07Z'",
			"SELECT FROM request_logs", made, true,
		},
		{
			"a reader who goes on to routes", "SELECT FROM request_logs WHERE created_at >= '2026-05-06Z' AND created_at < '2026-05-07Z'",
			"UPDATE routes SET name = 'x'", made, false,
		},
		{"a reader of all days", "SELECT FROM request_logs", "SELECT FROM request_logs", before, true},
		{"a reader of all days who goes on to routes", "SELECT FROM request_logs", "UPDATE routes SET name = 'x'", before, false},
		{"a reader of the rest", "SELECT FROM request_logs_default", "SELECT FROM request_logs", before, true},
		{"a reader of an old day", "SELECT FROM request_logs_p20260501", "SELECT FROM request_logs", made, true},
		{"a writer of the log", "INSERT INTO request_logs (method, path, status_code, response_time, created_at) VALUES ('GET', '/x', 200, 1, '2026-05-06Z')",
			"SELECT FROM request_logs", made, true},
		{"a writer of routes", "UPDATE routes SET name = 'x'", "UPDATE routes SET name = 'y'", dropped, false},
		{"a writer of routes who goes on to the log", "UPDATE routes SET name = 'x'", "SELECT FROM request_logs", nil, false},
		{"who removes routes", "DELETE FROM routes WHERE id = 1", "DELETE FROM routes WHERE id = 2", dropped, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.New(t)
			s := open(t, dsn, store.Options{QueryTimeout: 20 * time.Second})
			db, err := sql.Open("pgx", dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for _, day := range []int{-5, -1} {
				if err := s.MaintainLogs(t.Context(), logDay.AddDate(0, 0, day), 10*24*time.Hour); err != nil {
					t.Fatal(err)
				}
			}
			create(t, s, "/first", "k1")
			create(t, s, "/second", "k2")

			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			if _, err := tx.ExecContext(t.Context(), test.statement); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tended := make(chan error, 1)
			go func() { tended <- s.MaintainLogs(ctx, logDay, 24*time.Hour) }()
			awaitWaitingOr(t, db, tended)

			others := map[string]func() error{
				"InsertLogs": func() error {
					return s.InsertLogs(t.Context(), store.LogBatch{Writer: uuid.NewString(), Number: 1, Rows: []*store.RequestLog{
						{Path: "/today", CreatedAt: logDay}, {Path: "/ahead", CreatedAt: logDay.AddDate(0, 0, 3)},
					}})
				},
				"Logs":        func() error { _, err := s.Logs(t.Context(), store.LogFilter{}, nil, 1); return err },
				"transaction": func() error { _, err := tx.ExecContext(t.Context(), test.next); return err },
			}
			if test.writes {
				others["Create"] = func() error {
					route := store.NewRoute("/third", "http://a")
					route.MatchKey = "k3"
					_, err := s.Create(t.Context(), route, admin)
					return err
				}
			}
			type result struct {
				name string
				err  error
			}
			results := make(chan result, len(others))
			for name, call := range others {
				go func() { results <- result{name, call()} }()
			}
			for range others {
				if r := <-results; r.err != nil {
					t.Errorf("%s: %v", r.name, r.err)
				}
			}
			err = <-tended
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "55P03" {
				t.Errorf("maintenance: %v", err)
			}
			if diff := cmp.Diff(test.partitions, partitions(t, db)); diff != "" && test.partitions != nil {
				t.Errorf("with the transaction open: %s", diff)
			}

			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := s.MaintainLogs(t.Context(), logDay, 24*time.Hour); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(after, partitions(t, db)); diff != "" {
				t.Errorf("afterwards: %s", diff)
			}
			rows, err := s.Logs(t.Context(), store.LogFilter{}, nil, 10)
			if err != nil || len(rows) != 2 || rows[0].Path != "/ahead" || rows[1].Path != "/today" {
				t.Errorf("rows %v, %v", rows, err)
			}
			var rest int
			if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM request_logs_default").Scan(&rest); err != nil || rest != 0 {
				t.Errorf("%d rows have no partition, %v", rest, err)
			}
		})
	}
}

// Processes that tend the log at the same time share the work, and do all of it.
func TestPostgresLogMaintenanceOfMany(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	for round := range 5 {
		now := logDay.AddDate(0, 0, 4*round)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := p.MaintainLogs(t.Context(), now, 24*time.Hour); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		var want []string
		for day := -1; day <= 3; day++ {
			if round > 0 || day >= 0 {
				want = append(want, now.AddDate(0, 0, day).Format("0102"))
			}
		}
		if diff := cmp.Diff(want, partitions(t, p.db)); diff != "" {
			t.Errorf("round %d: %s", round, diff)
		}
	}
}
