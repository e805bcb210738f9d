package store

import (
	"context"
	"database/sql"
	"time"
)

// deleteChunk is how many old rows one transaction removes, so that the writer is
// never kept from its other work for long.
const deleteChunk = 1000

func (s *sqlStore) insertLogsSQLite(ctx context.Context, rows []RequestLog) error {
	tx, err := s.writer.BeginTx(ctx, &sql.TxOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	insert, err := tx.PrepareContext(ctx, `INSERT INTO request_logs (
			route_id, method, host, path, status_code, response_time, duration_us, client_ip, user_agent, upstream,
			bytes_in, bytes_out, request_id, trace_id, consumer, error, created_at, query, headers)
		VALUES ((SELECT id FROM routes WHERE id = $1), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`)
	if err != nil {
		return err
	}
	defer insert.Close()
	for i := range rows {
		r := &rows[i]
		if _, err := insert.ExecContext(ctx, nullID(r.RouteID), r.Method, r.Host, r.Path, r.Status, milliseconds(r.Duration),
			r.Duration.Microseconds(), r.ClientIP, r.UserAgent, r.Upstream, r.BytesIn, r.BytesOut, r.RequestID, r.TraceID,
			r.Consumer, r.Error, r.CreatedAt, r.Query, r.headersJSON()); err != nil {
			return err
		}
	}
	return tx.Commit()
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
