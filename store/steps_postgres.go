package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pipelinePostgres sends all steps of a transaction at once, and returns what commits
// it. Writers stand in line for the revision's row; so what counts for all of them is
// how often the one that holds it waits for an answer: once, and once for the commit.
func pipelinePostgres(ctx context.Context, pool *pgxpool.Pool, steps []step) (commit func(context.Context) error, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var batch pgx.Batch
	batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	for _, s := range steps {
		batch.Queue(s.query, s.args...)
	}
	results := conn.SendBatch(ctx, &batch)
	err = readResults(results, steps)
	if closing := results.Close(); err == nil {
		err = closing
	}
	if err != nil {
		_, _ = conn.Exec(ctx, "ROLLBACK") // what matters is the error before it
		conn.Release()                    // closed, unless it is as it was
		return nil, err
	}
	return func(ctx context.Context) error {
		defer conn.Release()
		_, err := conn.Exec(ctx, "COMMIT")
		return err
	}, nil
}

func readResults(results pgx.BatchResults, steps []step) error {
	if _, err := results.Exec(); err != nil { // the beginning
		return err
	}
	for _, s := range steps {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		err = s.read(rows)
		rows.Close()
		if err == nil {
			err = rows.Err()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
