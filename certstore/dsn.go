package certstore

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Errors about a DSN. They never repeat it: it may hold a password.
var (
	errNoDSN = errors.New("no database is named for the certificates: name a PostgreSQL, as in " +
		`"storage isekai {env.ISEKAI_DATABASE_URL}"; without one, leave the option out: Caddy then keeps certificates in files`)
	errSQLite = errors.New("certificates can be kept in PostgreSQL only; with SQLite there is one gateway, " +
		"for which Caddy's own file storage does the same: leave the option storage out")
	errBadDSN = errors.New(`the PostgreSQL DSN of the certificates cannot be parsed; accepted are "postgres://user:password@host:5432/database?sslmode=require", ` +
		`with special characters of the password percent-encoded, and "host=... dbname=..."`)
)

func parseDSN(dsn string) (*pgxpool.Config, error) {
	switch {
	case dsn == "":
		return nil, errNoDSN
	case strings.HasPrefix(dsn, "sqlite:"):
		return nil, errSQLite
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, errBadDSN // not wrapped: the parser hides a password only as well as it can
	}
	return config, nil
}
