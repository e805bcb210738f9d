package store

import (
	"context"
	"database/sql"
	"time"
)

// pruneStep is how many revisions one transaction removes, so that none is long.
const pruneStep = 500

// PruneHistory implements Histories.
func (s *sqlStore) PruneHistory(ctx context.Context, before time.Time) (int, error) {
	var last sql.NullInt64
	err := s.query(ctx, "pruning the history", func(ctx context.Context, q querier) error {
		return q.QueryRowContext(ctx, `SELECT max(revision) FROM (
				SELECT max(revision) AS revision FROM revisions WHERE created_at < $1
				UNION ALL SELECT max(revision) FROM credential_revisions WHERE created_at < $1) AS old`,
			before.UTC().Truncate(time.Microsecond)).Scan(&last)
	})
	if err != nil || !last.Valid {
		return 0, err
	}
	total := 0
	for {
		n, err := s.pruneSome(ctx, last.Int64)
		if total += n; err != nil || n < pruneStep {
			return total, s.explain(ctx, "pruning the history", err)
		}
	}
}

// pruneSome removes the oldest revisions, none after last. It removes them in order
// and from both tables at once, so that the history never has a gap.
func (s *sqlStore) pruneSome(ctx context.Context, last int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, max(bulkTimeout, s.queryTimeout))
	defer cancel()
	tx, err := s.writer.BeginTx(ctx, &s.dialect.write)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if s.lockPruning != "" {
		var mine bool
		if err := tx.QueryRowContext(ctx, s.lockPruning).Scan(&mine); err != nil || !mine {
			return 0, err
		}
	}
	oldest, err := readNumbers(ctx, tx, `SELECT revision FROM (
			SELECT DISTINCT revision FROM revisions WHERE revision <= $1 ORDER BY revision LIMIT $2) AS r
		UNION SELECT revision FROM (
			SELECT DISTINCT revision FROM credential_revisions WHERE revision <= $1 ORDER BY revision LIMIT $2) AS c
		ORDER BY revision LIMIT $2`, last, pruneStep)
	if err != nil || len(oldest) == 0 {
		return 0, err
	}
	for _, statement := range []string{
		"DELETE FROM revisions WHERE revision <= $1", "DELETE FROM credential_revisions WHERE revision <= $1",
	} {
		if _, err := tx.ExecContext(ctx, statement, oldest[len(oldest)-1]); err != nil {
			return 0, err
		}
	}
	return len(oldest), tx.Commit()
}
