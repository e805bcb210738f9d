package store_test

import (
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// documented reads statements that the documentation tells people to run.
func documented(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/history.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```sql\n-- "+name+"\n")
	statements, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("it is not in the documentation: " + name)
	}
	return statements
}

// TestPostgresGrants lets a role work that has just the documented rights: the
// gateway does all it does, and can't change the history.
func TestPostgresGrants(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	owner := openPlain(t, "pgx", dsn, dsn) // migrates
	if err := owner.MaintainLogs(t.Context(), time.Now(), time.Hour); err != nil {
		t.Fatal(err) // so there are partitions that are not the role's
	}
	role := "isekai_" + strings.ToLower(t.Name())
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	owner.exec(t, "DROP ROLE IF EXISTS "+role)
	owner.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'")
	owner.exec(t, strings.ReplaceAll(documented(t, "grants"), "isekai_gateway", role))
	t.Cleanup(func() {
		db, err := sql.Open("pgx", dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, statement := range []string{"REASSIGN OWNED BY " + role + " TO CURRENT_USER", "DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := db.Exec(statement); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
		}
	})
	u.User = url.UserPassword(role, "secret")
	s := open(t, u.String(), store.Options{}) // migrates too, with nothing to do

	// Everything that a gateway writes.
	route := create(t, s, "/a", "a")
	route.Timeout = 5
	if _, err := s.Update(t.Context(), route, 0, admin); err != nil {
		t.Error(err)
	}
	if _, err := s.Delete(t.Context(), route.ID, 0, admin); err != nil {
		t.Error(err)
	}
	another := store.NewRoute("/b", "http://a")
	if _, err := s.Apply(t.Context(), store.Edits{Create: []*store.Route{another}, Update: []*store.Route{route}}, 3, admin); err != nil {
		t.Error(err)
	}
	consumer, err := s.CreateConsumer(t.Context(), &store.Consumer{Name: "c", Enabled: true}, admin)
	if err != nil {
		t.Fatal(err)
	}
	key := &store.APIKey{ID: strings.Repeat("a", 16), ConsumerID: consumer.ID, Hash: make([]byte, 32), Enabled: true}
	if _, err := s.CreateKey(t.Context(), key, admin); err != nil {
		t.Error(err)
	}
	token := &store.AdminToken{ID: strings.Repeat("b", 16), Name: "t", Role: store.RoleRead, Hash: make([]byte, 32)}
	if _, err := s.CreateToken(t.Context(), token, admin); err != nil {
		t.Error(err)
	}
	if err := s.Used(t.Context(), store.KindAPIKey, map[string]time.Time{key.ID: time.Now()}); err != nil {
		t.Error(err)
	}
	if err := s.DeleteConsumer(t.Context(), consumer.ID, 0, admin); err != nil {
		t.Error(err)
	}
	if err := s.DeleteToken(t.Context(), token.ID, admin); err != nil {
		t.Error(err)
	}
	const writer = "01930000-0000-7000-8000-000000000002"
	if err := s.InsertLogs(t.Context(), store.LogBatch{Writer: writer, Number: 1, Rows: []*store.RequestLog{{RouteID: route.ID, CreatedAt: time.Now()}}}); err != nil {
		t.Error(err)
	}
	if err := s.MaintainLogs(t.Context(), time.Now(), time.Hour); err != nil {
		t.Error(err)
	}
	document := &store.StatsDocument{Replica: "r", Period: time.Minute, Start: time.Now(), Document: []byte("{}")}
	for range 2 {
		if err := s.SaveStats(t.Context(), []*store.StatsDocument{document}, map[int64]time.Time{route.ID: time.Now()}); err != nil {
			t.Error(err)
		}
	}
	if err := s.PruneStats(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	replica := &store.Replica{ID: "01930000-0000-7000-8000-000000000001", Address: "a", StartedAt: time.Now()}
	for range 2 {
		if err := s.ReportReplica(t.Context(), replica); err != nil {
			t.Error(err)
		}
	}
	if err := s.ForgetReplica(t.Context(), replica.ID); err != nil {
		t.Error(err)
	}

	// And reads.
	if routes, _, err := s.Load(t.Context()); err != nil || len(routes) != 2 {
		t.Errorf("%d routes, %v", len(routes), err)
	}
	if _, err := s.Changes(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if list, err := s.Revisions(t.Context(), store.RevisionFilter{}, 0, 100, 100); err != nil || len(list) != 9 {
		t.Errorf("%d revisions, %v", len(list), err)
	}
	if _, err := s.Past(t.Context(), 2); err != nil {
		t.Error(err)
	}

	// The history is append-only for it, and the gateway is told so.
	_, err = s.PruneHistory(t.Context(), time.Now().Add(time.Hour))
	if !errors.Is(err, store.ErrNotPermitted) {
		t.Errorf("pruning: %v", err)
	}
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range []string{
		"UPDATE revisions SET actor = 'nobody'", "DELETE FROM revisions", "TRUNCATE revisions",
		"INSERT INTO revisions (revision, route_id, op, actor, source) VALUES (99, 1, 'delete', '', '')",
		"UPDATE credential_revisions SET actor = 'nobody'", "DELETE FROM credential_revisions",
		"INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source) VALUES (99, 'consumer', '1', 'delete', '', '')",
		"UPDATE revision_counter SET revision = 0", "TRUNCATE routes", "DROP TABLE revisions",
		"ALTER TABLE routes DISABLE TRIGGER ALL",
	} {
		if _, err := db.ExecContext(t.Context(), statement); err == nil {
			t.Errorf("allowed: %s", statement)
		}
	}
}

// TestPostgresPruningByHand runs what the documentation has for roles that may not.
func TestPostgresPruningByHand(t *testing.T) {
	t.Parallel()
	p := plainPostgres(t)
	create(t, p, "/a", "a")
	if _, err := p.CreateConsumer(t.Context(), &store.Consumer{Name: "c", Enabled: true}, admin); err != nil {
		t.Fatal(err)
	}
	p.exec(t, "UPDATE revisions SET created_at = now() - interval '91 days'")
	p.exec(t, "UPDATE credential_revisions SET created_at = now() - interval '91 days'")
	create(t, p, "/b", "b")
	create(t, p, "/c", "c")
	p.exec(t, documented(t, "prune"))
	list, err := p.Revisions(t.Context(), store.RevisionFilter{}, 0, 10, 10)
	if err != nil || len(list) != 2 || list[1].Number != 3 {
		t.Errorf("%d revisions left, %v", len(list), err)
	}
	if c, err := p.Changes(t.Context(), 2); err != nil || len(c.Routes) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}
