package certstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// TestConformance holds certmagic's own file storage and this one to the same, so
// that it tests what certmagic relies on.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T) certmagic.Storage{
		"FileStorage": func(t *testing.T) certmagic.Storage { return &certmagic.FileStorage{Path: t.TempDir()} },
		"PostgreSQL":  func(t *testing.T) certmagic.Storage { return openStorage(t, certstore.Options{DSN: pgtest.New(t)}) },
		"sealed": func(t *testing.T) certmagic.Storage {
			return openStorage(t, certstore.Options{DSN: pgtest.New(t), Keys: [][]byte{testKey(1)}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for name, test := range map[string]func(*testing.T, certmagic.Storage){
				"values":      testValues,
				"lists":       testLists,
				"deletes":     testDeletes,
				"odd keys":    testOddKeys,
				"concurrency": testConcurrency,
				"locks":       testLocks,
				"lock waits":  testLockWaits,
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					test(t, open(t))
				})
			}
		})
	}
}

func store(t *testing.T, s certmagic.Storage, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := s.Store(t.Context(), key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
}

func missing(t *testing.T, s certmagic.Storage, key string) {
	t.Helper()
	if _, err := s.Load(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("loading %s: %v", key, err)
	}
	if _, err := s.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("looking for %s: %v", key, err)
	}
	if _, err := s.List(t.Context(), key, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("listing %s: %v", key, err)
	}
	if s.Exists(t.Context(), key) {
		t.Errorf("%s exists", key)
	}
}

func testValues(t *testing.T, s certmagic.Storage) {
	missing(t, s, "a/b")
	before := time.Now().Add(-time.Minute)
	large := []byte(strings.Repeat("x", 300_000))
	for _, value := range [][]byte{[]byte("one"), []byte("two, longer"), {}, {0, 255, 0}, large} {
		if err := s.Store(t.Context(), "a/b", value); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load(t.Context(), "a/b")
		if err != nil || !slices.Equal(got, value) {
			t.Errorf("loaded %d bytes, %v, want %d", len(got), err, len(value))
		}
		info, err := s.Stat(t.Context(), "a/b")
		if err != nil || info.Key != "a/b" || info.Size != int64(len(value)) || !info.IsTerminal ||
			info.Modified.Before(before) || info.Modified.After(time.Now().Add(time.Minute)) {
			t.Errorf("stat: %+v, %v", info, err)
		}
	}
	if !s.Exists(t.Context(), "a/b") || !s.Exists(t.Context(), "a") {
		t.Error("what was stored does not exist")
	}
	if info, err := s.Stat(t.Context(), "a"); err != nil || info.IsTerminal || info.Key != "a" {
		t.Errorf("the directory: %+v, %v", info, err)
	}
	if _, err := s.Load(t.Context(), "a"); err == nil {
		t.Error("a directory was loaded")
	}
	missing(t, s, "a/bc")
	missing(t, s, "A/b")
}

func testLists(t *testing.T, s certmagic.Storage) {
	store(t, s, "c/acme/b.test/b.test.key", "c/acme/b.test/b.test.crt", "c/acme/a.test/a.test.crt", "c/acme-2/x", "c/acme.json", "c/acme0", "d", "ca/e", "c%/x", "c_/y")
	for _, test := range []struct {
		prefix    string
		recursive bool
		want      []string
	}{
		{"c", false, []string{"c/acme", "c/acme-2", "c/acme.json", "c/acme0"}},
		{"c/acme", false, []string{"c/acme/a.test", "c/acme/b.test"}},
		{"c/acme", true, []string{"c/acme/a.test", "c/acme/a.test/a.test.crt", "c/acme/b.test", "c/acme/b.test/b.test.crt", "c/acme/b.test/b.test.key"}},
		{"c", true, []string{
			"c/acme", "c/acme/a.test", "c/acme/a.test/a.test.crt", "c/acme/b.test", "c/acme/b.test/b.test.crt", "c/acme/b.test/b.test.key",
			"c/acme-2", "c/acme-2/x", "c/acme.json", "c/acme0",
		}},
		{"c/acme/b.test", false, []string{"c/acme/b.test/b.test.crt", "c/acme/b.test/b.test.key"}},
		{"c%", true, []string{"c%/x"}},
		{"c_", true, []string{"c_/y"}},
		{"d", true, nil},
		{"", false, []string{"c", "c%", "c_", "ca", "d"}},
	} {
		got, err := s.List(t.Context(), test.prefix, test.recursive)
		if err != nil {
			t.Errorf("listing %q: %v", test.prefix, err)
			continue
		}
		// The file system walks in its own order within a folder.
		slices.Sort(got)
		slices.Sort(test.want)
		if diff := cmp.Diff(test.want, got, cmp.Transformer("empty", func(l []string) string { return strings.Join(l, " ") })); diff != "" {
			t.Errorf("listing %q, recursive %v: %s", test.prefix, test.recursive, diff)
		}
	}
	missing(t, s, "nowhere")
	missing(t, s, "c/ac")
}

