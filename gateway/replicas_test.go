package gateway_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

const patient = 20 * time.Second

func TestWaitAppliedMeansServedEverywhere(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	all := []bundle{open(t, dsn, never), open(t, dsn, never), open(t, dsn, never)}
	p := openSQL(t, dsn)
	var writers sync.WaitGroup
	for i, g := range all {
		writers.Go(func() {
			for n := range 20 {
				path := fmt.Sprintf("/of/%d/%d", i, n)
				_, _, err := g.Create(t.Context(), store.NewRoute(path, "http://127.0.0.1:1"), store.Author{})
				if err == nil {
					err = g.WaitApplied(t.Context(), patient)
				}
				if err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				for j, other := range all {
					if other.match(path) == nil {
						t.Errorf("replica %d does not serve %s", j, path)
					}
				}
			}
		})
	}
	writers.Wait()
	p.insert("/sql")
	if err := all[0].WaitApplied(t.Context(), patient); err != nil {
		t.Fatal(err)
	}
	for j, other := range all {
		if other.match("/sql") == nil {
			t.Errorf("replica %d does not serve what SQL has written", j)
		}
	}
}

func TestLaggardsAreNamed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	net, through := newNetwork(t, dsn)
	g, late := open(t, dsn, never), open(t, through, never)
	p := openSQL(t, dsn)
	listening(t, p, g, late)
	if err := g.WaitApplied(t.Context(), patient); err != nil {
		t.Fatal(err)
	}
	net.freeze(false)
	g.create(t, "/a")
	eventually(t, "only the one that is cut off is late", func() bool {
		err := g.WaitApplied(t.Context(), time.Millisecond)
		var not *gateway.NotAppliedError
		return errors.As(err, &not) && cmp.Equal(replicaIDs(not.Laggards), []string{late.ID()}) && not.Revision == g.Table().Revision()
	})
	// Nobody waits for one that has been silent for too long.
	p.exec(fmt.Sprintf("UPDATE replicas SET heartbeat_at = heartbeat_at - interval '1 minute' WHERE id = '%s'", late.ID()))
	if err := g.WaitApplied(t.Context(), patient); err != nil {
		t.Error(err)
	}
	net.thaw()
	eventually(t, "it catches up", func() bool { return late.match("/a") != nil })
	g.create(t, "/b")
	if err := g.WaitApplied(t.Context(), patient); err != nil {
		t.Error(err)
	}
}

func TestReplicasComeAndGo(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{"PostgreSQL": pgtest.New(t), "SQLite": sqliteDSN(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := open(t, dsn, func(cfg *gateway.Config) { cfg.Address, cfg.Version = "edge-1", "v1" })
			list := func() []*store.Replica {
				list, _, err := g.Replicas(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return list
			}
			// Who only tries a configuration is no replica.
			tried, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop})
			if err != nil {
				t.Fatal(err)
			}
			tried.WaitLoaded(t.Context())
			other, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop})
			if err != nil {
				t.Fatal(err)
			}
			other.Start(t.Context())
			both := []string{g.ID(), other.ID()}
			slices.Sort(both)
			if diff := cmp.Diff(both, replicaIDs(list())); diff != "" {
				t.Error(diff)
			}
			for _, closing := range []*gateway.Gateway{tried, other} {
				if err := closing.Close(); err != nil {
					t.Error(err)
				}
			}
			left := list()
			if len(left) != 1 || left[0].ID != g.ID() || left[0].Address != "edge-1" || left[0].Version != "v1" || left[0].PID == 0 {
				t.Errorf("left is %+v", left)
			}
		})
	}
}

func TestReplicasTellWhatTheyCanNotServe(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, never)
	p := openSQL(t, dsn)
	p.exec(`INSERT INTO routes (path, target_url) SELECT 'broken' || n, 'http://127.0.0.1:1' FROM generate_series(1, 150) AS n`)
	eventually(t, "they are reported", func() bool {
		list, _, err := g.Replicas(t.Context())
		return err == nil && len(list) == 1 && list[0].Revision == 1 && len(list[0].Failed) == store.MaxFailedRoutes && list[0].Failed[0].Error != ""
	})
}

func TestSilentReplicaBeatsAgain(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, func(cfg *gateway.Config) {
		never(cfg)
		cfg.ReplicaInterval = 50 * time.Millisecond
	})
	p := openSQL(t, dsn)
	p.exec("UPDATE replicas SET heartbeat_at = heartbeat_at - interval '1 minute'")
	eventually(t, "it is live again", func() bool {
		list, _, err := g.Replicas(t.Context())
		return err == nil && len(list) == 1 && list[0].Live
	})
}
