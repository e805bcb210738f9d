package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// maintenanceLock is the key of the advisory lock of whoever tends the log's
	// partitions: "isekailo" in ASCII.
	maintenanceLock int64 = 0x6973656b61696c6f

	// daysAhead is how many partitions are made beside today's, so that a few days
	// without maintenance do no harm.
	daysAhead = 3

	partitionPrefix = "request_logs_p"
	partitionDay    = "20060102"

	// firstWait is how long a step waits for a lock while it has none that readers and
	// writers want. They wait behind it, so it is short; but longer than the usual
	// deadlock_timeout of a second, after which an autovacuum gives way.
	firstWait = 1500 * time.Millisecond

	// furtherWait is how long it waits for another while it has such a lock. Whoever has
	// what it wants, and wants what it has, finds no deadlock in less than
	// deadlock_timeout: the step gives up, not they.
	furtherWait = 250 * time.Millisecond
)

// errTended is why a step is not taken: another process tends the log.
var errTended = errors.New("another process tends the request log")

// maintainLogsPostgres makes the partitions of the next days and drops those whose
// last row is too old. A partition goes as a whole, so rows stay up to a day longer.
//
// Both need locks that no open transaction which has read the log gives way to, and
// behind them all others queue. So each is a short transaction of its own, that keeps
// what was done, and gives up soon: the next round tries again. (DETACH CONCURRENTLY,
// which would need no such lock, is refused where there is a default partition.)
func maintainLogsPostgres(ctx context.Context, pool *pgxpool.Pool, now time.Time, keep time.Duration) error {
	days, err := partitionsOf(ctx, pool)
	if err != nil {
		return err
	}
	oldest := now.Add(-keep)
	var failed []error
	for _, part := range []func() error{
		func() error { return makePartitions(ctx, pool, days, now.Truncate(24*time.Hour)) },
		func() error { return dropPartitions(ctx, pool, days, oldest) },
		func() error { return removeOldRows(ctx, pool, oldest) },
	} {
		err := part()
		if errors.Is(err, errTended) {
			break // who goes on with the rest too
		}
		if err != nil { // a partition that can't be made is no reason to keep old ones
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// tendLogs takes one step of maintenance in a transaction of its own, unless another
// process takes one.
func tendLogs(ctx context.Context, pool *pgxpool.Pool, step func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var mine bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", maintenanceLock).Scan(&mine); err != nil {
			return err
		}
		if !mine {
			return errTended
		}
		if err := waitAtMost(ctx, tx, firstWait); err != nil {
			return err
		}
		return step(tx)
	})
}

// waitAtMost bounds each wait for a lock, to the end of the transaction.
func waitAtMost(ctx context.Context, tx pgx.Tx, wait time.Duration) error {
	_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds()))
	return err
}

// partitionsOf returns the days that have a partition. It locks none of them, which
// pg_partition_tree would until the transaction's end.
func partitionsOf(ctx context.Context, db interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}) (map[time.Time]bool, error) {
	rows, err := db.Query(ctx, `SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'request_logs'::regclass`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	days := make(map[time.Time]bool)
	for _, name := range names {
		text, ok := strings.CutPrefix(name, partitionPrefix)
		if day, err := time.Parse(partitionDay, text); ok && err == nil {
			days[day] = true
		}
	}
	return days, nil
}

// makePartitions makes those of today and the next days that are not among days. What
// keeps one from being made keeps the others too, so it ends with the first failure.
func makePartitions(ctx context.Context, pool *pgxpool.Pool, days map[time.Time]bool, today time.Time) error {
	for ahead := range daysAhead + 1 {
		day := today.AddDate(0, 0, ahead)
		if days[day] {
			continue
		}
		err := tendLogs(ctx, pool, func(tx pgx.Tx) error {
			// Another process may have been here since.
			if days, err := partitionsOf(ctx, tx); err != nil || days[day] {
				return err
			}
			return makePartition(ctx, tx, day)
		})
		if err != nil {
			return fmt.Errorf("making the partition of %s: %w", day.Format(time.DateOnly), err)
		}
	}
	return nil
}

// makePartition makes a day's partition and takes that day's rows out of the default
// one, which would keep it from being attached.
//
// The first lock is in nobody's way. Then it waits for readers of the default partition.
// Those of the log as a whole have it too, and hold the log's own lock already, which is
// no obstacle here. ATTACH locks routes against writes at the very end.
func makePartition(ctx context.Context, tx pgx.Tx, day time.Time) error {
	name := partitionName(day)
	from, to := day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)
	if err := execAll(ctx, tx,
		"LOCK TABLE ONLY request_logs IN SHARE UPDATE EXCLUSIVE MODE",
		"CREATE TABLE "+name+" (LIKE request_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
		"LOCK TABLE request_logs_default IN ACCESS EXCLUSIVE MODE",
	); err != nil {
		return err
	}
	if err := waitAtMost(ctx, tx, furtherWait); err != nil {
		return err
	}
	return execAll(ctx, tx,
		fmt.Sprintf(`WITH moved AS (DELETE FROM request_logs_default WHERE created_at >= '%s' AND created_at < '%s' RETURNING *)
			INSERT INTO %s SELECT * FROM moved`, from, to, name),
		fmt.Sprintf("ALTER TABLE request_logs ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", name, from, to),
	)
}

// dropPartitions drops those of days that have ended by oldest, the oldest first. It
// ends with the first failure, as makePartitions does.
func dropPartitions(ctx context.Context, pool *pgxpool.Pool, days map[time.Time]bool, oldest time.Time) error {
	var old []time.Time
	for day := range days {
		if !day.AddDate(0, 0, 1).After(oldest) {
			old = append(old, day)
		}
	}
	slices.SortFunc(old, time.Time.Compare)
	for _, day := range old {
		err := tendLogs(ctx, pool, func(tx pgx.Tx) error {
			if days, err := partitionsOf(ctx, tx); err != nil || !days[day] {
				return err
			}
			return dropPartition(ctx, tx, day)
		})
		if err != nil {
			return fmt.Errorf("dropping the partition of %s: %w", day.Format(time.DateOnly), err)
		}
	}
	return nil
}

// dropPartition locks the log first, and then, with DROP, the partition and the default
// one: as readers do.
func dropPartition(ctx context.Context, tx pgx.Tx, day time.Time) error {
	if err := execAll(ctx, tx, "LOCK TABLE ONLY request_logs IN ACCESS EXCLUSIVE MODE"); err != nil {
		return err
	}
	if err := waitAtMost(ctx, tx, furtherWait); err != nil {
		return err
	}
	return execAll(ctx, tx, "DROP TABLE "+partitionName(day))
}

// removeOldRows removes what goes row by row, which is in nobody's way.
func removeOldRows(ctx context.Context, pool *pgxpool.Pool, oldest time.Time) error {
	return tendLogs(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "DELETE FROM request_logs_default WHERE created_at < $1", oldest); err != nil {
			return fmt.Errorf("removing rows without a partition: %w", err)
		}
		_, err := tx.Exec(ctx, "DELETE FROM request_log_writers WHERE written_at < clock_timestamp() - make_interval(secs => $1)", keepWriters.Seconds())
		if err != nil {
			return fmt.Errorf("forgetting writers: %w", err)
		}
		return nil
	})
}

func execAll(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func partitionName(day time.Time) string { return partitionPrefix + day.Format(partitionDay) }
