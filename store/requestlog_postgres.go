package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// maintenanceLock is the key of the advisory lock of whoever tends the log's
	// partitions: "isekailo" in ASCII.
	maintenanceLock = 0x6973656b61696c6f

	// daysAhead is how many partitions are made beside today's, so that a few days
	// without maintenance do no harm.
	daysAhead = 3

	partitionPrefix = "request_logs_p"
	partitionDay    = "20060102"
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

// maintainLogsPostgres makes the partitions of the next days and drops those whose
// last row is too old. A partition goes as a whole, so rows stay up to a day longer.
func maintainLogsPostgres(ctx context.Context, pool *pgxpool.Pool, now time.Time, keep time.Duration) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", maintenanceLock).Scan(&mine); err != nil || !mine {
			return err
		}
		days, err := partitionsOf(ctx, tx)
		if err != nil {
			return err
		}
		today := now.Truncate(24 * time.Hour)
		for ahead := range daysAhead + 1 {
			day := today.AddDate(0, 0, ahead)
			if days[day] {
				continue
			}
			if err := makePartition(ctx, tx, day); err != nil {
				return fmt.Errorf("making the partition of %s: %w", day.Format(time.DateOnly), err)
			}
		}
		oldest := now.Add(-keep)
		for day := range days {
			if day.AddDate(0, 0, 1).After(oldest) {
				continue
			}
			if _, err := tx.Exec(ctx, "DROP TABLE "+partitionName(day)); err != nil {
				return fmt.Errorf("dropping the partition of %s: %w", day.Format(time.DateOnly), err)
			}
		}
		if _, err = tx.Exec(ctx, "DELETE FROM request_logs_default WHERE created_at < $1", oldest); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "DELETE FROM request_log_writers WHERE written_at < clock_timestamp() - make_interval(secs => $1)", keepWriters.Seconds())
		return err
	})
}

// partitionsOf returns the days that have a partition.
func partitionsOf(ctx context.Context, tx pgx.Tx) (map[time.Time]bool, error) {
	rows, err := tx.Query(ctx, "SELECT relid::regclass::text FROM pg_partition_tree('request_logs') WHERE isleaf")
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	days := make(map[time.Time]bool)
	for _, name := range names {
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			name = name[i+1:]
		}
		text, ok := strings.CutPrefix(name, partitionPrefix)
		if day, err := time.Parse(partitionDay, text); ok && err == nil {
			days[day] = true
		}
	}
	return days, nil
}

// makePartition makes a day's partition and takes that day's rows out of the default
// one, which would keep it from being attached.
func makePartition(ctx context.Context, tx pgx.Tx, day time.Time) error {
	name := partitionName(day)
	from, to := day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)
	for _, statement := range []string{
		"LOCK TABLE request_logs IN SHARE UPDATE EXCLUSIVE MODE",
		"CREATE TABLE " + name + " (LIKE request_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
		"LOCK TABLE request_logs_default IN ACCESS EXCLUSIVE MODE",
		fmt.Sprintf(`WITH moved AS (DELETE FROM request_logs_default WHERE created_at >= '%s' AND created_at < '%s' RETURNING *)
			INSERT INTO %s SELECT * FROM moved`, from, to, name),
		fmt.Sprintf("ALTER TABLE request_logs ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", name, from, to),
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func partitionName(day time.Time) string { return partitionPrefix + day.Format(partitionDay) }
