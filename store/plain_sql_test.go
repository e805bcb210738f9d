package store_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// plain is a store whose database the test also writes with SQL of its own.
type plain struct {
	store.Store
	db     *sql.DB
	actor  string // who plain SQL is in the history
	source string
}

func (p plain) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := p.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func openPlain(t *testing.T, driver, dsn, name string) plain {
	t.Helper()
	s := open(t, dsn, store.Options{})
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return plain{Store: s, db: db}
}

func plainPostgres(t *testing.T) plain {
	dsn := pgtest.New(t)
	p := openPlain(t, "pgx", dsn, dsn)
	if err := p.db.QueryRowContext(t.Context(), "SELECT 'sql:' || session_user, host(inet_client_addr())").Scan(&p.actor, &p.source); err != nil {
		t.Fatal(err)
	}
	return p
}

func plainSQLite(t *testing.T) plain {
	dsn := newSQLite(t)
	p := openPlain(t, "sqlite", dsn, "file:"+strings.TrimPrefix(dsn, "sqlite://")+"?_pragma=busy_timeout(5000)")
	p.actor = "sql"
	return p
}

func TestPlainSQL(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, p plain)
	}{
		{"Insert", testPlainInsert},
		{"Insert with nulls", testPlainNulls},
		{"Insert with a revision", testPlainInsertWithRevision},
		{"Update", testPlainUpdate},
		{"Update and the match key", testPlainMatchKey},
		{"Delete", testPlainDelete},
		{"Undelete", testPlainUndelete},
		{"Deleted rows", testPlainDeletedRows},
		{"Refused", testPlainRefused},
		{"Specs that do not decode", testPlainBadSpecs},
		{"Pruned history", testPlainPrunedHistory},
		{"Restored dump", testPlainRestoredDump},
		{"Credentials", testPlainCredentials},
		{"Request log", testPlainRequestLog},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			t.Run("Postgres", func(t *testing.T) { t.Parallel(); test.run(t, plainPostgres(t)) })
			t.Run("SQLite", func(t *testing.T) { t.Parallel(); test.run(t, plainSQLite(t)) })
		})
	}
}

// changed returns the ids of the routes changed after since.
func changed(t *testing.T, s store.Store, since int64) []int64 {
	t.Helper()
	routes, _, err := changes(s.Changes(t.Context(), since))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for _, r := range routes {
		ids = append(ids, r.ID)
	}
	return ids
}

func testPlainInsert(t *testing.T, p plain) {
	create(t, p, "/first", "k")
	p.exec(t, `INSERT INTO routes (path, target_url, method, enabled, rate_limit, timeout)
		VALUES ('/a', 'http://a', 'POST', true, 5, 6)`)
	p.exec(t, `INSERT INTO routes (path, target_url) VALUES ('/b', 'http://b')`)
	if d := cmp.Diff([]int64{2, 3}, changed(t, p, 1)); d != "" {
		t.Error(d)
	}
	got := get(t, p, 2)
	if got.Path != "/a" || got.Method != "POST" || !got.Enabled || got.RateLimit != 5 || got.Timeout != 6 || got.Revision != 2 || got.MatchKey != "" {
		t.Errorf("got %+v", got)
	}
	got = get(t, p, 3)
	if got.Method != "GET" || !got.Enabled || got.RateLimit != 0 || got.Timeout != 30 || got.Revision != 3 || got.CreatedAt.IsZero() {
		t.Errorf("got %+v", got)
	}
	newest := history(t, p)[0]
	want := store.Change{Revision: 3, RouteID: 3, Op: "create", Actor: p.actor, Source: p.source, After: got, CreatedAt: newest.CreatedAt}
	if d := cmp.Diff(want, newest); d != "" {
		t.Error(d)
	}
	// The gateway goes on from there.
	if next := create(t, p, "/c", "c"); next.Revision != 4 {
		t.Errorf("revision %d, want 4", next.Revision)
	}
}

func testPlainNulls(t *testing.T, p plain) {
	p.exec(t, `INSERT INTO routes (path, target_url, rate_limit, timeout) VALUES ('/a', 'http://a', NULL, NULL)`)
	got := get(t, p, 1)
	if got.RateLimit != 0 || got.Timeout != 30 {
		t.Errorf("got rate limit %d, timeout %d, want 0 and 30", got.RateLimit, got.Timeout)
	}
	if d := cmp.Diff(got, history(t, p)[0].After); d != "" {
		t.Error(d)
	}
}

// Rows copied from elsewhere bring their numbers, which must not stand.
func testPlainInsertWithRevision(t *testing.T, p plain) {
	create(t, p, "/first", "k")
	for _, number := range []int64{1, 7, -1} {
		before := revision(t, p)
		p.exec(t, `INSERT INTO routes (path, target_url, revision) VALUES ('/a', $2, $1)`, number, "http://a")
		if after := revision(t, p); after != before+1 {
			t.Errorf("inserting with revision %d: from %d to %d", number, before, after)
		}
		p.exec(t, `UPDATE routes SET revision = $1 WHERE path = '/a'`, number)
		if after := revision(t, p); after != before+2 {
			t.Errorf("setting revision %d: from %d to %d", number, before, after)
		}
		if n := len(changed(t, p, before)); n != 1 {
			t.Errorf("inserting with revision %d changed %d routes", number, n)
		}
		p.exec(t, `DELETE FROM routes WHERE path = '/a'`)
	}
}

