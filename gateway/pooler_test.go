package gateway_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// TestBehindPgBouncer lives through a pooler: with its connections shared between
// sessions, all is as without one; shared between transactions, nothing is announced, and
// changes come by polls. pgx must then leave named prepared statements alone, which
// PgBouncer follows only since 1.21.
func TestBehindPgBouncer(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("there is no pgbouncer in PATH")
	}
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			direct := pgtest.New(t)
			dsn := startPgBouncer(t, program, direct, mode)
			if mode == "transaction" {
				dsn += "?default_query_exec_mode=exec"
			}
			g, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop, Store: store.Options{QueryTimeout: 30 * time.Second}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := g.Close(); err != nil {
					t.Error(err)
				}
			})
			g.Start(t.Context())
			if g.Table() == nil {
				t.Fatalf("not started: %+v", g.Health())
			}
			by := store.Author{Actor: "test"}
			row, _, err := g.Create(t.Context(), store.NewRoute("/a/{id}", "http://127.0.0.1:1"), by)
			if err != nil {
				t.Fatal(err)
			}
			row.Timeout = 7
			if _, _, err := g.Update(t.Context(), row, 0, by); err != nil {
				t.Fatal(err)
			}
			conn, err := pgx.Connect(t.Context(), direct)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			if _, err := conn.Exec(t.Context(), "UPDATE routes SET timeout = 9"); err != nil {
				t.Fatal(err)
			}
			if err := g.WaitApplied(t.Context(), 30*time.Second); err != nil {
				t.Fatal(err)
			}
			if served, _, err := g.Get(row.ID); err != nil || served.Timeout != 9 {
				t.Errorf("served is %+v, %v", served, err)
			}
			rows, revision, err := g.Store().Load(t.Context())
			if err != nil || len(rows) != 1 || revision != 3 {
				t.Errorf("Load: %d rows at %d, %v", len(rows), revision, err)
			}
		})
	}
}

// TestListenDSN has the pool and the listener on different ways to the database: what is
// announced comes by the listener's.
func TestListenDSN(t *testing.T) {
	t.Parallel()
	direct := pgtest.New(t)
	named := func(name string) string {
		u, err := url.Parse(direct)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Set("application_name", name)
		u.RawQuery = query.Encode()
		return u.String()
	}
	g := open(t, named("pooled"), func(cfg *gateway.Config) {
		cfg.PollInterval, cfg.Store.ListenDSN = time.Hour, named("apart")
	})
	p := openSQL(t, direct)
	eventually(t, "there is a listener of the other name", func() bool {
		var apart, pooled int
		err := p.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE application_name = 'apart-listener'),
			count(*) FILTER (WHERE application_name = 'pooled-listener') FROM pg_stat_activity WHERE datname = current_database()`).Scan(&apart, &pooled)
		if err != nil || pooled > 0 {
			t.Fatalf("%d listeners by the pool's DSN, %v", pooled, err)
		}
		return apart == 1
	})
	p.insert("/a")
	eventually(t, "the change is served", func() bool { return g.match("/a") != nil })

	for dsn, listen := range map[string]string{sqliteDSN(t): direct, direct: "postgres://user:secret@%zz/"} {
		if g, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop, Store: store.Options{ListenDSN: listen}}); err == nil {
			_ = g.Close()
			t.Errorf("%s was opened with %s to listen to", dsn, listen)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// startPgBouncer starts a pooler before a database and returns its DSN.
func startPgBouncer(t *testing.T, program, direct, mode string) string {
	t.Helper()
	config, err := pgx.ParseConfig(direct)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pgbouncer.ini")
	password := ""
	if config.Password != "" {
		password = " password='" + config.Password + "'"
	}
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d user=%s%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 20
`, config.Host, config.Port, config.User, password, port, mode)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{path}
	if os.Getuid() == 0 {
		args = []string{"-u", "nobody", path} // it refuses to be root
		for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(program, args...)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	dsn := fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s", config.User, port, config.Database)
	eventually(t, "the pooler answers", func() bool {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			return false
		}
		return conn.Close(t.Context()) == nil
	})
	return dsn
}
