package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"time"
)

// deleteChunk is how many old rows one transaction removes, so that the writer is
// never kept from its other work for long.
const deleteChunk = 1000

// insertAtOnce is how many rows one statement inserts: a call costs more than a row.
const insertAtOnce = 50

// sqliteTime is how the driver writes times (_time_format).
const sqliteTime = "2006-01-02 15:04:05.999999999-07:00"

// insertLogsSQLite inserts without SQLite's check of foreign keys. With it, every
// statement keeps a journal of its own to be undone alone, and looks for the route of
// every row twice. Instead, the routes of all rows are looked up once, in the
// transaction, which is the only one that writes.
func (s *sqlStore) insertLogsSQLite(ctx context.Context, writer string, number int64, rows []RequestLog) error {
	conn, err := s.writer.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Also when ctx is done, or the connection would go on without.
	bare := context.WithoutCancel(ctx)
	defer checkForeignKeys(bare, conn)
	if _, err := conn.ExecContext(ctx, "PRAGMA foreign_keys = 0"); err != nil {
		return err
	}

	// A transaction of database/sql's might end a little after ctx, and Rollback
	// not wait for it.
	defer func() { _, _ = conn.ExecContext(bare, "ROLLBACK") }() // fails after the commit
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	//nolint:gosec // The clock is a function of SQL.
	result, err := conn.ExecContext(ctx, `INSERT INTO request_log_writers (id, batch, written_at) VALUES ($1, $2, `+s.clock+`)
		ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at WHERE batch < excluded.batch`, writer, number)
	if err != nil {
		return err
	}
	if fresh, err := result.RowsAffected(); err != nil || fresh == 0 {
		return err
	}
	if err := forgetRoutes(ctx, conn, rows); err != nil {
		return err
	}
	// Past database/sql, which would look at each argument and copy it.
	err = conn.Raw(func(driverConn any) error {
		statements := logStatements{conn: driverConn.(driver.ConnPrepareContext)}
		defer statements.close()
		for len(rows) > 0 {
			n := min(len(rows), insertAtOnce)
			if err := statements.insert(ctx, rows[:n]); err != nil {
				return err
			}
			rows = rows[n:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err = conn.ExecContext(bare, "COMMIT")
	return err
}

// checkForeignKeys has a connection check foreign keys again. One that does not, as in
// a transaction that can't be ended, is closed.
func checkForeignKeys(ctx context.Context, conn *sql.Conn) {
	var on bool
	_, err := conn.ExecContext(ctx, "PRAGMA foreign_keys = 1")
	if err == nil {
		err = conn.QueryRowContext(ctx, "PRAGMA foreign_keys").Scan(&on)
	}
	if err != nil || !on {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // closes it
	}
}

// forgetRoutes makes the routes of rows none that are not there.
func forgetRoutes(ctx context.Context, conn *sql.Conn, rows []RequestLog) error {
	exists := make(map[int64]bool)
	for i := range rows {
		id := rows[i].RouteID
		there, known := exists[id]
		if !known && id != 0 {
			err := conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM routes WHERE id = ?)", id).Scan(&there)
			if err != nil {
				return err
			}
			exists[id] = there
		}
		if !there {
			rows[i].RouteID = 0
		}
	}
	return nil
}

// logStatements inserts rows in one transaction.
type logStatements struct {
	conn  driver.ConnPrepareContext
	whole [2]driver.Stmt // for insertAtOnce rows, without and with their rare columns
	args  []driver.NamedValue
	time  []byte
}

// insert inserts up to insertAtOnce rows.
func (l *logStatements) insert(ctx context.Context, rows []RequestLog) error {
	rare := slices.ContainsFunc(rows, RequestLog.hasRare)
	l.args = l.args[:0]
	for i := range rows {
		l.add(&rows[i], rare)
	}
	which := &l.whole[0]
	if rare {
		which = &l.whole[1]
	}
	insert := *which
	if insert == nil || len(rows) < insertAtOnce {
		var err error
		if insert, err = l.conn.PrepareContext(ctx, insertLogsStatement(len(rows), rare)); err != nil {
			return err
		}
		if len(rows) < insertAtOnce { // the last ones
			defer insert.Close()
		} else {
			*which = insert
		}
	}
	_, err := insert.(driver.StmtExecContext).ExecContext(ctx, l.args)
	return err
}

func (l *logStatements) close() {
	for _, insert := range l.whole {
		if insert != nil {
			_ = insert.Close() // nothing depends on it
		}
	}
}

// hasRare says whether a row has a value in one of the columns that most have none in.
// Statements without them need a third fewer arguments, which cost more than the rows.
func (r RequestLog) hasRare() bool {
	return r.BytesIn != 0 || r.TraceID != "" || r.Consumer != "" || r.Error != "" || r.Query != "" || len(r.Headers) > 0
}

// insertLogsStatement inserts n rows. A row that can't be inserted undoes those before
// it only with the transaction.
func insertLogsStatement(n int, rare bool) string {
	columns, row := `route_id, method, host, path, status_code, response_time, duration_us, client_ip, user_agent, upstream,
			bytes_out, request_id, created_at`, "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	if rare {
		columns += ", bytes_in, trace_id, consumer, error, query, headers"
		row = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	}
	return "INSERT OR FAIL INTO request_logs (" + columns + ") VALUES " + row + strings.Repeat(", "+row, n-1)
}

// add adds the arguments of a row. One that is what it was in the row before is not made
// anew.
func (l *logStatements) add(r *RequestLog, rare bool) {
	width := 13
	if rare {
		width = 19
	}
	first := len(l.args) == 0
	add := func(v driver.Value) {
		l.args = append(l.args, driver.NamedValue{Ordinal: len(l.args) + 1, Value: v})
	}
	text := func(s string) {
		if !first {
			before := l.args[len(l.args)-width].Value
			if t, ok := before.(string); ok && t == s {
				add(before)
				return
			}
		}
		add(s)
	}
	if r.RouteID == 0 {
		add(nil)
	} else {
		add(r.RouteID)
	}
	text(r.Method)
	text(r.Host)
	text(r.Path)
	add(int64(r.Status))
	add(milliseconds(r.Duration))
	add(r.Duration.Microseconds())
	text(r.ClientIP)
	text(r.UserAgent)
	text(r.Upstream)
	add(r.BytesOut)
	text(r.RequestID)
	l.time = r.CreatedAt.AppendFormat(l.time[:0], sqliteTime)
	text(string(l.time))
	if rare {
		add(r.BytesIn)
		text(r.TraceID)
		text(r.Consumer)
		text(r.Error)
		text(r.Query)
		text(r.headersJSON())
	}
}

// maintainLogsSQLite needs no lock: the database has one writer.
func (s *sqlStore) maintainLogsSQLite(ctx context.Context, now time.Time, keep time.Duration) error {
	//nolint:gosec // So is this condition.
	if _, err := s.writer.ExecContext(ctx, "DELETE FROM request_log_writers WHERE "+s.since("written_at")+" > $1", keepWriters.Seconds()); err != nil {
		return err
	}
	for {
		result, err := s.writer.ExecContext(ctx, `DELETE FROM request_logs WHERE id IN (
			SELECT id FROM request_logs WHERE created_at < $1 ORDER BY created_at LIMIT $2)`,
			now.Add(-keep).Truncate(time.Microsecond), deleteChunk)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < deleteChunk {
			return err
		}
	}
}
