package store_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

const password = "s3cr3tW0rd"

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ dsn, want string }{
		"nothing":              {"", "postgres://"},
		"a path":               {"data/isekai.db", "sqlite://"},
		"a word":               {password, "postgres://"},
		"another database":     {"mysql://user:" + password + "@host/db", `unknown scheme "mysql"`},
		"scheme in capitals":   {"Postgres://user:" + password + "@host/db", "unknown scheme"},
		"bad port":             {"postgres://user:" + password + "@host:port/db", "cannot be parsed"},
		"slash in password":    {"postgres://user:" + password + "/x@host:5432/db", "cannot be parsed"},
		"percent in password":  {"postgres://user:%zz" + password + "@host/db", "cannot be parsed"},
		"bad sslmode":          {"postgres://user:" + password + "@host/db?sslmode=maybe", "cannot be parsed"},
		"password as sslmode":  {"postgres://user@host/db?sslmode=" + password, "cannot be parsed"},
		"bad pool size":        {"postgres://user:" + password + "@host/db?pool_max_conns=x", "cannot be parsed"},
		"key without value":    {"host=h password=" + password + " dbname", "cannot be parsed"},
		"quote without end":    {"host=h password='" + password, "cannot be parsed"},
		"bad key=value":        {"port=x password = " + password, "cannot be parsed"},
		"SQLite without path":  {"sqlite://", "sqlite://relative"},
		"SQLite without slash": {"sqlite:isekai.db", "sqlite://relative"},
	} {
		s, err := store.Open(t.Context(), test.dsn, store.Options{})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %q does not say %q", name, err, test.want)
		}
		if strings.Contains(err.Error(), password) {
			t.Errorf("%s: error %q holds the password", name, err)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q has more than one line", name, err)
		}
	}
}

func TestOpenPostgresNeedsNoServer(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://user:" + password + "@127.0.0.1:1/db?sslmode=disable",
		"postgresql://user:" + password + "@127.0.0.1:1/db?sslmode=disable",
		"host=127.0.0.1 port=1 user=u dbname=d sslmode=disable password=" + password,
	} {
		s := openOnly(t, dsn, store.Options{})
		for name, err := range map[string]error{
			"Ping":    s.Ping(t.Context()),
			"Migrate": s.Migrate(t.Context()),
		} {
			if err == nil {
				t.Errorf("%s succeeded without a server", name)
			} else if strings.Contains(err.Error(), password) {
				t.Errorf("%s: error %q holds the password", name, err)
			}
		}
	}
}

func TestOpenPostgresForms(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	keys := "host=" + u.Hostname() + " port=" + u.Port() + " user=" + u.User.Username() + " dbname=" + strings.TrimPrefix(u.Path, "/")
	if secret, ok := u.User.Password(); ok {
		keys += " password='" + secret + "'"
	}
	if mode := u.Query().Get("sslmode"); mode != "" {
		keys += " sslmode=" + mode
	}
	u.Scheme = "postgresql"
	for _, dsn := range []string{u.String(), keys} {
		if err := openOnly(t, dsn, store.Options{}).Ping(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenSQLiteMakesPrivateFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "data")
	path := filepath.Join(dir, "isekai.db")
	create(t, open(t, "sqlite://"+path, store.Options{}), "/a", "a")
	for path, want := range map[string]os.FileMode{dir: 0o700, path: 0o600, path + "-wal": 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", filepath.Base(path), got, want)
		}
	}
}

func TestOpenSQLiteRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	create(t, open(t, "sqlite://data/isekai.db", store.Options{}), "/a", "a")
	if _, err := os.Stat("data/isekai.db"); err != nil {
		t.Error(err)
	}
}

func TestOpenSQLiteOddPath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a b", "c?d#e%41&f.db")
	create(t, open(t, "sqlite://"+path, store.Options{}), "/a", "a")
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if got := get(t, openOnly(t, "sqlite://"+path, store.Options{}), 1); got.Path != "/a" {
		t.Errorf("got %+v", got)
	}
}

func TestOpenSQLiteFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a folder that cannot be": filepath.Join(file, "isekai.db"),
		"a folder":                dir,
		"not a database":          file,
	} {
		s, err := store.Open(t.Context(), "sqlite://"+path, store.Options{})
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q does not name the path in one line", name, err)
		}
	}
}

func TestOpenSQLiteUnwritableFolder(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere; run as another user to test this")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), "sqlite://"+filepath.Join(dir, "isekai.db"), store.Options{})
	if err == nil {
		_ = s.Close()
		t.Fatal("opened")
	}
	if !strings.Contains(err.Error(), "not writable") {
		t.Errorf("got %v", err)
	}
}
