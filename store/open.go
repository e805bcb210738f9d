package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// acceptedDSNs ends the errors about a DSN, which never repeat it: it may hold a
// password.
const acceptedDSNs = `accepted are "postgres://user:password@host:5432/database", "host=... dbname=..." and "sqlite://path/to/file.db"`

func isSQLite(dsn string) bool { return strings.HasPrefix(dsn, "sqlite:") }

// Open returns the store that dsn names:
//
//   - "postgres://..." or "postgresql://...", or libpq's "key=value ..." form.
//     Open needs no live server: connections are made when they are used.
//   - "sqlite://data/isekai.db" (a relative path), "sqlite:///var/lib/isekai.db"
//     (an absolute one) or "sqlite::memory:". The file and its folder are made
//     if missing, so that a path that cannot work is an error here.
//
// The caller must Migrate before anything else, and Close at the end. No error
// of Open or of the store's methods contains the password.
func Open(ctx context.Context, dsn string, opts Options) (Store, error) {
	scheme, rest, hasScheme := strings.Cut(dsn, ":")
	switch {
	case dsn == "":
		return nil, errors.New("opening the store: no DSN given; " + acceptedDSNs)
	case isSQLite(dsn):
		return openSQLite(ctx, rest, opts)
	case hasScheme && (scheme == "postgres" || scheme == "postgresql"):
		return openPostgres(ctx, dsn, opts)
	case strings.Contains(dsn, "=") && !strings.Contains(dsn, "://"):
		return openPostgres(ctx, dsn, opts)
	case strings.Contains(dsn, "://"):
		return nil, fmt.Errorf("opening the store: unknown scheme %q; %s", scheme, acceptedDSNs)
	default:
		return nil, errors.New("opening the store: the DSN has no known form; " + acceptedDSNs)
	}
}
