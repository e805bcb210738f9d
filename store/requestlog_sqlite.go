package store

import (
	"context"
	"database/sql"
	"strings"
	"time"
)

// deleteChunk is how many old rows one transaction removes, so that the writer is
// never kept from its other work for long.
const deleteChunk = 1000

// insertAtOnce is how many rows one statement inserts: a call costs more than a row.
const insertAtOnce = 50

func (s *sqlStore) insertLogsSQLite(ctx context.Context, writer string, number int64, rows []RequestLog) error {
	tx, err := s.writer.BeginTx(ctx, &sql.TxOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	result, err := tx.ExecContext(ctx, `INSERT INTO request_log_writers (id, batch, written_at) VALUES ($1, $2, `+s.clock+`)
		ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at WHERE batch < excluded.batch`, writer, number)
	if err != nil {
		return err
	}
	if fresh, err := result.RowsAffected(); err != nil || fresh == 0 {
		return err
	}
	whole := len(rows) / insertAtOnce * insertAtOnce
	if whole > 0 {
		if err := insertChunks(ctx, tx, rows[:whole]); err != nil {
			return err
		}
	}
	if rest := rows[whole:]; len(rest) > 0 {
		if _, err := tx.ExecContext(ctx, insertLogsStatement(len(rest)), logArguments(rest)...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// insertChunks inserts a multiple of insertAtOnce rows.
func insertChunks(ctx context.Context, tx *sql.Tx, rows []RequestLog) error {
	insert, err := tx.PrepareContext(ctx, insertLogsStatement(insertAtOnce))
	if err != nil {
		return err
	}
	defer insert.Close()
	for ; len(rows) > 0; rows = rows[insertAtOnce:] {
		if _, err := insert.ExecContext(ctx, logArguments(rows[:insertAtOnce])...); err != nil {
			return err
		}
	}
	return nil
}

// insertLogsStatement inserts n rows. A route that is not there becomes none.
func insertLogsStatement(n int) string {
	const row = "((SELECT id FROM routes WHERE id = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	return `INSERT INTO request_logs (
			route_id, method, host, path, status_code, response_time, duration_us, client_ip, user_agent, upstream,
			bytes_in, bytes_out, request_id, trace_id, consumer, error, created_at, query, headers)
		VALUES ` + row + strings.Repeat(", "+row, n-1)
}

func logArguments(rows []RequestLog) []any {
	args := make([]any, 0, 19*len(rows))
	for i := range rows {
		r := &rows[i]
		args = append(args, nullID(r.RouteID), r.Method, r.Host, r.Path, r.Status, milliseconds(r.Duration),
			r.Duration.Microseconds(), r.ClientIP, r.UserAgent, r.Upstream, r.BytesIn, r.BytesOut, r.RequestID, r.TraceID,
			r.Consumer, r.Error, r.CreatedAt, r.Query, r.headersJSON())
	}
	return args
}

// maintainLogsSQLite needs no lock: the database has one writer.
func (s *sqlStore) maintainLogsSQLite(ctx context.Context, now time.Time, keep time.Duration) error {
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
