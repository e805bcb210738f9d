package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// serverOptions are those of Caddyfile.example that cost or save something per request.
const serverOptions = `
	servers {
		timeouts {
			read_header 10s
			read_body_idle -1s
			idle 2m
		}
		max_header_size 16KB
		strict_sni_host on
	}`

// caddySite is how Caddy's own reverse_proxy is set up.
type caddySite struct {
	tuned     bool // with serverOptions
	accessLog bool
}

func startCaddy(s caddySite) func(context.Context, *rig, string) (*running, error) {
	return func(ctx context.Context, r *rig, dir string) (*running, error) {
		global, site := "", "\treverse_proxy "+r.backend+"\n"
		if s.tuned {
			global = serverOptions
		}
		if s.accessLog {
			site = fmt.Sprintf("\tlog {\n\t\toutput file %q {\n\t\t\troll_disabled\n\t\t}\n\t}\n", filepath.Join(dir, "access.log")) + site
		}
		at, _, err := runCaddy(ctx, r, dir, global, site)
		return at, err
	}
}

// runCaddy starts the program with a plain site and one with TLS. It returns the
// address of the admin endpoint too.
func runCaddy(ctx context.Context, r *rig, dir, global, site string) (at *running, admin string, err error) {
	free, err := freeAddresses(ctx, 3)
	if err != nil {
		return nil, "", err
	}
	plain, secure, admin := free[0], free[1], free[2]
	_, plainPort, _ := net.SplitHostPort(plain)
	_, securePort, _ := net.SplitHostPort(secure)
	text := fmt.Sprintf(`{
	admin %s
	http_port %s
	https_port %s
	auto_https disable_redirects
	skip_install_trust
	persist_config off
	storage file_system %q
%s
}
http:// {
	bind 127.0.0.1
%s}
https://%s {
	bind 127.0.0.1
	tls %q %q
%s}
`, admin, plainPort, securePort, filepath.Join(dir, "caddy"), global, site, serverName, r.certificate, r.key, site)
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	p, err := launch(ctx, r.proxyCPU, dir, secure, r.caddy, "run", "--config", config, "--adapter", "caddyfile")
	if err != nil {
		return nil, "", err
	}
	return &running{address: plain, tls: secure, pids: []int{p.cmd.Process.Pid}, process: p, stop: p.stop}, admin, nil
}

// gatewaySettings is how Isekai is set up.
type gatewaySettings struct {
	routes   int
	observed bool // a rate limit, the request log, and metrics that are read
	postgres bool // the store, else SQLite
}

func startIsekai(s gatewaySettings) func(context.Context, *rig, string) (*running, error) {
	return func(ctx context.Context, r *rig, dir string) (*running, error) {
		dsn, requestLog := "sqlite://"+filepath.Join(dir, "isekai.db"), "request_log off"
		if s.postgres {
			dsn = r.postgres
		}
		if s.observed {
			requestLog = ""
		}
		global := serverOptions + fmt.Sprintf("\n\tisekai {\n\t\tstore %q\n\t\t%s\n\t}", dsn, requestLog)
		at, admin, err := runCaddy(ctx, r, dir, global, "\tisekai {\n\t\thealth_path /healthz\n\t}\n")
		if err != nil {
			return nil, err
		}
		if s.observed {
			at.scrape = "http://" + admin + "/metrics"
			at.late = flushInterval
		}
		err = at.process.ready(ctx, func(ctx context.Context) error { return get(ctx, "http://"+admin+"/health") })
		if err == nil {
			err = seed(ctx, "http://"+admin, s, "http://"+r.backend)
		}
		if err != nil {
			at.stop()
			return nil, fmt.Errorf("%w; it says:\n%s", err, lastLines(filepath.Join(dir, outputLog), 5))
		}
		return at, nil
	}
}

// flushInterval is how long Isekai's request log waits by default.
const flushInterval = time.Second

// batchSize is the most operations that the API takes at once.
const batchSize = 10_000

// The largest limit that there is: it decides, and admits everything.
const limit = 1_000_000_000

// seed makes the routes by the admin API. They are served when it returns.
func seed(ctx context.Context, admin string, s gatewaySettings, target string) error {
	type operation struct {
		Op    string         `json:"op"`
		Route map[string]any `json:"route"`
	}
	for from := 0; from < s.routes; from += batchSize {
		var batch struct {
			Operations []operation `json:"operations"`
		}
		for i := from; i < min(from+batchSize, s.routes); i++ {
			route := map[string]any{"path": routePath(i, "*"), "method": "*", "target_url": target}
			if s.observed {
				route["rate_limit"] = limit
			}
			batch.Operations = append(batch.Operations, operation{"create", route})
		}
		text, err := json.Marshal(batch)
		if err != nil {
			return err
		}
		if err := post(ctx, admin+"/api/routes/batch", text); err != nil {
			return fmt.Errorf("making routes: %w", err)
		}
	}
	return nil
}

func post(ctx context.Context, url string, text []byte) error {
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
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1000)) // the status is enough
		return fmt.Errorf("%s: %s", res.Status, said)
	}
	return nil
}
