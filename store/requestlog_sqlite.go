package store

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
)

// deleteChunk is how many old rows one transaction removes, so that the writer is
// never kept from its other work for long.
const deleteChunk = 1000

// insertAtOnce is how many rows one statement inserts: a call costs more than a row.
const insertAtOnce = 50

func (s *sqlStore) insertLogsSQLite(ctx context.Context, rows []RequestLog) error {
	tx, err := s.writer.BeginTx(ctx, &sql.TxOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if whole := len(rows) / insertAtOnce * insertAtOnce; whole > 0 {
		insert, err := tx.PrepareContext(ctx, insertLogsStatement(insertAtOnce))
		if err != nil {
			return err
		}
		defer insert.Close()
		for part := range slices.Chunk(rows[:whole], insertAtOnce) {
			if _, err := insert.ExecContext(ctx, logArguments(part)...); err != nil {
				return err
			}
		}
		rows = rows[whole:]
	}
	if len(rows) > 0 {
		if _, err := tx.ExecContext(ctx, insertLogsStatement(len(rows)), logArguments(rows)...); err != nil {
			return err
		}
	}
	return tx.Commit()
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
