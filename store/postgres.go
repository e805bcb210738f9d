package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/isekai-gateway/isekai/store/migrations"
)

// migrationLock is the key of the advisory lock under which one process at a
// time migrates.
const migrationLock = migrations.PostgresLock

// pruningLock is the key of the advisory lock of whoever prunes the history:
// "isekaihi" in ASCII.
const pruningLock int64 = 0x6973656b61696869

// closeTimeout bounds Close. Connections that have not ended by then do so by
// themselves, within pgx's own time.
const closeTimeout = 5 * time.Second

func openPostgres(ctx context.Context, dsn string, opts Options) (Store, error) {
	config, err := parsePostgresDSN(dsn, opts)
	if err != nil {
		return nil, err
	}
	listening := config
	if opts.ListenDSN != "" {
		if listening, err = parsePostgresDSN(opts.ListenDSN, opts); err != nil {
			return nil, fmt.Errorf("listening: %w", err)
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	return &sqlStore{
		reader: db, writer: db,
		queryTimeout: opts.withDefaults().QueryTimeout,
		observer:     opts.Observe,
		dialect: dialect{
			name:         "postgres",
			goose:        goose.DialectPostgres,
			snapshot:     sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
			write:        sql.TxOptions{Isolation: sql.LevelReadCommitted},
			takeRevision: "SELECT isekai_next_revision()",
			load: func(ctx context.Context, tick func()) ([]*Route, int64, error) {
				return loadPostgres(ctx, pool, tick)
			},
			pipeline: func(ctx context.Context, steps []step) (func(context.Context) error, error) {
				return pipelinePostgres(ctx, pool, steps)
			},
			insertRoutes: insertMany,
			updateRoutes: updateMany,
			lockPruning:  fmt.Sprintf("SELECT pg_try_advisory_xact_lock(%d)", pruningLock),
			classify:     classifyPostgres,
			dropIdle:     pool.Reset,
			clock:        "clock_timestamp()",
			since: func(expression string) string {
				return "CAST(extract(epoch FROM clock_timestamp() - " + expression + ") AS double precision)"
			},
			commitLazily: " RETURNING set_config('synchronous_commit', 'off', true)",
			listen: func(ctx context.Context, heartbeat time.Duration, on Listener) error {
				return listenPostgres(ctx, listening.ConnConfig, heartbeat, on)
			},
			lockMigrations: func(ctx context.Context) (func(), error) {
				return lockPostgres(ctx, config.ConnConfig)
			},
			insertLogs: func(ctx context.Context, writer string, number int64, rows []RequestLog) error {
				return insertLogsPostgres(ctx, pool, writer, number, rows)
			},
			maintainLogs: func(ctx context.Context, now time.Time, keep time.Duration) error {
				return maintainLogsPostgres(ctx, pool, now, keep)
			},
			stats: func() Stats {
				stat := pool.Stat()
				return Stats{
					Driver:   "postgres",
					MaxConns: int(stat.MaxConns()),
					Open:     int(stat.TotalConns()),
					InUse:    int(stat.AcquiredConns()),
				}
			},
			close: func() error {
				// Both wait for the farewell of connections that a timeout has ended, which a
				// silent server takes long to answer: pgx gives it 15 seconds and more.
				closed := make(chan error, 1)
				go func() {
					err := db.Close()
					pool.Close()
					closed <- err
				}()
				select {
				case err := <-closed:
					return err
				case <-time.After(closeTimeout):
					return nil
				}
			},
		},
	}, nil
}

func parsePostgresDSN(dsn string, opts Options) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		// Not wrapped: the parser hides a password as well as it can, and it
		// cannot if a special character stands where it may not.
		return nil, errors.New("opening the store: the PostgreSQL DSN cannot be parsed; accepted are " +
			`"postgres://user:password@host:5432/database?sslmode=require", with special characters of the password percent-encoded, and "host=... dbname=..."`)
	}
	defaults := opts.withDefaults()
	// What the DSN says itself gives way to options, but not to their defaults.
	if opts.MaxConns > 0 || !strings.Contains(dsn, "pool_max_conns") {
		config.MaxConns = int32(min(defaults.MaxConns, 1<<15))
	}
	if opts.ConnectTimeout > 0 || config.ConnConfig.ConnectTimeout <= 0 {
		config.ConnConfig.ConnectTimeout = defaults.ConnectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "isekai"
	}
	return config, nil
}

// lockPostgres takes the advisory lock on a connection of its own, since the
// pool may have only one. The lock belongs to a transaction, which keeps its
// server connection behind a pooler too.
func lockPostgres(ctx context.Context, config *pgx.ConnConfig) (release func(), err error) {
	conn, err := pgx.ConnectConfig(ctx, config.Copy())
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{
		"BEGIN",
		// The wait is bounded by ctx, not by what is set for the role.
		"SET LOCAL statement_timeout = 0",
		"SET LOCAL lock_timeout = 0",
		"SET LOCAL idle_in_transaction_session_timeout = 0",
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", migrationLock),
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
			return nil, err
		}
	}
	return func() {
		// Closing ends the transaction, and with it the lock, even if the
		// server does not answer. pgx bounds the farewell to some seconds.
		_ = conn.Close(context.WithoutCancel(ctx))
	}, nil
}

func classifyPostgres(err error) errorClass {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return classifySQLState(pgErr.Code)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return errOther // a new connection has just been tried
	}
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, driver.ErrBadConn, sql.ErrConnDone,
		syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED,
	} {
		if errors.Is(err, lost) {
			return errConnectionLost
		}
	}
	if pgconn.SafeToRetry(err) {
		return errConnectionLost
	}
	return errOther
}

// classifySQLState goes by the codes in appendix A of PostgreSQL's manual.
func classifySQLState(code string) errorClass {
	switch {
	case code == "23505": // unique_violation
		return errUnique
	case strings.HasPrefix(code, "22"), // data exception
		code == "23502",               // not_null_violation
		code == "23514",               // check_violation
		strings.HasPrefix(code, "54"): // program limit exceeded, e.g. an index entry too long
		return errBadValue
	case code == "42501": // insufficient_privilege
		return errNotPermitted
	case code == "57P01", code == "57P02", // admin_shutdown, crash_shutdown
		code == "25006",               // read_only_sql_transaction: the server is no longer the primary
		code == "0A000",               // feature_not_supported: a statement prepared before a migration
		strings.HasPrefix(code, "08"): // connection exception
		return errConnectionLost
	default:
		return errOther
	}
}
