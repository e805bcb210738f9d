package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// logCounts is the request log's part of /api/status.
type logCounts struct {
	Queued, Written, Dropped int
	Failing                  bool
}

func (g *gateway) logCounts() logCounts {
	g.t.Helper()
	var status struct {
		RequestLog logCounts `json:"request_log"`
	}
	a := g.call(http.MethodGet, "/api/status", nil)
	if err := json.Unmarshal(a.body, &status); err != nil {
		g.t.Fatalf("%v in %s", err, a)
	}
	return status.RequestLog
}

// TestRequestLogOutage lets the database fail at load: requests go on, the log fills
// its queue and no more, says so, and catches up.
func TestRequestLogOutage(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]struct {
		begin, end func(*pgtest.Server, testing.TB)
	}{
		"stopped": {(*pgtest.Server).Stop, (*pgtest.Server).Start},
		"paused":  {(*pgtest.Server).Pause, (*pgtest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const queue, batch = 100, 10
			server := pgtest.NewServer(t)
			g := startGateway(t, settings{
				dsn: server.DSN(), outage: true,
				options: fmt.Sprintf("request_log {\nqueue %d\nbatch %d\nflush_interval 50ms\n}\nhealth_interval 200ms", queue, batch),
			})
			g.create(route{Path: "/up", TargetURL: textUpstream(t, "up")})
			l := g.startLoad(4, "/up", is("up"))
			l.more(50)

			outage.begin(server, t)
			eventually(t, startTimeout, "the queue is full", func() error {
				if c := g.logCounts(); c.Dropped < 100 || c.Queued < queue || c.Queued > queue {
					return fmt.Errorf("%+v", c)
				}
				return nil
			})
			g.waitHealth("the log can't be written", func(status int, h health) bool {
				return status == http.StatusOK && strings.Contains(strings.Join(h.Reasons, " "), "request log")
			})
			l.more(50)

			outage.end(server, t)
			written := g.logCounts().Written
			eventually(t, startTimeout, "the log has caught up", func() error {
				if c := g.logCounts(); c.Failing || c.Queued > queue/2 || c.Written < written+queue {
					return fmt.Errorf("%+v", c)
				}
				return nil
			})
			g.waitHealth("all is well", func(_ int, h health) bool { return h.Status == "ok" })
			l.wantNoLoss()
			l.stop()

			// Nothing is there twice, and nothing is missing but what was counted.
			var c logCounts
			eventually(t, startTimeout, "all is written", func() error {
				if c = g.logCounts(); c.Queued > 0 || c.Written+c.Dropped < int(l.ok.Load()) {
					return fmt.Errorf("%+v of %d", c, l.ok.Load())
				}
				return nil
			})
			var rows, distinct int
			if err := openSQL(t, server.DSN()).QueryRow("SELECT count(*), count(DISTINCT request_id) FROM request_logs WHERE path = '/up'").Scan(&rows, &distinct); err != nil {
				t.Fatal(err)
			}
			if rows != distinct {
				t.Errorf("%d rows have %d ids: some were written twice", rows, distinct)
			}
			if lost := int(l.ok.Load()) - rows; lost != c.Dropped {
				t.Errorf("%d requests are missing, and %d were counted as dropped", lost, c.Dropped)
			}
		})
	}
}
