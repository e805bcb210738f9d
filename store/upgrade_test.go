package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/pressly/goose/v3"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
	"github.com/isekai-gateway/isekai/store/migrations"
	"github.com/isekai-gateway/isekai/store/storetest"
)

var record = flag.Bool("record", false, "write testdata/statements of this schema anew, as is done for each release")

// contracting finds what a migration must not do while programs of before still run.
var contracting = regexp.MustCompile(`(?is)\b(` + strings.Join([]string{
	`DROP\s+(TABLE|COLUMN|VIEW|FUNCTION|SCHEMA|TYPE|SEQUENCE)`,
	`DROP\s+(NOT\s+NULL|DEFAULT)`,
	`ALTER\s+TABLE[^;]*\bDROP\b`,
	`RENAME\s+(TO|COLUMN|CONSTRAINT)`, `ALTER\s+TABLE[^;]*\bRENAME\b`,
	`ALTER\s+COLUMN[^;]*\bTYPE\b`, `SET\s+DATA\s+TYPE`, `SET\s+NOT\s+NULL`,
	`ADD\s+(CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN)`,
	`TRUNCATE\s+TABLE`,
}, "|") + `)`)

// added finds the columns that a migration adds to a table that there is.
var added = regexp.MustCompile(`(?is)\bADD\s+COLUMN\s+([^,;]*)`)

// contractions returns what in a script breaks programs of the schema before it.
func contractions(script string) (found []string) {
	var code strings.Builder
	for line := range strings.Lines(script) {
		text, _, _ := strings.Cut(line, "--")
		code.WriteString(text + "\n")
	}
	found = contracting.FindAllString(code.String(), -1)
	for _, match := range added.FindAllStringSubmatch(code.String(), -1) {
		column := strings.ToUpper(match[1])
		if strings.Contains(column, "NOT NULL") && !strings.Contains(column, "DEFAULT") {
			found = append(found, strings.TrimSpace(match[0]))
		}
	}
	return found
}

