package e2e_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// wantWholeTable waits until the gateway's routes are those of the database.
func (g *gateway) wantWholeTable(db *sql.DB) {
	g.t.Helper()
	eventually(g.t, startTimeout, "no route is stale", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		rows, err := db.QueryContext(ctx, "SELECT id, path, target_url FROM routes WHERE deleted_at IS NULL")
		if err != nil {
			return err
		}
		defer rows.Close()
		want := make(map[int64]string)
		for rows.Next() {
			var id int64
			var path, target string
			if err := rows.Scan(&id, &path, &target); err != nil {
				return err
			}
			want[id] = path + " " + target
		}
		if err := rows.Err(); err != nil {
			return err
		}
		have := make(map[int64]string)
		for _, r := range g.list("") {
			have[r.ID] = r.Path + " " + r.TargetURL
		}
		if d := cmp.Diff(want, have); d != "" {
			return errors.New(d)
		}
		return nil
	})
}

// sufferOutage is what holds for every outage: requests go on, writes fail clearly, and
// afterwards all is as before, though the gateway is told of changes and never asks.
func (g *gateway) sufferOutage(t *testing.T, db *sql.DB, begin, end func()) {
	t.Helper()
	target := textUpstream(t, "up")
	g.create(route{Path: "/up", TargetURL: target})
	l := g.startLoad(4, "/up", is("up"))
	l.more(100)
	calm := l.p99()
	begin()
	g.waitHealth("the outage is noticed", func(status int, h health) bool {
		return status == http.StatusOK && h.Status == "degraded"
	})
	for range 2 {
		a := g.call(http.MethodPost, "/api/routes", route{Path: "/lost", TargetURL: target})
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("a write is answered %s %v", a, a.header)
		}
	}
	if got := g.list("&path=/up"); len(got) != 1 {
		t.Errorf("the list during the outage is %+v", got)
	}
	l.more(100)
	t.Logf("p99 calm %s, in the outage %s", calm, l.p99())
	end()
	g.waitHealth("the gateway has recovered", func(_ int, h health) bool { return h.Status == "ok" })
	execSQL(t, db, "INSERT INTO routes (path, target_url) VALUES ('/after', $1)", target)
	g.waitBody("/after", "up")
	g.create(route{Path: "/written", TargetURL: target})
	g.wantBody("/written", "up")
	g.wantWholeTable(db)
	l.more(50)
	l.wantNoLoss()
}

// never is a gateway that asks for changes so seldom that it has to be told of them.
func never(dsn string) settings {
	return settings{dsn: dsn, poll: "1h", outage: true, options: "health_interval 200ms"}
}

func TestDatabaseNetworkFaults(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		kind       string
		attributes map[string]int
	}{
		"slow":      {"latency", map[string]int{"latency": 2500}},
		"breaks":    {"limit_data", map[string]int{"bytes": 100}},
		"reset":     {"reset_peer", map[string]int{"timeout": 0}},
		"half-open": {"timeout", map[string]int{"timeout": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := pgtest.New(t)
			network, dsn := newToxicDSN(t, direct)
			g := startGateway(t, never(dsn))
			g.sufferOutage(t, openSQL(t, direct),
				func() { network.poison(fault.kind, fault.attributes) },
				func() { network.heal(fault.kind) })
		})
	}
}

// A narrow network is no outage, though what comes through it comes late.
func TestDatabaseBehindNarrowNetwork(t *testing.T) {
	t.Parallel()
	direct := pgtest.New(t)
	network, dsn := newToxicDSN(t, direct)
	set := never(dsn)
	set.outage = false
	g := startGateway(t, set)
	target := textUpstream(t, "up")
	g.create(route{Path: "/up", TargetURL: target})
	l := g.startLoad(4, "/up", is("up"))
	network.poison("bandwidth", map[string]int{"rate": 2})
	for i := range 5 {
		g.create(route{Path: fmt.Sprint("/narrow/", i), TargetURL: target})
		g.wantBody(fmt.Sprint("/narrow/", i), "up")
	}
	network.heal("bandwidth")
	g.wantWholeTable(openSQL(t, direct))
	l.wantNoLoss()
}

func TestDatabaseRestartsTenTimes(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	g := startGateway(t, never(server.DSN()))
	target := textUpstream(t, "up")
	g.create(route{Path: "/up", TargetURL: target})
	l := g.startLoad(4, "/up", is("up"))
	for i := range 10 {
		server.Stop(t)
		server.Start(t)
		execSQL(t, openSQL(t, server.DSN()), "INSERT INTO routes (path, target_url) VALUES ($1, $2)", fmt.Sprint("/restart/", i), target)
		l.more(20)
	}
	g.waitBody("/restart/9", "up")
	g.waitHealth("the gateway has recovered", func(_ int, h health) bool { return h.Status == "ok" })
	g.wantWholeTable(openSQL(t, server.DSN()))
	l.wantNoLoss()
}

