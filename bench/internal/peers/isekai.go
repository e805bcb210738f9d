package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// Gateway is how Isekai is set up. The zero value has no routes.
type Gateway struct {
	Routes   int  // made by the admin API, each with the path of load.RoutePath
	Limit    bool // every route has a rate limit, which decides and admits everything
	Log      bool // the request log, with its defaults
	Scrape   bool // metrics are read
	Postgres bool // the store is the rig's, else SQLite
	FullLane bool // fast_lane off, if the program has that option
	Snapshot bool // the last known routes are kept in the file SnapshotFile

	Connections int // max_conns of the store; 0: its default

	Server  string   // Caddy's options; empty: ServerOptions
	App     []string // further lines of the option isekai
	Env     []string // NAME=value
	Program string   // Caddy with Isekai; empty: the rig's
}

// SnapshotFile is in the folder of a gateway with Snapshot.
const SnapshotFile = "routes-snapshot.json"

// flushInterval is how long Isekai's request log waits by default.
const flushInterval = time.Second

// Isekai is the gateway with its routes.
func Isekai(g Gateway) Start {
	return func(ctx context.Context, r *Rig, dir string) (*Running, error) {
		at, err := runCaddy(ctx, r, dir, caddyRun{
			program: r.program(g.Program), global: g.options(r, dir),
			site: "\tisekai {\n\t\thealth_path /healthz\n\t}\n", env: g.Env,
		})
		if err != nil {
			return nil, err
		}
		if g.Scrape {
			at.Scrape = at.Admin + "/metrics"
		}
		if g.Log {
			at.Late = flushInterval
		}
		err = at.Process.Ready(ctx, func(ctx context.Context) error { return load.Get(ctx, at.Admin+"/health") })
		if err == nil {
			err = g.seed(ctx, at.Admin, "http://"+r.Backend)
		}
		if err != nil {
			at.Stop()
			return nil, fmt.Errorf("%w; it says:\n%s", err, procs.LastLines(filepath.Join(dir, procs.OutputLog), 5))
		}
		return at, nil
	}
}

// options are the global ones of the Caddyfile.
func (g Gateway) options(r *Rig, dir string) string {
	dsn := "sqlite://" + filepath.Join(dir, "isekai.db")
	if g.Postgres {
		dsn = r.Postgres
	}
	lines := []string{fmt.Sprintf("store %q", dsn)}
	if g.Connections > 0 {
		lines[0] += fmt.Sprintf(" {\n\t\t\tmax_conns %d\n\t\t}", g.Connections)
	}
	if !g.Log {
		lines = append(lines, "request_log off")
	}
	if g.FullLane && r.FastLane {
		lines = append(lines, "fast_lane off")
	}
	if g.Snapshot {
		lines = append(lines, fmt.Sprintf("snapshot %q", filepath.Join(dir, SnapshotFile)))
	}
	server := g.Server
	if server == "" {
		server = ServerOptions
	}
	return server + "\n\tisekai {\n\t\t" + strings.Join(append(lines, g.App...), "\n\t\t") + "\n\t}"
}

// batchSize is the most operations that the API takes at once.
const batchSize = 10_000

// The largest limit that there is: it decides, and admits everything.
const limit = 1_000_000_000

// seed makes the routes. They are served when it returns.
func (g Gateway) seed(ctx context.Context, admin, target string) error {
	for from := 0; from < g.Routes; from += batchSize {
		routes := make([]map[string]any, 0, batchSize)
		for i := from; i < min(from+batchSize, g.Routes); i++ {
			route := map[string]any{"path": load.RoutePath(i, "*"), "method": "*", "target_url": target}
			if g.Limit {
				route["rate_limit"] = limit
			}
			routes = append(routes, route)
		}
		if err := Import(ctx, admin, routes); err != nil {
			return err
		}
	}
	return nil
}

// Import makes routes by one request to the admin API at admin. They are served when it
// returns.
func Import(ctx context.Context, admin string, routes []map[string]any) error {
	type operation struct {
		Op    string         `json:"op"`
		Route map[string]any `json:"route"`
	}
	var batch struct {
		Operations []operation `json:"operations"`
	}
	for _, route := range routes {
		batch.Operations = append(batch.Operations, operation{"create", route})
	}
	if err := post(ctx, admin+"/api/routes/batch", batch, http.StatusOK); err != nil {
		return fmt.Errorf("making routes: %w", err)
	}
	return nil
}

// Create makes one route by the admin API at admin.
func Create(ctx context.Context, admin string, route map[string]any) error {
	if err := post(ctx, admin+"/api/routes", route, http.StatusCreated); err != nil {
		return fmt.Errorf("making a route: %w", err)
	}
	return nil
}

func post(ctx context.Context, url string, document any, want int) error {
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body) // to its end, so that the connection is kept
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return fmt.Errorf("%s: %.1000s", res.Status, said)
	}
	return nil
}
