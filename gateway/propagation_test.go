package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// never polls within a test: what comes to such a gateway was announced.
func never(cfg *gateway.Config) { cfg.PollInterval = time.Hour }

// psql is a connection past the gateway.
type psql struct {
	*pgx.Conn
	t *testing.T
}

func openSQL(t *testing.T, dsn string) psql {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return psql{conn, t}
}

func (p psql) exec(statements ...string) {
	p.t.Helper()
	for _, s := range statements {
		if _, err := p.Exec(p.t.Context(), s); err != nil {
			p.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (p psql) count(query string) (n int) {
	p.t.Helper()
	if err := p.QueryRow(p.t.Context(), query).Scan(&n); err != nil {
		p.t.Fatalf("%s: %v", query, err)
	}
	return n
}

func (p psql) insert(path string) {
	p.t.Helper()
	p.exec(fmt.Sprintf("INSERT INTO routes (path, target_url) VALUES ('%s', 'http://127.0.0.1:1')", path))
}

const listeners = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'isekai-listener'"

// listening waits until a gateway hears of changes: the first may have been read when
// it began to listen, the second was announced.
func listening(t *testing.T, p psql, gateways ...bundle) {
	t.Helper()
	for _, path := range []string{"/first", "/second"} {
		p.insert(path)
		for _, g := range gateways {
			eventually(t, path+" is served", func() bool { return g.match(path) != nil })
		}
	}
}

func TestAnnouncedChangesAreServed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g, other := open(t, dsn, never), open(t, dsn, never)
	p := openSQL(t, dsn)
	listening(t, p, g, other)
	row := other.create(t, "/api")
	eventually(t, "what another gateway writes is served", func() bool { return g.match("/api") != nil })
	p.exec("UPDATE routes SET path = '/moved' WHERE path = '/api'")
	eventually(t, "an update is served", func() bool { return g.match("/moved") != nil && g.match("/api") == nil })
	if err := other.Delete(t.Context(), row.ID, 0, store.Author{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a deletion is served", func() bool { return g.match("/moved") == nil })
	p.exec("TRUNCATE routes CASCADE")
	eventually(t, "the table is empty", func() bool { return g.Table().Len() == 0 })
}

func TestListenerThatIsCutOff(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, never)
	p := openSQL(t, dsn)
	listening(t, p, g)
	for round := range 3 {
		if n := p.count("SELECT count(pg_terminate_backend(pid)) " + listeners); n != 1 {
			t.Fatalf("%d listeners", n)
		}
		path := fmt.Sprint("/gap/", round)
		p.insert(path)
		eventually(t, path+" is served", func() bool { return g.match(path) != nil })
		eventually(t, "it listens again", func() bool { return p.count("SELECT count(*) "+listeners) == 1 })
	}
}

// A firewall that forgets a connection tells nobody.
func TestListenerThatFallsSilent(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	net, through := newNetwork(t, dsn)
	g := open(t, through, func(cfg *gateway.Config) {
		never(cfg)
		cfg.ListenHeartbeat = 2 * time.Second
	})
	p := openSQL(t, dsn)
	listening(t, p, g)
	if n := net.freeze(true); n != 1 {
		t.Fatalf("%d listeners", n)
	}
	p.insert("/unheard")
	eventually(t, "the change is served", func() bool { return g.match("/unheard") != nil })
}

func TestListenerBehindPooler(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	net, through := newNetwork(t, dsn)
	net.deafen()
	g := open(t, through, func(cfg *gateway.Config) {
		cfg.PollInterval = 0 // the default for one that is told nothing
		cfg.ListenHeartbeat = 3 * time.Second
	})
	eventually(t, "it is said that there is a pooler", func() bool {
		lines := g.logs.FilterMessage("not listening for changes of routes; the store is asked for them instead").All()
		return len(lines) == 1 && strings.Contains(fmt.Sprint(lines[0].ContextMap()["error"]), "pooler")
	})
	openSQL(t, dsn).insert("/polled")
	eventually(t, "the change is served", func() bool { return g.match("/polled") != nil })
}

// What polls find, and nobody has announced, shows that listening is in vain.
func TestUnannouncedChanges(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, func(cfg *gateway.Config) {
		cfg.PollInterval = 20 * time.Millisecond
		cfg.ListenHeartbeat = time.Hour
	})
	p := openSQL(t, dsn)
	listening(t, p, g)
	// What is announced no longer reaches the listener.
	p.exec("ALTER FUNCTION isekai_next_revision() RENAME TO isekai_announced_revision",
		`CREATE FUNCTION isekai_next_revision() RETURNS bigint LANGUAGE plpgsql AS $$
		DECLARE number bigint;
		BEGIN
			UPDATE revision_counter SET revision = revision + 1 RETURNING revision INTO STRICT number;
			RETURN number;
		END $$`)
	p.insert("/unannounced")
	eventually(t, "the change is found by asking", func() bool { return g.match("/unannounced") != nil })
	const warning = "a change of routes was not announced; the store is asked for changes instead. A pooler that shares connections between transactions can't be listened through"
	changes := 0
	eventually(t, "it is said", func() bool {
		// The first may have come before it listened.
		changes++
		p.insert(fmt.Sprint("/unannounced/", changes))
		return g.logs.FilterMessage(warning).Len() == 1
	})
}

// After a failover or restore, the same numbers may stand for other changes.
func TestAnotherServerIsLoadedAnew(t *testing.T) {
	t.Parallel()
	for _, listened := range []bool{true, false} {
		t.Run(fmt.Sprintf("listened before %t", listened), func(t *testing.T) {
			t.Parallel()
			server := pgtest.NewServer(t)
			net, through := newNetwork(t, server.DSN())
			listeners, apart := newNetwork(t, server.DSN())
			if !listened {
				listeners.refuse()
			}
			g := open(t, through, func(cfg *gateway.Config) { cfg.PollInterval, cfg.Store.ListenDSN = 50*time.Millisecond, apart })
			p := openSQL(t, server.DSN())
			listening(t, p, g)
			eventually(t, "the listener is where it is to be", func() bool {
				if !listened {
					return g.logs.FilterMessageSnippet("not listening for changes of routes").Len() > 0
				}
				return p.count("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%-listener' AND (query LIKE '%concat_ws%' OR query LIKE '%pg_listening_channels%')") > 0
			})

			net.refuse()
			listeners.refuse()
			server.Stop(t)
			server.Start(t)
			p = openSQL(t, server.DSN())
			p.exec("SET session_replication_role = replica",
				"DELETE FROM routes WHERE path = '/second'",
				"DELETE FROM revisions WHERE revision > 1",
				"UPDATE revision_counter SET revision = 1",
				"SET session_replication_role = origin")
			p.insert("/other")
			p.insert("/more")
			net.thaw()
			listeners.thaw()
			eventually(t, "the table is the other server's", func() bool {
				return g.Table().Revision() == 3 && g.match("/first") != nil && g.match("/second") == nil &&
					g.match("/other") != nil && g.match("/more") != nil
			})
		})
	}
}

func TestBulkChangeIsOneSwap(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, never)
	p := openSQL(t, dsn)
	listening(t, p, g)
	before := g.Table().Revision()
	var swaps, added atomic.Int64
	defer g.Subscribe(&gateway.Subscriber{
		Changed: func(now, _ []*routing.Route) {
			// What was before may be told of yet.
			now = slices.DeleteFunc(slices.Clone(now), func(r *routing.Route) bool { return !strings.HasPrefix(r.Path(), "/bulk/") })
			if len(now) > 0 {
				swaps.Add(1)
				added.Add(int64(len(now)))
			}
		},
		CacheStats: func() cache.Stats { return cache.Stats{} },
	})()
	const many = 10_000
	p.exec(fmt.Sprintf("INSERT INTO routes (path, target_url) SELECT '/bulk/' || n, 'http://127.0.0.1:1' FROM generate_series(1, %d) AS n", many))
	eventually(t, "the last one is served", func() bool { return g.match(fmt.Sprint("/bulk/", many)) != nil })
	eventually(t, "the subscriber has heard", func() bool { return added.Load() >= many })
	if swaps.Load() != 1 || added.Load() != many || g.Table().Revision() != before+1 {
		t.Errorf("%d swaps with %d routes, revision %d after %d", swaps.Load(), added.Load(), g.Table().Revision(), before)
	}
}

// ids of a list of replicas.
func replicaIDs(list []*store.Replica) []string {
	var all []string
	for _, r := range list {
		all = append(all, r.ID)
	}
	slices.Sort(all)
	return all
}

// Anybody may notify. What they say must not stand for what the store has announced.
func TestAnnouncementsOfOthers(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, never)
	p := openSQL(t, dsn)
	listening(t, p, g)
	for i := range 30 {
		path := fmt.Sprint("/after/", i)
		p.exec(fmt.Sprintf("INSERT INTO routes (path, target_url) VALUES ('%s', 'http://127.0.0.1:1'); NOTIFY isekai_routes, '%d'",
			path, g.Table().Revision()))
		eventually(t, path+" is served", func() bool { return g.match(path) != nil })
	}
}

// A number of before does not take back that later ones were heard.
func TestAnnouncementsOfOthersAreNoSilence(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	// Long enough for what is announced to be heard before the second poll after it.
	g := open(t, dsn, func(cfg *gateway.Config) { cfg.PollInterval = 300 * time.Millisecond })
	p := openSQL(t, dsn)
	polls := func(n uint64) {
		before := g.calls(store.CallRead)
		eventually(t, "it is polled", func() bool { return g.calls(store.CallRead) >= before+n })
	}
	listening(t, p, g)
	polls(2)
	p.exec("INSERT INTO routes (path, target_url) VALUES ('/a', 'http://127.0.0.1:1'); NOTIFY isekai_routes, '1'")
	polls(4)
	if n := g.logs.FilterMessageSnippet("was not announced").Len(); n > 0 {
		t.Errorf("it is called deaf %d times", n)
	}
}