func TestDatabaseOutOfConnections(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, "-c", "max_connections=20", "-c", "superuser_reserved_connections=0")
	g := startGateway(t, never(server.DSN()))
	db := openSQL(t, server.DSN())
	db.SetMaxOpenConns(1)
	execSQL(t, db, "SELECT 1") // the connection that stays
	ctx := context.Background()
	var greedy []*pgx.Conn
	occupyAll := func() {
		t.Helper()
		for {
			conn, err := pgx.Connect(ctx, server.DSN())
			if problem, ok := errors.AsType[*pgconn.PgError](err); ok && problem.Code == "53300" {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			greedy = append(greedy, conn)
		}
	}
	release := func() {
		for _, conn := range greedy {
			_ = conn.Close(ctx)
		}
		greedy = nil
	}
	t.Cleanup(release)
	g.sufferOutage(t, db, func() {
		// Whatever the gateway has is taken away, and the place of it too.
		eventually(t, startTimeout, "the gateway has no connection", func() error {
			occupyAll()
			execSQL(t, db, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE 'isekai%'")
			occupyAll()
			var left int
			if err := db.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'isekai%'").Scan(&left); err != nil {
				return err
			}
			if left > 0 {
				return fmt.Errorf("it has %d", left)
			}
			return nil
		})
	}, release)
}

// TestDatabaseFailover has a DSN with two hosts: when the first is no longer there, or
// does not answer, its standby is promoted.
func TestDatabaseFailover(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*pgtest.Server, testing.TB){
		"primary is gone":   (*pgtest.Server).Stop,
		"primary is silent": (*pgtest.Server).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := pgtest.NewServer(t)
			standby := primary.NewStandby(t)
			was, is := openSQL(t, primary.DSN()), openSQL(t, standby.DSN())
			first, second := hostOf(t, primary.DSN()), hostOf(t, standby.DSN())
			g := startGateway(t, never(strings.Replace(primary.DSN(), first, first+","+second, 1)+"&target_session_attrs=read-write"))
			g.sufferOutage(t, is, func() {
				var at string
				if err := was.QueryRow("SELECT pg_current_wal_lsn()").Scan(&at); err != nil {
					t.Fatal(err)
				}
				eventually(t, startTimeout, "the standby has it all", func() error {
					var there bool
					if err := is.QueryRow("SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false)", at).Scan(&there); err != nil || !there {
						return fmt.Errorf("%v, %w", there, err)
					}
					return nil
				})
				fail(primary, t)
			}, func() { execSQL(t, is, "SELECT pg_promote()") })
		})
	}
}

func hostOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// TestDatabaseRestored puts an older state in the database's place, on the same server,
// in which the number of the revision stands for other changes.
func TestDatabaseRestored(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	admin := openSQL(t, server.DSN())
	execSQL(t, admin, "CREATE DATABASE live")
	live := strings.Replace(server.DSN(), "/postgres?", "/live?", 1)
	backup := strings.Replace(server.DSN(), "/postgres?", "/backup?", 1)
	g := startGateway(t, never(live))
	target, other := textUpstream(t, "old"), textUpstream(t, "new")
	g.create(route{Path: "/kept", TargetURL: target})

	g.stop()
	execSQL(t, admin, "CREATE DATABASE backup TEMPLATE live")
	g.start()
	g.waitReady()
	// A gateway that was never told which server it listens to can't tell another from it.
	eventually(t, startTimeout, "the gateway listens", func() error {
		var listens bool
		err := admin.QueryRow("SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE application_name = 'isekai-listener' AND state = 'idle' AND query LIKE '%pg_postmaster_start_time%')").Scan(&listens)
		if err == nil && !listens {
			err = errors.New("it does not")
		}
		return err
	})
	l := g.startLoad(2, "/kept", is("old"))
	g.create(route{Path: "/of/the/future", TargetURL: other})
	g.wantBody("/of/the/future", "new")
	db := openSQL(t, backup)
	execSQL(t, db, "INSERT INTO routes (path, target_url) VALUES ('/instead', $1)", other)
	db.Close()
	execSQL(t, admin, "DROP DATABASE live WITH (FORCE)")
	execSQL(t, admin, "ALTER DATABASE backup RENAME TO live")

	g.waitBody("/instead", "new")
	if a := g.send(http.MethodGet, "/of/the/future"); a.status != http.StatusNotFound {
		t.Errorf("a route that is no longer there answers %s", a)
	}
	g.wantWholeTable(openSQL(t, live))
	l.wantNoLoss()
}
