package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

func TestDatabaseOutages(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]struct {
		begin, end func(*pgtest.Server, testing.TB)
	}{
		"stopped": {(*pgtest.Server).Stop, (*pgtest.Server).Start},
		"paused":  {(*pgtest.Server).Pause, (*pgtest.Server).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewServer(t)
			g := startGateway(t, settings{dsn: server.DSN(), outage: true, options: "health_interval 200ms"})
			g.create(route{Path: "/up", TargetURL: textUpstream(t, "up")})
			l := g.startLoad(4, "/up", is("up"))
			l.more(50)

			outage.begin(server, t)
			h := g.waitHealth("the outage is noticed", func(status int, h health) bool {
				return status == http.StatusOK && h.Status == "degraded"
			})
			if len(h.Reasons) == 0 || strings.Contains(strings.Join(h.Reasons, " "), "postgres") {
				t.Errorf("the reasons are %q", h.Reasons)
			}
			for range 2 {
				a := g.call(http.MethodPost, "/api/routes", route{Path: "/lost", TargetURL: "http://10.0.0.1"})
				if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
					t.Errorf("a write is answered %s %v", a, a.header)
				}
				if p := a.problem(t); strings.Contains(p.Detail, "127.0.0.1") {
					t.Errorf("the problem shows an address: %s", a)
				}
			}
			if got := g.list(""); len(got) != 1 {
				t.Errorf("the list during the outage is %+v", got)
			}
			l.more(100)

			outage.end(server, t)
			g.waitHealth("the gateway has recovered", func(_ int, h health) bool { return h.Status == "ok" })
			g.create(route{Path: "/after", TargetURL: textUpstream(t, "after")})
			g.wantBody("/after", "after")
			l.more(50)
			l.wantNoLoss()
			execSQL(t, openSQL(t, server.DSN()), `UPDATE routes SET path = '/later' WHERE path = '/after'`)
			g.waitBody("/later", "after")
		})
	}
}

func TestDatabaseDownAtStart(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	first := startGateway(t, settings{dsn: server.DSN()})
	first.create(route{Path: "/kept", TargetURL: textUpstream(t, "kept")})
	first.stop()
	server.Stop(t)

	g := newGateway(t, settings{dsn: server.DSN(), outage: true})
	g.start()
	// The admin endpoint, which comes first, says the same while the sites start.
	g.waitStatus("/healthz", http.StatusServiceUnavailable)
	g.waitHealth("the gateway runs without routes", func(status int, h health) bool {
		return status == http.StatusServiceUnavailable && h.Status == "not_ready" && len(h.Reasons) > 0
	})
	a := g.send(http.MethodGet, "/kept")
	wantProblem(t, a, http.StatusServiceUnavailable)
	if a.header.Get("Retry-After") == "" {
		t.Error("a 503 before the routes are loaded has no Retry-After")
	}
	if a := g.send(http.MethodGet, "/healthz"); a.status != http.StatusServiceUnavailable {
		t.Errorf("health_path answers %s", a)
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		var body any
		if method == http.MethodPost {
			body = route{Path: "/new", TargetURL: "http://10.0.0.1"}
		}
		if a := g.call(method, "/api/routes", body); a.status != http.StatusServiceUnavailable {
			t.Errorf("%s /api/routes answers %s", method, a)
		}
	}
	server.Start(t)
	g.waitReady()
	g.wantBody("/kept", "kept")
}

