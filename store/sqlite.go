package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const memory = ":memory:"

// openSQLite opens the database at location, which is what follows "sqlite:" in
// a DSN.
func openSQLite(ctx context.Context, location string, opts Options) (Store, error) {
	if opts.ListenDSN != "" {
		return nil, errors.New("opening the store: there is nothing to listen to in SQLite; leave the DSN for listening out")
	}
	path := location
	if path != memory {
		var ok bool
		if path, ok = strings.CutPrefix(location, "//"); !ok || path == "" {
			return nil, errors.New(`opening the store: a SQLite DSN is "sqlite://relative/path.db", "sqlite:///absolute/path.db" or "sqlite::memory:"`)
		}
	}
	opts = opts.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, opts.ConnectTimeout)
	defer cancel()

	s := &sqlStore{
		queryTimeout: opts.QueryTimeout,
		observer:     opts.Observe,
		dialect: dialect{
			name:     "sqlite",
			goose:    goose.DialectSQLite3,
			snapshot: sql.TxOptions{ReadOnly: true},
			takeRevision: "UPDATE revision_counter SET revision = revision + 1, writer = 1" +
				" RETURNING revision",
			releaseWriter: "UPDATE revision_counter SET writer = 0",
			clock:         "strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')",
			since: func(expression string) string {
				return "((julianday('now') - julianday(" + expression + ")) * 86400.0)"
			},
			insertRoutes:   insertEach,
			updateRoutes:   updateEach,
			classify:       classifySQLite,
			dropIdle:       func() {},
			lockMigrations: func(ctx context.Context) (func(), error) { return lockFile(ctx, path) },
		},
	}
	err := s.connectSQLite(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("opening the SQLite database %s: %w", path, err)
	}
	s.dialect.stats = func() Stats {
		r, w := s.reader.Stats(), s.writer.Stats()
		if s.reader == s.writer {
			w = sql.DBStats{}
		}
		return Stats{
			Driver:   "sqlite",
			MaxConns: r.MaxOpenConnections + w.MaxOpenConnections,
			Open:     r.OpenConnections + w.OpenConnections,
			InUse:    r.InUse + w.InUse,
		}
	}
	s.dialect.load = s.loadAny
	s.dialect.insertLogs, s.dialect.maintainLogs = s.insertLogsSQLite, s.maintainLogsSQLite
	s.dialect.close = func() error {
		return errors.Join(s.reader.Close(), s.writer.Close())
	}
	return s, nil
}

// connectSQLite opens one connection that writes, since SQLite admits one
// writer and a queue here is fairer than its retries, and up to opts.MaxConns
// that read. A database in memory belongs to its only connection.
func (s *sqlStore) connectSQLite(ctx context.Context, path string, opts Options) error {
	if path == memory {
		db, err := sql.Open("sqlite", memory+"?"+sqliteParameters(opts).Encode())
		if err != nil {
			return err
		}
		db.SetMaxOpenConns(1)
		s.reader, s.writer = db, db
		return nil
	}

	if err := prepareFolder(filepath.Dir(path)); err != nil {
		return err
	}
	// One at a time makes the file and switches it to WAL, for which SQLite
	// does not wait as it does for other locks.
	unlock, err := lockFile(ctx, path)
	if err != nil {
		return err
	}
	defer unlock()
	if err := createFile(path); err != nil {
		return err
	}
	if s.writer, err = sql.Open("sqlite", fileDSN(path, sqliteParameters(opts))); err != nil {
		return err
	}
	s.writer.SetMaxOpenConns(1)
	if err := s.writer.PingContext(ctx); err != nil {
		return errors.Join(err, s.writer.Close())
	}
	reading := sqliteParameters(opts)
	reading.Add("_pragma", "query_only(1)")
	if s.reader, err = sql.Open("sqlite", fileDSN(path, reading)); err != nil {
		return errors.Join(err, s.writer.Close())
	}
	s.reader.SetMaxOpenConns(opts.MaxConns)
	s.reader.SetMaxIdleConns(opts.MaxConns)
	return nil
}

// sqliteParameters are the driver's. With WAL and synchronous NORMAL a commit
// outlives the process, though the last ones may be lost if the machine fails.
func sqliteParameters(opts Options) url.Values {
	return url.Values{
		"_pragma": {
			"busy_timeout(" + strconv.FormatInt(opts.QueryTimeout.Milliseconds(), 10) + ")",
			"journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)",
		},
		"_txlock":      {"immediate"},
		"_time_format": {"sqlite"},
	}
}

func fileDSN(path string, parameters url.Values) string {
	// The file: form is decoded by SQLite, so that a path may hold any character.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + parameters.Encode()
}

// prepareFolder makes the folder, and says plainly if it cannot be written:
// SQLite keeps files beside the database, and would fail only later.
func prepareFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, ".isekai-*")
	if err != nil {
		return fmt.Errorf("the folder is not writable: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// createFile makes the database's file readable by its owner only. A file that
// exists is not touched: closing a descriptor of it would drop the locks that
// the process holds on it.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// lockFile holds the lock beside the database at path until release is called
// or the process ends. The lock is SQLite's own, on an empty database: it works
// on every system, and between connections of one process too.
func lockFile(ctx context.Context, path string) (release func(), err error) {
	if path == memory {
		return func() {}, nil
	}
	// ctx ends the wait earlier.
	wait := strconv.FormatInt((2 * migrateTimeout / time.Millisecond).Nanoseconds(), 10)
	db, err := sql.Open("sqlite", fileDSN(path+"-lock", url.Values{
		"_pragma": {"busy_timeout(" + wait + ")"},
		"_txlock": {"exclusive"},
	}))
	if err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("waiting for the lock of another process: %w", err), db.Close())
	}
	return func() {
		_ = tx.Rollback() // nothing was written
		_ = db.Close()
	}, nil
}

func classifySQLite(err error) errorClass {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return errOther
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return errUnique
	case sqlite3.SQLITE_CONSTRAINT_CHECK, sqlite3.SQLITE_CONSTRAINT_NOTNULL,
		sqlite3.SQLITE_CONSTRAINT_DATATYPE, sqlite3.SQLITE_CONSTRAINT_TRIGGER,
		sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return errBadValue
	default:
		return errOther
	}
}
