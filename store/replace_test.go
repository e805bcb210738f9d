package store_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/store"
)

// TestReplacedRows has rows vanish for which SQLite runs no trigger.
func TestReplacedRows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, replace string
		resync          bool
	}{
		"route": {
			`INSERT INTO routes (path, target_url, spec) VALUES ('/a', 'http://a', '{"query": {"v": "1"}}')`,
			`REPLACE INTO routes (path, target_url, spec) VALUES ('/a', 'http://b', '{"query": {"v": "1"}}')`, true,
		},
		"route, upsert": {
			`INSERT INTO routes (path, target_url) VALUES ('/a', 'http://a')`,
			`INSERT INTO routes (id, path, target_url) VALUES (1, '/a', 'http://b') ON CONFLICT DO UPDATE SET target_url = excluded.target_url`, true,
		},
		"another route": {
			`INSERT INTO routes (path, target_url, spec) VALUES ('/a', 'http://a', '{"query": {"v": "1"}}')`,
			`REPLACE INTO routes (path, target_url) VALUES ('/a', 'http://b')`, false,
		},
		"the same route by its id": {
			`INSERT INTO routes (path, target_url) VALUES ('/a', 'http://a')`,
			`REPLACE INTO routes (id, path, target_url) VALUES (1, '/b', 'http://b')`, false,
		},
		"consumer": {
			`INSERT INTO consumers (name) VALUES ('a')`,
			`INSERT OR REPLACE INTO consumers (name, enabled) VALUES ('a', 0)`, true,
		},
		"admin token": {
			`INSERT INTO admin_tokens (id, name, role, hash) VALUES ('aaaaaaaaaaaaaaaa', 'a', 'read', zeroblob(32))`,
			`REPLACE INTO admin_tokens (id, name, role, hash) VALUES ('bbbbbbbbbbbbbbbb', 'a', 'read', zeroblob(32))`, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := plainSQLite(t)
			p.exec(t, tt.before)
			p.exec(t, tt.replace)
			if _, err := p.Changes(t.Context(), 1); errors.Is(err, store.ErrResync) != tt.resync || err != nil && !tt.resync {
				t.Errorf("the changes: %v, want to load everything: %t", err, tt.resync)
			}
			rows, at, err := p.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(at, revision(t, p)); d != "" {
				t.Error(d)
			}
			live := make(map[string]string)
			for _, row := range rows {
				live[row.Path+" "+row.TargetURL] = row.MatchKey
			}
			if _, old := live["/a http://a"]; old && tt.resync {
				t.Errorf("the replaced row is still there: %v", live)
			}
		})
	}
	t.Run("ids", func(t *testing.T) {
		t.Parallel()
		p := plainSQLite(t)
		p.exec(t, `INSERT INTO routes (path, target_url) VALUES ('/a', 'http://a')`)
		p.exec(t, `INSERT INTO consumers (name) VALUES ('a')`)
		for _, table := range []string{"routes", "consumers"} {
			if _, err := p.db.ExecContext(t.Context(), "UPDATE "+table+" SET rowid = 7"); err == nil {
				t.Errorf("the id of %s was changed", table)
			}
		}
	})
}
