package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// insertLogsPostgres sends a batch in one statement. It is nearly as fast as COPY,
// and leaves out routes that are not there, for which COPY would refuse the batch.
//
// The writer's row is locked before any row of the log is written. So a batch that is
// sent again waits for a server process that still works at it, and then finds whether
// that has committed.
func insertLogsPostgres(ctx context.Context, pool *pgxpool.Pool, writer string, number int64, rows []RequestLog) error {
	n := len(rows)
	var (
		routes, durations, in, out = make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
		statuses, times            = make([]int32, n), make([]int32, n)
		created                    = make([]time.Time, n)
		texts                      [12][]string
	)
	for t := range texts {
		texts[t] = make([]string, n)
	}
	for i := range rows {
		r := &rows[i]
		routes[i], durations[i], in[i], out[i] = r.RouteID, r.Duration.Microseconds(), r.BytesIn, r.BytesOut
		statuses[i], times[i], created[i] = int32(r.Status), int32(min(milliseconds(r.Duration), 1<<31-1)), r.CreatedAt
		for t, text := range []string{r.Method, r.Host, r.Path, r.ClientIP, r.UserAgent, r.Upstream, r.RequestID, r.TraceID, r.Consumer, r.Error, r.Query, r.headersJSON()} {
			texts[t][i] = text
		}
	}
	_, err := pool.Exec(ctx, `WITH fresh AS (
			INSERT INTO request_log_writers AS w (id, batch) VALUES ($20, $21)
			ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, written_at = excluded.written_at WHERE w.batch < excluded.batch
			RETURNING 1)
		INSERT INTO request_logs (
			route_id, duration_us, bytes_in, bytes_out, status_code, response_time, created_at,
			method, host, path, client_ip, user_agent, upstream, request_id, trace_id, consumer, error, query, headers)
		SELECT r.id, u.duration_us, u.bytes_in, u.bytes_out, u.status_code, u.response_time, u.created_at,
			u.method, u.host, u.path, u.client_ip, u.user_agent, u.upstream, u.request_id, u.trace_id, u.consumer, u.error,
			u.query, u.headers::jsonb
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::integer[], $7::timestamptz[],
			$8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
			$18::text[], $19::text[])
			WITH ORDINALITY AS u (route_id, duration_us, bytes_in, bytes_out, status_code, response_time, created_at,
			method, host, path, client_ip, user_agent, upstream, request_id, trace_id, consumer, error, query, headers, place)
		LEFT JOIN routes r ON r.id = u.route_id WHERE EXISTS (SELECT FROM fresh) ORDER BY u.place`,
		routes, durations, in, out, statuses, times, created,
		texts[0], texts[1], texts[2], texts[3], texts[4], texts[5], texts[6], texts[7], texts[8], texts[9], texts[10], texts[11],
		writer, number)
	return err
}
