package certstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// makeAuthority is what Caddy's pki app does when it starts: it loads the certificate
// and the key, or makes both.
func makeAuthority(ctx context.Context, s *certstore.Storage, dir, mine string) (string, error) {
	certificate, err := s.Load(ctx, dir+"/root.crt")
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.Store(ctx, dir+"/root.crt", []byte(mine)); err != nil {
			return "", err
		}
		return mine + mine, s.Store(ctx, dir+"/root.key", []byte(mine))
	}
	if err != nil {
		return "", err
	}
	key, err := s.Load(ctx, dir+"/root.key")
	return string(certificate) + string(key), err
}

func TestAuthorityIsMadeOnce(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	var replicas []*certstore.Storage
	for range 3 {
		replicas = append(replicas, openStorage(t, certstore.Options{DSN: dsn}))
	}
	for round := range 10 {
		dir := fmt.Sprintf("pki/authorities/%d", round)
		got := make([]string, len(replicas))
		var wg sync.WaitGroup
		for i, s := range replicas {
			wg.Go(func() {
				var err error
				if got[i], err = makeAuthority(t.Context(), s, dir, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got[0] == "" || got[0][:1] != got[0][1:] || got[1] != got[0] || got[2] != got[0] {
			t.Errorf("the certificates and keys are %q", got)
		}
	}
	var left int
	connect(t, dsn).one(&left, "SELECT count(*) FROM storage_locks")
	if left != 0 {
		t.Errorf("%d claims are left", left)
	}
}

// TestAuthorityIsNotMade has a replica look for an authority and make none.
func TestAuthorityIsNotMade(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	a, b := openStorage(t, certstore.Options{DSN: dsn, LockLease: time.Second}), openStorage(t, certstore.Options{DSN: dsn})
	const certificate = "pki/authorities/local/root.crt"
	for range 2 { // nor does it wait for itself
		if _, err := a.Load(t.Context(), certificate); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	// When its time is over, another may.
	if got, err := makeAuthority(t.Context(), b, "pki/authorities/local", "b"); err != nil || got != "bb" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := a.Load(t.Context(), certificate); err != nil || string(got) != "b" {
		t.Errorf("%q, %v", got, err)
	}
	// A key alone is not expected of anybody.
	for range 2 {
		if _, err := a.Load(t.Context(), "pki/authorities/other/root.key"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	// One that ends gives way at once.
	if _, err := b.Load(t.Context(), "pki/authorities/third/root.crt"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if got, err := makeAuthority(t.Context(), a, "pki/authorities/third", "a"); err != nil || got != "aa" {
		t.Errorf("%q, %v", got, err)
	}
}
