package migrations

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// PostgresLock is the key of the advisory lock under which one process at a time
// changes the schema: "isekai" in ASCII.
const PostgresLock int64 = 0x6973656b6169

// ApplyPostgres runs one file of "postgres/" that says of itself that it may be run
// on its own and again, whatever else the database has. It leaves no trace in the
// table of migrations.
func ApplyPostgres(ctx context.Context, pool *pgxpool.Pool, file string) error {
	script, err := files.ReadFile("postgres/" + file)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		lock := fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", PostgresLock)
		// Without arguments, a text may have several statements.
		for _, text := range []string{lock, string(script)} {
			if _, err := tx.Conn().PgConn().Exec(ctx, text).ReadAll(); err != nil {
				return err
			}
		}
		return nil
	})
}
