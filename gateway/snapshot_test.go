package gateway_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/snapshot"
	"github.com/isekai-gateway/isekai/store"
)

func withSnapshot(path string) func(*gateway.Config) {
	return func(cfg *gateway.Config) {
		cfg.Snapshot, cfg.SnapshotDelay = path, time.Millisecond
		cfg.Store = store.Options{ConnectTimeout: 2 * time.Second, QueryTimeout: 10 * time.Second}
	}
}

func TestColdStartFromSnapshot(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	path := filepath.Join(t.TempDir(), "snapshot.json")
	first := open(t, dsn, withSnapshot(path))
	for _, path := range []string{"/kept", "/changed", "/deleted"} {
		first.create(t, path)
	}
	p := openSQL(t, dsn)
	p.insert("broken")
	eventually(t, "the snapshot has all of it", func() bool {
		s, err := snapshot.Read(path, nil)
		return err == nil && s.Revision == 4 && len(s.Routes) == 4
	})

	net, through := newNetwork(t, dsn)
	net.refuse()
	g := open(t, through, withSnapshot(path))
	for _, path := range []string{"/kept", "/changed", "/deleted"} {
		if g.match(path) == nil {
			t.Errorf("%s is not served", path)
		}
	}
	kept := g.match("/kept")
	h := g.Health()
	if h.Status != gateway.StatusDegraded || h.Revision != 4 || g.Table().Broken() != 1 || h.TableAge <= 0 ||
		!strings.Contains(strings.Join(h.Reasons, "\n"), "snapshot") {
		t.Errorf("health %+v", h)
	}
	if _, _, err := g.Create(t.Context(), store.NewRoute("/new", "http://x"), store.Author{}); err == nil {
		t.Error("a write succeeded without the store")
	}

	// The database comes back restored: the numbers are those of the snapshot, and the
	// changes are not.
	p.exec("SET session_replication_role = replica", "UPDATE routes SET path = '/other' WHERE path = '/changed'",
		"UPDATE routes SET deleted_at = now() WHERE path IN ('/deleted', 'broken')", "SET session_replication_role = origin")
	net.thaw()
	eventually(t, "the table is the database's", func() bool {
		return g.match("/other") != nil && g.match("/changed") == nil && g.match("/deleted") == nil && g.Health().Status == gateway.StatusOK
	})
	if g.match("/kept") != kept {
		t.Error("a route that is the same was compiled anew")
	}
	// The first gateway, which can't know of such a change, has the same file.
	eventually(t, "the snapshot follows", func() bool {
		s, err := snapshot.Read(path, nil)
		return err == nil && len(s.Routes) == 2
	})
}

// A database that takes connections and says nothing costs a start no more than a moment.
func TestColdStartWithSilentStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "snapshot.json")
	row := store.NewRoute("/saved", "http://127.0.0.1:1")
	row.ID = 1
	if err := snapshot.Write(path, snapshot.Contents{Revision: 1, Len: 1, Routes: slices.Values([]*store.Route{row})}, nil, nil); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dsn := fmt.Sprintf("postgres://u:p@%s/x?sslmode=disable", ln.Addr())
	cfg := gateway.Config{DSN: dsn, Log: zap.NewNop}
	withSnapshot(path)(&cfg)
	cfg.Store.ConnectTimeout = time.Hour
	g, err := gateway.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.WaitLoaded(t.Context())
	if g.Table() == nil || g.Table().Len() != 1 {
		t.Errorf("table %v", g.Table())
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestBadSnapshotIsSetAside(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"corrupt": "garbage", "empty": "", "newer": `{"isekai_snapshot":99}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewServer(t)
			server.Stop(t)
			path := filepath.Join(t.TempDir(), "snapshot.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			g := open(t, server.DSN(), withSnapshot(path))
			if g.Table() != nil || g.Health().Status != gateway.StatusNotReady {
				t.Errorf("table %v, health %+v", g.Table(), g.Health())
			}
			eventually(t, "it is said", func() bool { return g.logs.FilterMessage("the snapshot is not used").Len() == 1 })
			if kept, err := os.ReadFile(path + ".corrupt"); err != nil || string(kept) != text {
				t.Errorf("set aside is %q, %v", kept, err)
			}
			server.Start(t)
			eventually(t, "a new one is written", func() bool {
				_, err := snapshot.Read(path, nil)
				return err == nil && g.Health().Status == gateway.StatusOK
			})
		})
	}
}

func TestSnapshotThatCanNotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	g := open(t, pgtest.New(t), withSnapshot(filepath.Join(file, "snapshot.json")))
	g.create(t, "/a")
	eventually(t, "it is said once", func() bool {
		return g.logs.FilterMessageSnippet("the snapshot can't be written").Len() == 1
	})
	if g.match("/a") == nil {
		t.Error("the route is not served")
	}
}

func TestOnlyWhoServesWritesSnapshots(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	open(t, dsn, nil).create(t, "/a")
	path := filepath.Join(t.TempDir(), "snapshot.json")
	cfg := gateway.Config{DSN: dsn, Log: zap.NewNop}
	withSnapshot(path)(&cfg)
	tried, err := gateway.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tried.WaitLoaded(t.Context())
	if err := tried.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("trying a configuration has written a snapshot")
	}
}
