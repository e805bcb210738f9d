package gateway_test

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// notMigrated returns a database whose schema lacks a migration, as seen by its owner
// and by a role that may do anything but migrate.
func notMigrated(t *testing.T) (p psql, role, dsn string) {
	t.Helper()
	owner := pgtest.New(t)
	st, err := store.Open(t.Context(), owner, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	p, role = openSQL(t, owner), strings.TrimPrefix(u.Path, "/")+"_role"
	p.exec("CREATE ROLE "+role+" LOGIN PASSWORD 'secret'",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+role,
		"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+role,
		"UPDATE isekai_migrations SET version_id = -version_id WHERE version_id = (SELECT max(version_id) FROM isekai_migrations)")
	t.Cleanup(func() {
		for _, s := range []string{"REASSIGN OWNED BY " + role + " TO CURRENT_USER", "DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := p.Exec(context.WithoutCancel(t.Context()), s); err != nil {
				t.Errorf("%s: %v", s, err)
			}
		}
	})
	u.User = url.UserPassword(role, "secret")
	return p, role, u.String()
}

func (b bundle) tells(reason string) bool {
	return slices.ContainsFunc(b.Health().Reasons, func(r string) bool { return strings.Contains(r, reason) })
}

// A role that may not migrate waits for the owner to do so, and serves what it can read
// meanwhile: not what there was at its start, but what there is.
func TestStoreThatCanNotBeMigratedIsFollowed(t *testing.T) {
	t.Parallel()
	const failed = "migrating the store's schema has failed"
	p, role, dsn := notMigrated(t)
	p.insert("/before")
	g := open(t, dsn, func(cfg *gateway.Config) { cfg.PollInterval = 0 })
	if g.match("/before") == nil || !g.tells(failed) {
		t.Fatalf("health %+v", g.Health())
	}
	for _, path := range []string{"/after", "/later"} {
		p.insert(path)
		eventually(t, path+" is served", func() bool { return g.match(path) != nil })
	}
	p.exec("UPDATE routes SET enabled = false WHERE path = '/before'")
	eventually(t, "the disabled one is not", func() bool { return g.match("/before") == nil })
	if h := g.Health(); !g.StoreUp() || h.Status != gateway.StatusDegraded || !g.tells(failed) {
		t.Errorf("a store that can be read: up %v, %+v", g.StoreUp(), h)
	}
	if n := g.logs.FilterMessage("the route store can't be prepared; its routes are served if they can be read").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if n := g.logs.FilterMessage("route store is down").Len(); n != 0 {
		t.Errorf("%d times the store was called down", n)
	}

	// What one that never got ready has counted is not for a schema that it does not know.
	idle := open(t, dsn, quickTraffic)
	idle.observe(1, 1)
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if n := p.count("SELECT count(*) FROM request_stats"); n != 0 {
		t.Errorf("%d rows of statistics", n)
	}

	p.exec("UPDATE isekai_migrations SET version_id = -version_id WHERE version_id < 0",
		"DO $$ BEGIN EXECUTE 'GRANT ' || quote_ident(current_user) || ' TO "+role+"'; END $$")
	eventually(t, "all is well", func() bool { return g.Health().Status == gateway.StatusOK })
	g.RequestLog.Add(&store.RequestLog{CreatedAt: time.Now().UTC(), Method: "GET", Path: "/", Status: 200})
	eventually(t, "the request log is written", func() bool { return p.count("SELECT count(*) FROM request_logs") == 1 })
}

// What is announced is served at once also by a gateway that can't migrate, and by one
// that polls seldom.
func TestStoreThatCanNotBeMigratedIsTriedAgain(t *testing.T) {
	t.Parallel()
	p, role, dsn := notMigrated(t)
	g := open(t, dsn, never)
	listening(t, p, g)
	p.exec("UPDATE isekai_migrations SET version_id = -version_id WHERE version_id < 0",
		"DO $$ BEGIN EXECUTE 'GRANT ' || quote_ident(current_user) || ' TO "+role+"'; END $$")
	eventually(t, "all is well", func() bool { return g.Health().Status == gateway.StatusOK })
}
