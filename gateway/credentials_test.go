package gateway_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

var by = store.Author{Actor: "test"}

const keyID = "aaaaaaaaaaaaaaaa"

// consumerWithKey makes a consumer and its key, keyID.
func (b bundle) consumerWithKey(t *testing.T) *store.Consumer {
	t.Helper()
	c, err := b.CreateConsumer(t.Context(), &store.Consumer{Name: "shop", Enabled: true}, by)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateKey(t.Context(), &store.APIKey{ID: keyID, ConsumerID: c.ID, Enabled: true, Hash: make([]byte, 32)}, by); err != nil {
		t.Fatal(err)
	}
	return c
}

// state tells what Credentials knows of keyID in a word.
func (b bundle) state(t *testing.T) string {
	t.Helper()
	found, err := b.Credentials.Key(t.Context(), keyID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return "unknown"
	case errors.Is(err, gateway.ErrStoreDown):
		return "down"
	case err != nil:
		t.Fatal(err)
	case !found.Key.Enabled:
		return "key disabled"
	case !found.Consumer.Enabled:
		return "consumer disabled"
	}
	return "good"
}

func TestCredentialsFollowChanges(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(*testing.T) string{"SQLite": sqliteDSN, "PostgreSQL": func(t *testing.T) string { return pgtest.New(t) }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dsn(t)
			node, replica := open(t, dsn, nil), open(t, dsn, nil)
			both := func(want string) {
				t.Helper()
				// The node that wrote knows at once.
				if got := node.state(t); got != want {
					t.Errorf("here: %s, want %s", got, want)
				}
				eventually(t, "the replica says "+want, func() bool { return replica.state(t) == want })
			}
			both("unknown")
			c := node.consumerWithKey(t)
			both("good")
			edit := *c
			edit.Enabled = false
			if _, err := node.UpdateConsumer(t.Context(), &edit, 0, by); err != nil {
				t.Fatal(err)
			}
			both("consumer disabled")
			edit.Enabled = true
			if _, err := node.UpdateConsumer(t.Context(), &edit, 0, by); err != nil {
				t.Fatal(err)
			}
			both("good")
			if _, err := node.UpdateKey(t.Context(), &store.APIKey{ID: keyID, ConsumerID: c.ID}, by); err != nil {
				t.Fatal(err)
			}
			both("key disabled")
			if err := node.DeleteKey(t.Context(), c.ID, keyID, by); err != nil {
				t.Fatal(err)
			}
			both("unknown")
		})
	}
}

func TestTokensFollowChanges(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), nil)
	known := func() bool {
		_, err := g.Credentials.Token(t.Context(), keyID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	if known() {
		t.Error("known before it was made")
	}
	token := &store.AdminToken{ID: keyID, Name: "ci", Role: store.RoleRead, Hash: make([]byte, 32)}
	if _, err := g.CreateToken(t.Context(), token, by); err != nil {
		t.Fatal(err)
	}
	if !known() {
		t.Error("not known after it was made")
	}
	if err := g.DeleteToken(t.Context(), keyID, by); err != nil {
		t.Fatal(err)
	}
	if known() {
		t.Error("known after it was revoked")
	}
}

func TestCredentialsOutliveTheStore(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	g := open(t, server.DSN(), func(cfg *gateway.Config) {
		cfg.Store = store.Options{ConnectTimeout: time.Second, QueryTimeout: time.Second}
	})
	g.consumerWithKey(t)
	if got := g.state(t); got != "good" {
		t.Fatal(got)
	}
	server.Stop(t)
	eventually(t, "the outage is noticed", func() bool { return !g.StoreUp() })
	if got := g.state(t); got != "good" {
		t.Errorf("a known key is %s during an outage", got)
	}
	if _, err := g.Credentials.Key(t.Context(), strings.Repeat("b", 16)); !errors.Is(err, gateway.ErrStoreDown) {
		t.Errorf("an unknown key during an outage: %v", err)
	}
	if _, err := g.CreateConsumer(t.Context(), &store.Consumer{Name: "late"}, by); !errors.Is(err, gateway.ErrStoreDown) {
		t.Errorf("a write during an outage: %v", err)
	}
}

func TestPlainSQLRevokes(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	g := open(t, dsn, nil)
	g.consumerWithKey(t)
	if got := g.state(t); got != "good" {
		t.Fatal(got)
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, step := range []struct{ statement, want string }{
		{"UPDATE api_keys SET enabled = false", "key disabled"},
		{"UPDATE api_keys SET enabled = true", "good"},
		{`UPDATE consumers SET spec = '{"groups": 7}'`, "consumer disabled"},
		{`UPDATE consumers SET spec = '{}'`, "good"},
		{"DELETE FROM consumers", "unknown"},
	} {
		if _, err := conn.Exec(t.Context(), step.statement); err != nil {
			t.Fatalf("%s: %v", step.statement, err)
		}
		eventually(t, step.statement+": "+step.want, func() bool { return g.state(t) == step.want })
	}
}

func TestUsesAreWritten(t *testing.T) {
	t.Parallel()
	dsn := sqliteDSN(t)
	g := open(t, dsn, nil)
	c := g.consumerWithKey(t)
	for range 3 {
		g.Credentials.KeyUsed(keyID)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dsn, nil)
	keys, err := again.Keys(t.Context(), c.ID)
	if err != nil || len(keys) != 1 || keys[0].LastUsedAt == nil {
		t.Errorf("keys %+v, %v", keys, err)
	}
}

func TestBadConsumers(t *testing.T) {
	t.Parallel()
	g := open(t, sqliteDSN(t), nil)
	c := &store.Consumer{Name: "a b", ConsumerSpec: store.ConsumerSpec{
		Groups: []string{"g", "g", ""}, Labels: map[string]string{"": "x"}, RateLimit: -1, Window: -1,
	}}
	_, err := g.CreateConsumer(t.Context(), c, by)
	fields, _ := errors.AsType[store.FieldErrors](err)
	var got []string
	for _, f := range fields {
		got = append(got, f.Field)
	}
	if want := "name groups[1] groups[2] labels. rate_limit window"; strings.Join(got, " ") != want {
		t.Errorf("fields %q, want %q", got, want)
	}
}