// Programs of both versions work while one replaces the other, so that what a program
// needs is not taken away before its last replica is gone.
func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"DROP TABLE routes;", "ALTER TABLE routes\n  DROP COLUMN name;", "ALTER TABLE routes RENAME name TO title;",
		"ALTER TABLE routes ALTER COLUMN id TYPE bigint;", "ALTER TABLE routes ADD COLUMN x text NOT NULL;",
		"ALTER TABLE routes ALTER name SET NOT NULL;", "ALTER TABLE routes ADD CONSTRAINT x CHECK (true);", "drop function f;",
	} {
		if contractions(bad) == nil {
			t.Errorf("%q was not found", bad)
		}
	}
	err := fs.WalkDir(migrations.Files(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), "00001") {
			return err
		}
		script, err := fs.ReadFile(migrations.Files(), name)
		if err != nil {
			return err
		}
		if found := contractions(string(script)); found != nil {
			t.Errorf("%s takes away what programs of before need: %q", name, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// migrateTo brings a database's schema to a version, or to the last one if it is 0.
func migrateTo(t *testing.T, dsn string, version int64) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	scripts, err := fs.Sub(migrations.Files(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, scripts,
		goose.WithTableName("isekai_migrations"), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	if version > 0 {
		_, err = provider.UpTo(t.Context(), version)
	} else {
		_, err = provider.Up(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The statements of programs of earlier schemas, recorded when they were made, mean the
// same to the last schema, even where they were prepared before the migration.
func TestStatementsOfEarlierPrograms(t *testing.T) {
	t.Parallel()
	if *record {
		recordStatements(t)
	}
	files, err := filepath.Glob("testdata/statements/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no statements are recorded: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			version, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(file), ".json"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var statements []string
			if err := json.Unmarshal(text, &statements); err != nil || len(statements) < 20 {
				t.Fatalf("%d statements, %v", len(statements), err)
			}
			dsn := pgtest.New(t)
			migrateTo(t, dsn, version)
			before := prepare(t, dsn, statements)
			was := before.outcomes(t)
			for statement, outcome := range was {
				if strings.HasPrefix(outcome, "42") {
					t.Fatalf("with its own schema, %s ends with %s", statement, outcome)
				}
			}
			migrateTo(t, dsn, 0)
			for when, now := range map[string]map[string]string{
				"prepared before the migration": before.outcomes(t),
				"prepared after it":             prepare(t, dsn, statements).outcomes(t),
			} {
				for statement, outcome := range now {
					if outcome != was[statement] {
						t.Errorf("%s, %s ended with %s before, and ends with %s", when, statement, was[statement], outcome)
					}
				}
			}
		})
	}
}

type prepared struct {
	conn       *pgx.Conn
	statements []string
	parameters []int // of each
}

// prepare prepares statements on a connection of their own.
func prepare(t *testing.T, dsn string, statements []string) *prepared {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	p := &prepared{conn: conn, statements: statements}
	for i, statement := range statements {
		description, err := conn.PgConn().Prepare(t.Context(), fmt.Sprint("s", i), statement, nil)
		if err != nil {
			t.Fatalf("preparing %s: %v", statement, err)
		}
		p.parameters = append(p.parameters, len(description.ParamOIDs))
	}
	return p
}

// outcomes executes each statement with NULLs for its parameters, undoes it, and
// returns the errors' codes, and how many columns there are where there is none.
func (p *prepared) outcomes(t *testing.T) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for i, statement := range p.statements {
		if _, err := p.conn.Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
		result := p.conn.PgConn().ExecPrepared(t.Context(), fmt.Sprint("s", i), make([][]byte, p.parameters[i]), nil, nil).Read()
		out[statement] = fmt.Sprint(len(result.FieldDescriptions), " columns")
		if problem, ok := errors.AsType[*pgconn.PgError](result.Err); ok {
			out[statement] = problem.Code
		} else if result.Err != nil {
			t.Fatalf("%s: %v", statement, result.Err)
		}
		if _, err := p.conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// recordStatements runs the store's contract and writes down what it has the server
// prepare.
func recordStatements(t *testing.T) {
	t.Helper()
	var (
		mu    sync.Mutex
		found = make(map[string]bool)
		known int64
	)
	t.Run("recording", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			s := open(t, overhear(t, pgtest.New(t), func(statement string) {
				switch verb, _, _ := strings.Cut(strings.TrimSpace(statement), " "); strings.ToUpper(verb) {
				case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
				default:
					return
				}
				// Those are goose's own.
				if !strings.Contains(statement, "isekai_migrations") && !strings.Contains(statement, "pg_tables") {
					mu.Lock()
					defer mu.Unlock()
					found[statement] = true
				}
			}), store.Options{})
			mu.Lock()
			defer mu.Unlock()
			known = s.Stats().Schema
			return s
		})
	})
	text, err := json.MarshalIndent(slices.Sorted(maps.Keys(found)), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "statements", fmt.Sprintf("%05d.json", known))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// overhear returns a DSN that leads to the database past hear, which is told of every
// statement that is prepared.
func overhear(t *testing.T, dsn string, hear func(statement string)) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := u.Host
	u.Host = l.Addr().String()
	var done sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	done.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { relay(client, to, hear, &done) })
		}
	})
	return u.String()
}

func relay(client net.Conn, to string, hear func(string), done *sync.WaitGroup) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	done.Go(func() {
		defer client.Close()
		buffer := make([]byte, 32<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil {
				return
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	from, forward := pgproto3.NewBackend(client, client), pgproto3.NewFrontend(server, server)
	message, err := from.ReceiveStartupMessage()
	for err == nil {
		if parse, ok := message.(*pgproto3.Parse); ok {
			hear(parse.Query)
		}
		forward.Send(message)
		if err = forward.Flush(); err != nil {
			return
		}
		message, err = from.Receive()
	}
}