// TestBadStarts starts gateways that can't run: they say why in one line, and
// never what the password is.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-passw0rd"
	for name, c := range map[string]struct {
		prepare func(*testing.T, *gateway)
		set     settings
		says    []string
	}{
		"unknown scheme": {
			set: settings{dsn: "mysql://user:" + secret + "@127.0.0.1/x"}, says: []string{`unknown scheme \"mysql\"`, "postgres://"},
		},
		"malformed DSN": {
			set: settings{dsn: "postgres://user:" + secret + "@127.0.0.1:port/x"}, says: []string{"opening store"},
		},
		"malformed DSN with spaces": {
			set: settings{dsn: "postgres://user:" + secret + "@[::1/x y"}, says: []string{"opening store"},
		},
		"DSN from the environment": {
			set: settings{dsn: "{env.ISEKAI_DATABASE_URL}", env: []string{"ISEKAI_DATABASE_URL=nonsense:" + secret}}, says: []string{"no known form"},
		},
		"unknown option": {
			set: settings{options: "colour blue"}, says: []string{"unrecognized option: colour", "Caddyfile:19"},
		},
		"option without value": {
			set: settings{options: "max_concurrent"}, says: []string{"Caddyfile:19"},
		},
		"malformed duration": {
			set: settings{options: "drain_timeout soon"}, says: []string{"drain_timeout", "soon", "Caddyfile:19"},
		},
		"unknown plugin": {
			set: settings{options: "plugins headers teleport"}, says: []string{`teleport`, "http.handlers"},
		},
		"malformed range": {
			set: settings{options: "targets {\n deny everything\n }"}, says: []string{"targets.deny", "everything"},
		},
		"missing seed": {
			set: settings{options: "seed nothing.json"}, says: []string{"seed", "nothing.json"},
		},
		"malformed seed": {
			prepare: func(t *testing.T, g *gateway) { writeFile(t, filepath.Join(g.dir, "bad.json"), `[{"path":"/x"}]`) },
			set:     settings{options: "seed bad.json"}, says: []string{"bad.json", "target_url"},
		},
		"occupied admin port": {
			prepare: func(t *testing.T, g *gateway) { occupy(t, g.admin) }, says: []string{"address already in use"},
		},
		"occupied port": {
			prepare: func(t *testing.T, g *gateway) { occupy(t, g.http) }, says: []string{"address already in use"},
		},
		"database is a folder": {
			prepare: func(t *testing.T, g *gateway) {
				if err := os.Mkdir(filepath.Join(g.dir, "isekai.db"), 0o700); err != nil {
					t.Fatal(err)
				}
			}, says: []string{"opening store", "isekai.db"},
		},
		"folder can't be made": {
			// A file in its place stops root too.
			prepare: func(t *testing.T, g *gateway) { writeFile(t, filepath.Join(g.dir, "data"), "a file") },
			set:     settings{dsn: "sqlite://data/isekai.db"}, says: []string{"opening store", "data"},
		},
		"database is something else": {
			prepare: func(t *testing.T, g *gateway) {
				writeFile(t, filepath.Join(g.dir, "isekai.db"), strings.Repeat("this is no database", 1000))
			}, says: []string{"not a database"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, c.set)
			if c.prepare != nil {
				c.prepare(t, g)
			}
			g.start()
			if code := g.waitExit(); code == 0 {
				t.Error("the exit code is 0")
			}
			log := g.log.String()
			last := g.log.tail(1)
			for _, want := range c.says {
				if !strings.Contains(last, want) && !strings.Contains(last, strings.ReplaceAll(want, `\"`, `"`)) {
					t.Errorf("the last line is %s\nwant %s in it", last, want)
				}
			}
			if strings.Contains(log, secret) {
				t.Errorf("the log shows the password:\n%s", log)
			}
		})
	}
}

func occupy(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPasswordStaysSecret runs with a password that the database does not even
// ask for, through a start, an outage and errors.
func TestPasswordStaysSecret(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-passw0rd"
	server := pgtest.NewServer(t)
	dsn := strings.Replace(server.DSN(), "postgres@", "postgres:"+secret+"@", 1)
	g := startGateway(t, settings{
		dsn: "{env.ISEKAI_DATABASE_URL}", env: []string{"ISEKAI_DATABASE_URL=" + dsn}, outage: true,
		global: "debug", options: "health_interval 100ms",
	})
	g.create(route{Path: "/x", TargetURL: textUpstream(t, "x")})
	server.Stop(t)
	g.waitHealth("the outage is noticed", func(_ int, h health) bool { return h.Status == "degraded" })
	g.call(http.MethodPost, "/api/routes", route{Path: "/y", TargetURL: "http://10.0.0.1"})
	if err := g.reload(); err != nil {
		t.Errorf("reloading without the database: %v", err)
	}
	for _, path := range []string{"/config/", "/api/status", "/api/routes", "/health", "/metrics", "/debug/vars"} {
		if a := g.call(http.MethodGet, path, nil); strings.Contains(string(a.body), secret) {
			t.Errorf("GET %s shows the password: %s", path, a)
		}
	}
	server.Start(t)
	g.waitReady()
	g.stop()
	if log := g.log.String(); strings.Contains(log, secret) {
		t.Errorf("the log shows the password, at byte %d of %d", strings.Index(log, secret), len(log))
	}
	for _, file := range []string{"autosave.json", "caddy/autosave.json"} {
		if text, err := os.ReadFile(filepath.Join(g.dir, file)); err == nil && strings.Contains(string(text), secret) {
			t.Errorf("%s shows the password", file)
		}
	}
}

// TestKilled ends a gateway as a power cut would: what was acknowledged is there
// after the next start.
func TestKilled(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		g := startGateway(t, settings{dsn: dsn})
		target := textUpstream(t, "kept")
		const writes = 40
		for i := range writes {
			g.create(route{Path: fmt.Sprintf("/kept/%d", i), TargetURL: target})
		}
		// Even the last write, a moment ago, was acknowledged.
		g.kill()
		g.cmd = nil
		g.client.CloseIdleConnections()
		g.start()
		g.waitReady()
		for i := range writes {
			g.wantBody(fmt.Sprintf("/kept/%d", i), "kept")
		}
	})
}
