package store

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Identity names the PostgreSQL database that a DSN leads to, without the password and
// whatever else may change while it stays the same database. It is empty for SQLite, and
// for what Open refuses.
func Identity(dsn string) string {
	if isSQLite(dsn) {
		return ""
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return ""
	}
	c := config.ConnConfig
	return fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
}