func testDeletes(t *testing.T, s certmagic.Storage) {
	store(t, s, "a/b", "a/b2", "a/c/d", "a/c/e", "ab", "x")
	for _, key := range []string{"a/b", "a/b", "nowhere", "no/where"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("deleting %s: %v", key, err)
		}
	}
	missing(t, s, "a/b")
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"a", "a/b2", "a/c", "a/c/d"} {
		missing(t, s, key)
	}
	for _, key := range []string{"ab", "x"} {
		if !s.Exists(t.Context(), key) {
			t.Errorf("%s is gone too", key)
		}
	}
}

func testOddKeys(t *testing.T, s certmagic.Storage) {
	for _, key := range []string{"with space", "ünïcode/ключ", "per%cent", "under_score", "quote'\"", "back\\slash", "dots.and-dashes@x", "*", strings.Repeat("k", 200) + "/" + strings.Repeat("l", 200)} {
		store(t, s, key)
		got, err := s.Load(t.Context(), key)
		if err != nil || string(got) != "value of "+key {
			t.Errorf("%q: %q, %v", key, got, err)
		}
		if list, err := s.List(t.Context(), "", true); err != nil || !slices.Contains(list, key) {
			t.Errorf("%q is not in %q, %v", key, list, err)
		}
	}
	// Slashes at the ends and doubled don't matter.
	store(t, s, "p/q")
	for _, key := range []string{"/p/q", "p//q", "p/./q", "p/q/"} {
		if got, err := s.Load(t.Context(), key); (err != nil || string(got) != "value of p/q") && key != "p/q/" {
			t.Errorf("%q: %q, %v", key, got, err)
		}
	}
	if err := s.Store(t.Context(), "nul\x00", nil); err == nil {
		t.Error("a key with a NUL is stored")
	}
	if err := s.Store(t.Context(), "", nil); err == nil {
		t.Error("a value is stored without a key")
	}
}

func testConcurrency(t *testing.T, s certmagic.Storage) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				if err := s.Store(t.Context(), "shared/key", []byte(strings.Repeat(fmt.Sprint(i), 1000))); err != nil {
					t.Error(err)
				}
				got, err := s.Load(t.Context(), "shared/key")
				if err != nil || len(got) != 1000 || strings.Trim(string(got), string(got[:1])) != "" {
					t.Errorf("loaded %d bytes of several writers, %v", len(got), err)
				}
				own := fmt.Sprintf("own/%d/%d", i, j)
				store(t, s, own)
				if got, err := s.Load(t.Context(), own); err != nil || string(got) != "value of "+own {
					t.Errorf("%s: %q, %v", own, got, err)
				}
			}
		})
	}
	wg.Wait()
	if list, err := s.List(t.Context(), "own", true); err != nil || len(list) != 88 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

func testLocks(t *testing.T, s certmagic.Storage) {
	const name = "issue_cert_a.test"
	if err := s.Unlock(t.Context(), name); err == nil {
		t.Error("a lock that nobody holds was released")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	inside, counted := 0, 0
	for range 3 {
		wg.Go(func() {
			for range 2 {
				if err := s.Lock(t.Context(), name); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if inside++; inside > 1 {
					t.Error("two hold the lock")
				}
				mu.Unlock()
				other, err := s.(certmagic.TryLocker).TryLock(t.Context(), "other")
				if err != nil {
					t.Error(err)
				}
				if other {
					if err := s.Unlock(t.Context(), "other"); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				inside--
				counted++
				mu.Unlock()
				if err := s.Unlock(t.Context(), name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if counted != 6 {
		t.Errorf("%d of 6 had the lock", counted)
	}
}

func testLockWaits(t *testing.T, s certmagic.Storage) {
	if err := s.Lock(t.Context(), "held"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Lock(ctx, "held"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a lock that is held: %v", err)
	}
	if err := s.Lock(t.Context(), "another"); err != nil {
		t.Error(err)
	}
	if err := s.Unlock(t.Context(), "another"); err != nil {
		t.Error(err)
	}
	got := make(chan error)
	go func() { got <- s.Lock(context.Background(), "held") }()
	select {
	case err := <-got:
		t.Fatalf("a lock that is held was taken: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := s.Unlock(t.Context(), "held"); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := s.Unlock(t.Context(), "held"); err != nil {
		t.Error(err)
	}
}
