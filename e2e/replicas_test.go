package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// goneWithin is more than it takes until nobody waits for a replica that was killed.
const goneWithin = time.Minute

type replicas struct {
	Revision int64
	Items    []struct {
		ID       string
		PID      int
		Revision int64
		Live     bool
		Self     bool
	}
}

func (g *gateway) replicas() (list replicas) {
	g.t.Helper()
	a := g.call(http.MethodGet, "/api/replicas", nil)
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
		g.t.Fatalf("/api/replicas answers %s: %v", a, err)
	}
	return list
}

// self returns the gateway's own id among the replicas.
func (g *gateway) self() string {
	g.t.Helper()
	for _, r := range g.replicas().Items {
		if r.Self {
			return r.ID
		}
	}
	g.t.Fatal("the gateway is not among the replicas")
	return ""
}

// TestWaitForReplicas has three processes that never ask for changes: what they serve,
// they were told of.
func TestWaitForReplicas(t *testing.T) {
	t.Parallel()
	set := settings{dsn: pgtest.New(t), poll: "1h"}
	all := []*gateway{startGateway(t, set), startGateway(t, set), startGateway(t, set)}
	target := textUpstream(t, "served")
	for i := range 30 {
		path := fmt.Sprint("/at-once/", i)
		a := all[i%3].call(http.MethodPost, "/api/routes?wait=applied&timeout=30s", route{Path: path, TargetURL: target})
		if a.status != http.StatusCreated {
			t.Fatalf("the write is answered %s", a)
		}
		for _, g := range all {
			g.wantBody(path, "served")
		}
	}
	list := all[0].replicas()
	if len(list.Items) != 3 {
		t.Fatalf("there are %d replicas: %+v", len(list.Items), list)
	}
	for _, r := range list.Items {
		if !r.Live || r.Revision != list.Revision {
			t.Errorf("replica %+v at revision %d", r, list.Revision)
		}
	}

	// One that is killed is waited for until it has been silent for long enough.
	killed := all[2].self()
	all[2].kill()
	late := all[0].call(http.MethodPost, "/api/routes?wait=applied&timeout=0s", route{Path: "/late", TargetURL: target})
	var problem struct {
		Laggards []struct{ ID string }
		Result   struct{ ID int64 }
	}
	if err := json.Unmarshal(late.body, &problem); err != nil || late.status != http.StatusGatewayTimeout {
		t.Fatalf("with a killed replica the write is answered %s: %v", late, err)
	}
	named := false
	for _, l := range problem.Laggards {
		named = named || l.ID == killed
	}
	if !named {
		t.Errorf("the killed replica is not among the laggards: %s", late)
	}
	path := fmt.Sprintf("/api/routes/%d?wait=applied&timeout=1s", problem.Result.ID)
	eventually(t, goneWithin, "nobody waits for the killed one", func() error {
		if a := all[1].call(http.MethodPatch, path, map[string]any{"name": "late"}); a.status != http.StatusOK {
			return fmt.Errorf("answered %s", a)
		}
		return nil
	})
	for _, r := range all[0].replicas().Items {
		if r.Live == (r.ID == killed) {
			t.Errorf("replica %+v, the killed one is %s", r, killed)
		}
	}

	all[2].start()
	all[2].waitReady()
	all[2].wantBody("/late", "served")
	if a := all[0].call(http.MethodPost, "/api/routes?wait=applied&timeout=30s", route{Path: "/back", TargetURL: target}); a.status != http.StatusCreated {
		t.Errorf("with the replica back the write is answered %s", a)
	}
	all[2].wantBody("/back", "served")
	all[2].stop()
	if left := all[0].replicas().Items; len(left) != 3 { // the two, and the killed one's row
		t.Errorf("after a clean end there are %d replicas: %+v", len(left), left)
	}
}

// TestStartWithoutDatabase starts a gateway that has served before while its database
// is away.
func TestStartWithoutDatabase(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	g := startGateway(t, settings{dsn: server.DSN(), outage: true})
	g.create(route{Path: "/kept", TargetURL: textUpstream(t, "kept")})
	g.stop() // which writes the snapshot if nothing has yet
	server.Stop(t)
	g.start()
	h := g.waitHealth("it serves from the snapshot", func(status int, h health) bool {
		return status == http.StatusOK && h.Status == "degraded"
	})
	if len(h.Reasons) != 2 || h.Revision != 1 {
		t.Errorf("health %+v", h)
	}
	g.wantBody("/kept", "kept")
	server.Start(t)
	g.waitReady()
	g.create(route{Path: "/after", TargetURL: textUpstream(t, "after")})
	g.wantBody("/after", "after")
	g.kill()

	// One that is no snapshot is put aside.
	server.Stop(t)
	files, err := filepath.Glob(filepath.Join(g.dir, "caddy", "isekai", "snapshot-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("snapshots %q, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start()
	g.waitHealth("it runs without routes", func(status int, h health) bool {
		return status == http.StatusServiceUnavailable && h.Status == "not_ready"
	})
	eventually(t, servedWithin, "the bad snapshot is put aside", func() error {
		_, err := os.Stat(files[0] + ".corrupt")
		return err
	})
	server.Start(t)
	g.waitReady()
	g.wantBody("/after", "after")
}
