package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/store"
)

// testPlainCredentials follows a consumer, a key and a token through plain SQL: each
// statement is one revision that names what it changed, with an author.
func testPlainCredentials(t *testing.T, p plain) {
	const id = "aaaaaaaaaaaaaaaa"
	hash := "decode(repeat('01', 32), 'hex')"
	if p.actor == "sql" {
		hash = "unhex('" + strings.Repeat("01", 32) + "')"
	}
	consumer := store.CredentialChange{Kind: store.KindConsumer, ID: "1"}
	key := store.CredentialChange{Kind: store.KindAPIKey, ID: id}
	token := store.CredentialChange{Kind: store.KindAdminToken, ID: id}
	for i, step := range []struct {
		statement string
		want      store.CredentialChange
		op        string
	}{
		{"INSERT INTO consumers (name) VALUES ('shop')", consumer, "create"},
		{"INSERT INTO api_keys (id, consumer_id, hash) VALUES ('" + id + "', 1, " + hash + ")", key, "create"},
		{"INSERT INTO admin_tokens (id, name, role, hash) VALUES ('" + id + "', 'ci', 'read', " + hash + ")", token, "create"},
		{"UPDATE consumers SET enabled = false", consumer, "update"},
		{"UPDATE api_keys SET enabled = false", key, "update"},
		{"UPDATE admin_tokens SET role = 'write'", token, "update"},
		{"DELETE FROM admin_tokens", token, "delete"},
		{"DELETE FROM api_keys", key, "delete"},
		{"DELETE FROM consumers", consumer, "delete"},
		{"UPDATE consumers SET deleted_at = NULL", consumer, "create"},
	} {
		p.exec(t, step.statement)
		c, err := p.Changes(t.Context(), int64(i))
		if err != nil {
			t.Fatalf("%s: %v", step.statement, err)
		}
		if d := cmp.Diff([]store.CredentialChange{step.want}, c.Credentials); d != "" || c.Revision != int64(i+1) {
			t.Errorf("%s: revision %d, %s", step.statement, c.Revision, d)
		}
		var op, actor string
		var secrets int
		err = p.db.QueryRowContext(t.Context(), "SELECT op, actor FROM credential_revisions WHERE revision = $1", i+1).Scan(&op, &actor)
		if err != nil || op != step.op || actor != p.actor {
			t.Errorf("%s: %s by %s, %v", step.statement, op, actor, err)
		}
		err = p.db.QueryRowContext(t.Context(), `SELECT count(*) FROM credential_revisions
			WHERE CAST(before AS text) LIKE '%hash%' OR CAST(after AS text) LIKE '%hash%'`).Scan(&secrets)
		if err != nil || secrets != 0 {
			t.Errorf("%s: %d hashes in the history, %v", step.statement, secrets, err)
		}
	}
	if _, err := p.Credential(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	for _, refused := range []string{
		"INSERT INTO consumers (name) VALUES ('a b')",
		"INSERT INTO api_keys (id, consumer_id, hash) VALUES ('short', 1, " + hash + ")",
		"UPDATE consumers SET id = 7",
	} {
		if _, err := p.db.ExecContext(t.Context(), refused); err == nil {
			t.Errorf("accepted: %s", refused)
		}
	}
}