func testPlainUpdate(t *testing.T, p plain) {
	before := create(t, p, "/a", "a")
	create(t, p, "/b", "b")
	p.exec(t, `UPDATE routes SET enabled = false, rate_limit = 9 WHERE id = 1`)
	after := get(t, p, 1)
	if after.Enabled || after.RateLimit != 9 || after.Revision != 3 || after.MatchKey != "a" || !after.CreatedAt.Equal(before.CreatedAt) {
		t.Errorf("got %+v", after)
	}
	newest := history(t, p)[0]
	want := store.Change{Revision: 3, RouteID: 1, Op: "update", Actor: p.actor, Source: p.source, Before: before, After: after, CreatedAt: newest.CreatedAt}
	if d := cmp.Diff(want, newest); d != "" {
		t.Error(d)
	}
	p.exec(t, `UPDATE routes SET enabled = true WHERE id = 99`)
	if got := revision(t, p); got != 3 {
		t.Errorf("an update of no row took revision %d", got)
	}
}

func testPlainMatchKey(t *testing.T, p plain) {
	for _, test := range []struct{ set, want string }{
		{"enabled = false", "k"},
		{"name = 'n', timeout = 1, target_url = 'http://b'", "k"},
		{"host = host", "k"},
		{"host = 'h'", ""},
		{"path = '/new'", ""},
		{"method = 'PUT'", ""},
		{"priority = 5", ""},
		{`spec = '{"headers": {"a": "b"}}'`, ""},
		{"path = '/other', match_key = 'new'", "new"},
	} {
		route := create(t, p, "/a", "k")
		p.exec(t, "UPDATE routes SET "+test.set+" WHERE id = $1", route.ID)
		if got := get(t, p, route.ID).MatchKey; got != test.want {
			t.Errorf("%s: match key %q, want %q", test.set, got, test.want)
		}
		p.exec(t, "DELETE FROM routes WHERE id = $1", route.ID)
	}
}

func testPlainDelete(t *testing.T, p plain) {
	before := create(t, p, "/a", "a")
	create(t, p, "/b", "b")
	p.exec(t, `DELETE FROM routes WHERE id = 1`)
	if _, err := p.Get(t.Context(), 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	routes, number, err := changes(p.Changes(t.Context(), 2))
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) != 1 || routes[0].ID != 1 || routes[0].DeletedAt == nil || number != 3 {
		t.Errorf("changes %+v at revision %d", routes, number)
	}
	newest := history(t, p)[0]
	want := store.Change{Revision: 3, RouteID: 1, Op: "delete", Actor: p.actor, Source: p.source, Before: before, CreatedAt: newest.CreatedAt}
	if d := cmp.Diff(want, newest); d != "" {
		t.Error(d)
	}
	// A second time changes nothing, and removes nothing.
	p.exec(t, `DELETE FROM routes WHERE id = 1`)
	var rows int
	if err := p.db.QueryRowContext(t.Context(), "SELECT count(*) FROM routes").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if got := revision(t, p); got != 3 || rows != 2 {
		t.Errorf("deleted twice: %d rows at revision %d", rows, got)
	}
	p.exec(t, `DELETE FROM routes`)
	if routes, _, err := p.Load(t.Context()); err != nil || len(routes) != 0 {
		t.Errorf("Load: %d routes, error %v", len(routes), err)
	}
}

func testPlainUndelete(t *testing.T, p plain) {
	route := create(t, p, "/a", "a")
	if _, err := p.Delete(t.Context(), route.ID, 0, admin); err != nil {
		t.Fatal(err)
	}
	p.exec(t, `UPDATE routes SET deleted_at = NULL WHERE id = 1`)
	got := get(t, p, 1)
	if got.Revision != 3 || got.DeletedAt != nil {
		t.Errorf("got %+v", got)
	}
	newest := history(t, p)[0]
	if newest.Op != "create" || newest.Before != nil || newest.After == nil {
		t.Errorf("history: %+v", newest)
	}
}

// What happens to a route that is not live is no change.
func testPlainDeletedRows(t *testing.T, p plain) {
	p.exec(t, `INSERT INTO routes (path, target_url, deleted_at) VALUES ('/a', 'http://a', '2026-01-02 03:04:05+00:00')`)
	p.exec(t, `UPDATE routes SET name = 'n'`)
	if got := revision(t, p); got != 0 || len(history(t, p)) != 0 {
		t.Errorf("revision %d, want 0", got)
	}
}

