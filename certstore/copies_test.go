package certstore_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// TestCopies has a storage start while the database is down.
func TestCopies(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	opts := certstore.Options{DSN: server.DSN(), Copies: filepath.Join(t.TempDir(), "copies"), Keys: [][]byte{testKey(1)}, QueryTimeout: 20 * time.Second}
	other := openStorage(t, certstore.Options{DSN: server.DSN(), Keys: opts.Keys})
	first := openStorage(t, opts)
	set := func(s *certstore.Storage, key, value string) {
		t.Helper()
		if err := s.Store(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	get := func(s *certstore.Storage, key, want string) {
		t.Helper()
		if got, err := s.Load(t.Context(), key); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", key, got, err, want)
		}
	}
	set(first, "certificates/ca/own/own.key", "PRIVATE own")
	set(other, "certificates/ca/loaded/loaded.key", "PRIVATE loaded")
	set(other, "certificates/ca/unseen/unseen.key", "PRIVATE unseen")
	set(first, "certificates/ca/renewed/renewed.key", "PRIVATE old")
	set(first, "certificates/ca/deleted/deleted.key", "PRIVATE deleted")
	set(first, "certificates/ca/elsewhere/elsewhere.key", "PRIVATE elsewhere")
	set(first, "acme/ca/users/x.json", "account")
	get(first, "certificates/ca/loaded/loaded.key", "PRIVATE loaded")
	// Copies are not read while the database answers.
	set(other, "certificates/ca/renewed/renewed.key", "PRIVATE new")
	get(first, "certificates/ca/renewed/renewed.key", "PRIVATE new")
	if err := first.Delete(t.Context(), "certificates/ca/deleted"); err != nil {
		t.Error(err)
	}
	if err := other.Delete(t.Context(), "certificates/ca/elsewhere"); err != nil {
		t.Error(err)
	}
	if _, err := first.Load(t.Context(), "certificates/ca/elsewhere/elsewhere.key"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	server.Stop(t)
	second := openStorage(t, opts)
	for range 2 {
		get(second, "certificates/ca/own/own.key", "PRIVATE own")
		get(second, "certificates/ca/loaded/loaded.key", "PRIVATE loaded")
		get(second, "certificates/ca/renewed/renewed.key", "PRIVATE new")
		for _, key := range []string{
			"certificates/ca/unseen/unseen.key", "certificates/ca/deleted/deleted.key", "certificates/ca/elsewhere/elsewhere.key", "acme/ca/users/x.json",
		} {
			if got, err := second.Load(t.Context(), key); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %q, %v", key, got, err)
			}
		}
	}
	// Nobody reads them without the key, and only the owner reads them at all.
	wrong := opts
	wrong.Keys = [][]byte{testKey(2)}
	if got, err := openStorage(t, wrong).Load(t.Context(), "certificates/ca/own/own.key"); err == nil {
		t.Errorf("with another key: %q", got)
	}
	files := 0
	err := filepath.WalkDir(opts.Copies, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		info, err := entry.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v, %v", path, info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("PRIVATE")) {
			t.Errorf("%s is in the clear", path)
		}
		return err
	})
	if err != nil || files != 3 {
		t.Errorf("there are %d copies, %v", files, err)
	}

	server.Start(t)
	get(second, "certificates/ca/unseen/unseen.key", "PRIVATE unseen")
}
