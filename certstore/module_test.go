package certstore_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

func TestCaddyfile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		option string
		want   map[string]any
		fault  string
	}{
		"plain": {"storage isekai", map[string]any{"module": "isekai"}, ""},
		"dsn":   {"storage isekai {env.X}", map[string]any{"module": "isekai", "dsn": "{env.X}"}, ""},
		"all": {"storage isekai {\nstore {env.X}\nencryption_key {env.NEW} {env.OLD}\nlocal_copies data/copies\nmax_conns 8\nquery_timeout 5s\nlock_lease 1m\n}", map[string]any{
			"module": "isekai", "dsn": "{env.X}", "encryption_keys": []any{"{env.NEW}", "{env.OLD}"}, "local_copies": "data/copies", "max_conns": 8.0, "query_timeout": 5e9, "lock_lease": 60e9,
		}, ""},
		"two arguments": {"storage isekai a b", nil, "wrong argument count"},
		"two databases": {"storage isekai a {\nstore b\n}", nil, "named twice, at Caddyfile:3"},
		"twice":         {"storage isekai {\nmax_conns 1\nmax_conns 1\n}", nil, "stands twice, at Caddyfile:4"},
		"unknown":       {"storage isekai {\nx\n}", nil, "unrecognized option: x, at Caddyfile:3"},
		"no key":        {"storage isekai {\nencryption_key\n}", nil, "wrong argument count"},
		"bad number":    {"storage isekai {\nmax_conns 0\n}", nil, `not "0"`},
		"bad duration":  {"storage isekai {\nquery_timeout x\n}", nil, `not "x"`},
		"short lease":   {"storage isekai {\nlock_lease 1s\n}", nil, "from 3s to 10m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			encoded, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\n"+test.option+"\n}\n"), map[string]any{"filename": "Caddyfile"})
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("error %v, want %q", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var cfg struct{ Storage map[string]any }
			if err := json.Unmarshal(encoded, &cfg); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, cfg.Storage); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// load loads the module as a configuration does.
func load(t *testing.T, settings map[string]any) (certmagic.Storage, context.CancelFunc, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	raw, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ctx.LoadModuleByID("caddy.storage.isekai", raw)
	if err != nil {
		cancel()
		return nil, cancel, err
	}
	s, err := m.(caddy.StorageConverter).CertMagicStorage()
	return s, cancel, err
}

func TestModuleSettings(t *testing.T) {
	t.Setenv("ISEKAI_TEST_EMPTY", "")
	t.Setenv("ISEKAI_TEST_KEY", base64.StdEncoding.EncodeToString(testKey(1)))
	dsn := "postgres://user:s3cret@127.0.0.1:1/isekai" // where nobody listens
	for want, settings := range map[string]map[string]any{
		"no database is named":          {"dsn": "{env.ISEKAI_TEST_EMPTY}"},
		"in PostgreSQL only":            {"dsn": "sqlite://x.db"},
		"cannot be parsed":              {"dsn": "postgres://s3cret:s3cret@:s3cret/"},
		"max_conns":                     {"dsn": dsn, "max_conns": -1},
		"query_timeout":                 {"dsn": dsn, "query_timeout": -1},
		"lock_lease must be from 3s":    {"dsn": dsn, "lock_lease": "1s"},
		"key 1 is empty":                {"dsn": dsn, "encryption_keys": []string{"{env.ISEKAI_TEST_EMPTY}"}},
		"key 2 is no base64":            {"dsn": dsn, "encryption_keys": []string{"{env.ISEKAI_TEST_KEY}", "s3cret!"}},
		"key 1 has 6 bytes, and needs ": {"dsn": dsn, "encryption_keys": []string{base64.StdEncoding.EncodeToString([]byte("s3cret"))}},
		"unknown field":                 {"dsn": dsn, "x": 1},
	} {
		_, _, err := load(t, settings)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if _, _, err := load(t, map[string]any{"dsn": dsn, "encryption_keys": []string{"{env.ISEKAI_TEST_KEY}"}}); err != nil {
		t.Errorf("without a server: %v", err)
	}
}

// TestModulesShare has a configuration replace another: locks and connections stay as
// long as the settings do.
func TestModulesShare(t *testing.T) {
	t.Setenv("ISEKAI_DATABASE_URL", pgtest.New(t))
	before, endBefore, err := load(t, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Lock(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	same, endSame, err := load(t, map[string]any{})
	if err != nil || same != before {
		t.Fatalf("with equal settings there is another storage, %v", err)
	}
	other, endOther, err := load(t, map[string]any{"max_conns": 2})
	if err != nil || other == before {
		t.Fatalf("with other settings there is the same storage, %v", err)
	}
	endBefore()
	if got, err := other.(certmagic.TryLocker).TryLock(t.Context(), "name"); got || err != nil {
		t.Errorf("a reload has lost a lock: %v, %v", got, err)
	}
	if err := same.Store(t.Context(), "key", nil); err != nil {
		t.Error(err)
	}
	endSame()
	if got, err := other.(certmagic.TryLocker).TryLock(t.Context(), "name"); !got || err != nil {
		t.Errorf("the last configuration has left a lock: %v, %v", got, err)
	}
	if _, err := same.Load(t.Context(), "key"); err == nil {
		t.Error("the storage is still open")
	}
	endOther()
	if _, ok := other.(*certstore.Storage); !ok {
		t.Errorf("the storage is a %T", other)
	}
}
