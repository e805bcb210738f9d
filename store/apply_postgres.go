package store

import (
	"context"
	"database/sql"
)

// insertMany inserts rows in one statement and returns their ids. The ids are drawn
// first, so that it is known which row has which.
func insertMany(ctx context.Context, tx *sql.Tx, rows []bulkRow, sign signature) ([]int64, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids, err := readNumbers(ctx, tx, "SELECT nextval(pg_get_serial_sequence('routes', 'id')) FROM generate_series(1, $1)", len(rows))
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO routes (
			id, name, host, path, method, target_url, enabled, rate_limit, timeout, priority, spec, match_key,
			revision, updated_by, updated_from, created_at, updated_at)
		SELECT `+unnested+`, $13, $14, $15, $16, $16 FROM `+unnest, arrays(ids, rows, sign)...)
	return ids, err
}

// updateMany updates rows in one statement.
func updateMany(ctx context.Context, tx *sql.Tx, rows []bulkRow, sign signature) error {
	if len(rows) == 0 {
		return nil
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	result, err := tx.ExecContext(ctx, `UPDATE routes SET (
			name, host, path, method, target_url, enabled, rate_limit, timeout, priority, spec, match_key,
			revision, updated_by, updated_from, updated_at, deleted_at)
		= ROW (u.name, u.host, u.path, u.method, u.target_url, u.enabled, u.rate_limit, u.timeout, u.priority, u.spec::jsonb, u.match_key,
			$13::bigint, $14::text, $15::text, $16::timestamptz, NULL)
		FROM `+unnest+` WHERE routes.id = u.id`, arrays(ids, rows, sign)...)
	return affected(result, err, len(rows))
}

// unnest makes rows of arrays, and unnested are their columns as those of routes.
const (
	unnest = `unnest($1::integer[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::integer[],
			$9::integer[], $10::integer[], $11::text[], $12::text[])
		AS u (id, name, host, path, method, target_url, enabled, rate_limit, timeout, priority, spec, match_key)`
	unnested = `u.id, u.name, u.host, u.path, u.method, u.target_url, u.enabled, u.rate_limit, u.timeout, u.priority,
		u.spec::jsonb, u.match_key`
)

// arrays returns the arguments of unnest, and the signature after them.
func arrays(ids []int64, rows []bulkRow, sign signature) []any {
	var (
		texts   [7][]string
		numbers [3][]int64
		enabled = make([]bool, len(rows))
	)
	for t := range texts {
		texts[t] = make([]string, len(rows))
	}
	for n := range numbers {
		numbers[n] = make([]int64, len(rows))
	}
	for i, r := range rows {
		for t, text := range []string{r.Name, r.Host, r.Path, r.Method, r.TargetURL, r.spec, r.MatchKey} {
			texts[t][i] = text
		}
		for n, number := range []int{r.RateLimit, r.Timeout, r.Priority} {
			numbers[n][i] = int64(number)
		}
		enabled[i] = r.Enabled
	}
	return []any{ids, texts[0], texts[1], texts[2], texts[3], texts[4], enabled, numbers[0], numbers[1], numbers[2], texts[5], texts[6],
		sign.revision, sign.by.Actor, sign.by.Source, sign.at}
}