func testPlainRefused(t *testing.T, p plain) {
	create(t, p, "/a", "a")
	for _, statement := range []string{
		`INSERT INTO routes (path, target_url) VALUES ('/a', 'http://other')`,
		`INSERT INTO routes (target_url) VALUES ('http://other')`,
		`INSERT INTO routes (path) VALUES ('/b')`,
		`INSERT INTO routes (path, target_url, spec) VALUES ('/b', 'http://b', '{')`,
		`INSERT INTO routes (path, target_url, rate_limit) VALUES ('/b', 'http://b', 2147483648)`,
		`INSERT INTO routes (path, target_url, created_at) VALUES ('/b', 'http://b', 'infinity')`,
		`INSERT INTO routes (path, target_url, updated_at) VALUES ('/b', 'http://b', 'some time')`,
		`UPDATE routes SET rate_limit = 'many'`,
		`UPDATE routes SET id = 7`,
	} {
		if _, err := p.db.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("accepted: %s", statement)
		}
	}
	if got := revision(t, p); got != 1 {
		t.Errorf("revision %d, want 1", got)
	}
	// Two rows that differ in what they match may stand side by side.
	p.exec(t, `INSERT INTO routes (path, target_url, spec) VALUES ('/a', 'http://b', '{"headers": {"a": "b"}}')`)
}

func testPlainBadSpecs(t *testing.T, p plain) {
	good := create(t, p, "/good", "good")
	specs := []string{
		`[]`, `null`, `"text"`, `1`, `{"unknown": 1}`, `{"headers": []}`, `{"headers": {"a": 1}}`,
		`{"limits": {"window": "x"}}`, `{"limits": {"windows": 1}}`, `{"limits": {"body_max": 1.5}}`, `{"cors": {"origins": "https://a.test"}}`, `{"cors": {"origin": []}}`, `{"plugins": {}}`, `{"strip_prefix": "yes"}`,
	}
	for i, spec := range specs {
		p.exec(t, `INSERT INTO routes (path, target_url, priority, spec) VALUES ('/bad', 'http://a', $1, $2)`, i, spec)
	}
	routes, _, err := p.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) != 1+len(specs) {
		t.Fatalf("%d routes, want %d", len(routes), 1+len(specs))
	}
	if d := cmp.Diff(good, routes[0]); d != "" {
		t.Error(d)
	}
	for i, r := range routes[1:] {
		if !strings.HasPrefix(r.DecodeError, "spec: ") || r.Path != "/bad" || r.Priority != i || r.Timeout != 30 {
			t.Errorf("%s: got %+v", specs[i], r)
		}
		if d := cmp.Diff(store.Spec{}, r.Spec); d != "" {
			t.Errorf("%s: decoded in part: %s", specs[i], d)
		}
	}
	for _, c := range history(t, p) {
		if c.RouteID != good.ID && c.After.DecodeError == "" {
			t.Errorf("route %d has no error in the history", c.RouteID)
		}
	}
	// Such a row can be repaired and deleted.
	fixed := store.NewRoute("/fixed", "http://a")
	fixed.ID = routes[1].ID
	if got, err := p.Update(t.Context(), fixed, 0, admin); err != nil || got.DecodeError != "" {
		t.Errorf("got %+v, error %v", got, err)
	}
	if _, err := p.Delete(t.Context(), routes[2].ID, 0, admin); err != nil {
		t.Error(err)
	}
}

func testPlainPrunedHistory(t *testing.T, p plain) {
	for _, path := range []string{"/a", "/b", "/c", "/d"} {
		create(t, p, path, path)
	}
	p.exec(t, `DELETE FROM revisions WHERE revision <= 2`)
	for _, since := range []int64{0, 1} {
		if _, err := p.Changes(t.Context(), since); !errors.Is(err, store.ErrResync) {
			t.Errorf("since %d: %v", since, err)
		}
	}
	if d := cmp.Diff([]int64{3, 4}, changed(t, p, 2)); d != "" {
		t.Error(d)
	}
}

func testPlainRestoredDump(t *testing.T, p plain) {
	create(t, p, "/a", "a")
	create(t, p, "/b", "b")
	p.exec(t, `UPDATE revision_counter SET revision = 1`)
	if _, err := p.Changes(t.Context(), 2); !errors.Is(err, store.ErrResync) {
		t.Errorf("got %v", err)
	}
}

func testPlainRequestLog(t *testing.T, p plain) {
	route := create(t, p, "/a", "a")
	insert := `INSERT INTO request_logs (route_id, method, path, status_code, response_time, client_ip, user_agent)
		VALUES ($1, 'GET', '/a', 200, 12, '192.0.2.1', 'test')`
	p.exec(t, insert, route.ID)
	p.exec(t, insert, nil)
	if _, err := p.db.ExecContext(t.Context(), "PRAGMA foreign_keys = 1"); p.actor == "sql" && err != nil {
		t.Fatal(err)
	}
	p.exec(t, `DELETE FROM routes WHERE id = $1`, route.ID)
	var logged int
	err := p.db.QueryRowContext(t.Context(),
		"SELECT count(*) FROM request_logs JOIN routes ON routes.id = route_id").Scan(&logged)
	if err != nil || logged != 1 {
		t.Errorf("%d log entries have their route, error %v", logged, err)
	}
}

// changes takes the routes apart, for tests that are about them.
func changes(c *store.Changes, err error) ([]*store.Route, int64, error) {
	if err != nil {
		return nil, 0, err
	}
	return c.Routes, c.Revision, nil
}
