//go:build upgrade

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// TestUpgrade lets the program under test take over from an earlier one, which
// ISEKAI_E2E_PREVIOUS names, replica by replica, under load and edits from both.
func TestUpgrade(t *testing.T) {
	previous := os.Getenv("ISEKAI_E2E_PREVIOUS")
	if previous == "" {
		t.Fatal("ISEKAI_E2E_PREVIOUS must name the earlier program; see make upgrade")
	}
	dsn := pgtest.New(t)
	old := settings{dsn: dsn, binary: previous, global: "shutdown_delay 3s"}
	all := []*gateway{startGateway(t, old), startGateway(t, old)}
	target, other := textUpstream(t, "up"), textUpstream(t, "other")
	all[0].create(route{Path: "/up", Method: "*", TargetURL: target})
	for _, g := range all {
		g.waitBody("/up", "up")
	}
	loads := []*load{all[0].startLoad(2, "/up", is("up")), all[1].startLoad(2, "/up", is("up"))}
	edits := 0
	edit := func() {
		t.Helper()
		for _, writer := range all {
			edits++
			path := fmt.Sprint("/edit/", edits)
			r := writer.create(route{Path: path, TargetURL: target})
			for _, g := range all {
				g.waitBody(path, "up")
			}
			writer.patch(r.ID, map[string]any{"target_url": other})
			for _, g := range all {
				g.waitBody(path, "other")
			}
			if edits%2 == 0 {
				writer.remove(r.ID)
				for _, g := range all {
					g.waitStatus(path, http.StatusNotFound)
				}
			}
		}
	}
	edit()
	// The newer one migrates while the older ones serve, which go on to be restarted too.
	newer := startGateway(t, settings{dsn: dsn})
	all = append(all, newer)
	edit()
	loads[0].more(50)
	loads[0].wantNoLoss()
	all[0].stop()
	all[0].start()
	all[0].waitReady()
	edit()
	loads[1].more(50)
	loads[1].wantNoLoss()
	db := openSQL(t, dsn)
	for _, g := range all {
		g.wantWholeTable(db)
	}
}
