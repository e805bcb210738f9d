package certstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	isekaistore "github.com/isekai-gateway/isekai/store"
)

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"":                                   "no database is named",
		"sqlite://data/isekai.db":            "in PostgreSQL only",
		"postgres://user:s3cret@host:port/x": "cannot be parsed",
		"nonsense s3cret":                    "cannot be parsed",
	} {
		_, err := certstore.Open(certstore.Options{DSN: dsn})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
	_, err := certstore.Open(certstore.Options{DSN: "postgres://localhost/x", Keys: [][]byte{testKey(1), []byte("short")}})
	if err == nil || !strings.Contains(err.Error(), "key 2 has 5 bytes") {
		t.Errorf("a short key: %v", err)
	}
}

func TestNameHidesPassword(t *testing.T) {
	t.Parallel()
	s := openStorage(t, certstore.Options{DSN: "postgres://user:s3cret@db.test:1/isekai"})
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s)} {
		if text != "PostgreSQL db.test/isekai" {
			t.Errorf("the storage is called %s", text)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	s := openStorage(t, certstore.Options{DSN: pgtest.New(t), Keys: [][]byte{testKey(1)}})
	largest := bytes.Repeat([]byte("x"), certstore.MaxValue)
	key := strings.Repeat("k", certstore.MaxKey)
	if err := s.Store(t.Context(), key, largest); err != nil {
		t.Error(err)
	}
	if got, err := s.Load(t.Context(), key); err != nil || !bytes.Equal(got, largest) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := s.Store(t.Context(), "k", append(largest, 'x')); err == nil {
		t.Error("a larger value is stored")
	}
	for _, bad := range []string{key + "k", "", "/", ".", "\xff", "a\x00"} {
		if s.Store(t.Context(), bad, nil) == nil || s.Lock(t.Context(), bad) == nil || s.Delete(t.Context(), bad) == nil {
			t.Errorf("the key %.10q is accepted", bad)
		}
		if _, err := s.Load(t.Context(), bad); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("loading %.10q: %v", bad, err)
		}
	}
}

// TestSealed checks that values are not in the clear, can't be exchanged, and that
// keys can be changed.
func TestSealed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	plain := openStorage(t, certstore.Options{DSN: dsn})
	old := openStorage(t, certstore.Options{DSN: dsn, Keys: [][]byte{testKey(1)}})
	both := openStorage(t, certstore.Options{DSN: dsn, Keys: [][]byte{testKey(2), testKey(1)}})
	secret := []byte("-----BEGIN EC PRIVATE KEY-----")
	for key, s := range map[string]*certstore.Storage{"plain": plain, "old": old, "new": both} {
		if err := s.Store(t.Context(), key, secret); err != nil {
			t.Fatal(err)
		}
		if got, err := both.Load(t.Context(), key); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: %q, %v", key, got, err)
		}
	}
	for key, s := range map[string]*certstore.Storage{"old": plain, "new": old} {
		if _, err := s.Load(t.Context(), key); !errors.Is(err, certstore.ErrSealed) {
			t.Errorf("%s without its key: %v", key, err)
		}
	}
	db := connect(t, dsn)
	var readable []string
	db.one(&readable, "SELECT array_agg(key) FROM certificates_storage WHERE position('PRIVATE'::bytea IN value) > 0")
	if len(readable) != 1 || readable[0] != "plain" {
		t.Errorf("in the clear are %v", readable)
	}
	db.exec("INSERT INTO certificates_storage (key, value, sealed) SELECT 'moved', value, sealed FROM certificates_storage WHERE key = 'new'")
	db.exec("UPDATE certificates_storage SET value = set_byte(value, 20, get_byte(value, 20) # 1) WHERE key = 'old'")
	for _, key := range []string{"moved", "old"} {
		if _, err := both.Load(t.Context(), key); !errors.Is(err, certstore.ErrSealed) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestOutage stops the server: nothing that is stored may seem not to be there.
func TestOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	s := openStorage(t, certstore.Options{DSN: server.DSN(), LockLease: time.Minute, QueryTimeout: 20 * time.Second})
	if err := s.Store(t.Context(), "a/key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	if err := s.Lock(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	down := func(what string, err error) {
		t.Helper()
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s while the server is down: %v", what, err)
		}
	}
	for _, key := range []string{"a/key", "other"} {
		_, err := s.Load(t.Context(), key)
		down("loading", err)
		_, err = s.Stat(t.Context(), key)
		down("stat", err)
		_, err = s.List(t.Context(), key, true)
		down("listing", err)
		if !s.Exists(t.Context(), key) {
			t.Errorf("%s does not exist while the server is down", key)
		}
	}
	down("storing", s.Store(t.Context(), "a/key", nil))
	down("deleting", s.Delete(t.Context(), "a/key"))
	down("locking", s.Lock(t.Context(), "name"))
	got, err := s.TryLock(t.Context(), "name")
	down("trying", err)
	if got {
		t.Error("a lock was got while the server is down")
	}
	down("renewing", s.RenewLockLease(t.Context(), "held", time.Hour))

	server.Start(t)
	if value, err := s.Load(t.Context(), "a/key"); err != nil || string(value) != "value" {
		t.Errorf("after the outage: %q, %v", value, err)
	}
	if err := s.RenewLockLease(t.Context(), "held", time.Hour); err != nil {
		t.Errorf("the lock did not survive the outage: %v", err)
	}
	if err := s.Unlock(t.Context(), "held"); err != nil {
		t.Error(err)
	}
	// Connections of before, which the restart has broken.
	server.Stop(t)
	server.Start(t)
	if value, err := s.Load(t.Context(), "a/key"); err != nil || string(value) != "value" {
		t.Errorf("after a restart: %q, %v", value, err)
	}
}

// TestUnlockDuringOutage checks that a lock that could not be released is released
// when the server is back, by whoever expects it least.
func TestUnlockDuringOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	s := openStorage(t, certstore.Options{DSN: server.DSN(), LockLease: 4 * time.Second})
	if err := s.Lock(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	if err := s.Unlock(t.Context(), "held"); err == nil {
		t.Error("a lock was released while the server is down")
	}
	server.Start(t)
	if err := s.Lock(t.Context(), "held"); err != nil {
		t.Error(err)
	}
}

func TestPausedServer(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	s := openStorage(t, certstore.Options{DSN: server.DSN(), QueryTimeout: 500 * time.Millisecond})
	if err := s.Store(t.Context(), "key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	server.Pause(t)
	if _, err := s.Load(t.Context(), "key"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("loading: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Lock(ctx, "name"); !errors.Is(err, context.Canceled) {
		t.Errorf("locking: %v", err)
	}
	server.Resume(t)
	until(t, "the server answers", func() bool {
		value, err := s.Load(t.Context(), "key")
		return err == nil && string(value) == "value"
	})
}

// TestMigration checks that the gateway's migrations find the tables and keep them.
func TestMigration(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	s := openStorage(t, certstore.Options{DSN: dsn})
	if _, err := s.Load(t.Context(), "key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("loading from an empty database: %v", err)
	}
	if err := s.Store(t.Context(), "key", []byte("value")); err != nil {
		t.Fatal(err)
	}
	st, err := isekaistore.Open(t.Context(), dsn, isekaistore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(t.Context(), "key"); err != nil || string(got) != "value" {
		t.Errorf("after the migration: %q, %v", got, err)
	}
}
