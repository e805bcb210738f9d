package certstore_test

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// until waits for something that happens in the background.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened: %s", what)
		}
	}
}

func TestLocksAreRenewed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	a := openStorage(t, certstore.Options{DSN: dsn, LockLease: 3 * time.Second})
	b := openStorage(t, certstore.Options{DSN: dsn, LockLease: 3 * time.Second})
	if err := a.Lock(t.Context(), "name"); err != nil {
		t.Fatal(err)
	}
	db := connect(t, dsn)
	var first, now time.Time
	db.one(&first, "SELECT expires FROM storage_locks WHERE name = 'name'")
	until(t, "the lock has outlived its first lease", func() bool {
		if got, err := b.TryLock(t.Context(), "name"); got || err != nil {
			t.Fatalf("a lock that is held was taken: %v, %v", got, err)
		}
		db.one(&now, "SELECT clock_timestamp()")
		return now.After(first)
	})
	if err := a.RenewLockLease(t.Context(), "name", time.Hour); err != nil {
		t.Error(err)
	}
	var left time.Duration
	db.one(&left, "SELECT expires - clock_timestamp() FROM storage_locks WHERE name = 'name'")
	if left > 3*time.Second {
		t.Errorf("a crash now would keep the lock for %v", left)
	}
	if err := b.RenewLockLease(t.Context(), "name", time.Hour); !errors.Is(err, certstore.ErrNotHeld) {
		t.Errorf("renewing another's lock: %v", err)
	}
	if err := a.Unlock(t.Context(), "name"); err != nil {
		t.Error(err)
	}
	if got, err := b.TryLock(t.Context(), "name"); !got || err != nil {
		t.Errorf("a free lock: %v, %v", got, err)
	}
	if err := b.Unlock(t.Context(), "name"); err != nil {
		t.Error(err)
	}
}

// TestLostLock takes a lock from its holder, as happens to a process that stood still
// for longer than its lease.
func TestLostLock(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	core, logs := observer.New(zapcore.WarnLevel)
	a := openStorage(t, certstore.Options{DSN: dsn, LockLease: 3 * time.Second, Log: func() *zap.Logger { return zap.New(core) }})
	b := openStorage(t, certstore.Options{DSN: dsn})
	db := connect(t, dsn)
	lose := func(name string) {
		t.Helper()
		if err := a.Lock(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		db.exec("UPDATE storage_locks SET expires = '-infinity', token = gen_random_uuid() WHERE name = $1", name)
		if got, err := b.TryLock(t.Context(), name); !got || err != nil {
			t.Fatalf("an expired lock: %v, %v", got, err)
		}
	}
	held := func(name string) {
		t.Helper()
		if got, err := a.TryLock(t.Context(), name); got || err != nil {
			t.Errorf("the new holder has lost the lock: %v, %v", got, err)
		}
	}

	// Noticed by the holder who asks before it orders a certificate.
	lose("asked")
	if err := a.RenewLockLease(t.Context(), "asked", time.Hour); !errors.Is(err, certstore.ErrNotHeld) {
		t.Errorf("renewing a lost lock: %v", err)
	}
	if err := a.Unlock(t.Context(), "asked"); err != nil {
		t.Error(err)
	}
	held("asked")

	// Noticed in the background.
	lose("unasked")
	until(t, "the loss is logged", func() bool {
		return logs.FilterMessageSnippet("was lost: its lease has expired").FilterField(zap.String("lock", "unasked")).Len() == 1
	})
	if err := a.Unlock(t.Context(), "unasked"); err != nil {
		t.Error(err)
	}
	held("unasked")

	// Not noticed at all.
	lose("unlocked")
	if err := a.Unlock(t.Context(), "unlocked"); err != nil {
		t.Error(err)
	}
	held("unlocked")

	// Taken again by the same process, before its first holder gives it up.
	lose("again")
	if err := a.RenewLockLease(t.Context(), "again", time.Hour); !errors.Is(err, certstore.ErrNotHeld) {
		t.Error(err)
	}
	if err := b.Unlock(t.Context(), "again"); err != nil {
		t.Error(err)
	}
	if err := a.Lock(t.Context(), "again"); err != nil {
		t.Fatal(err)
	}
	if err := a.Unlock(t.Context(), "again"); err != nil { // the first holder
		t.Error(err)
	}
	if got, err := b.TryLock(t.Context(), "again"); got || err != nil {
		t.Errorf("the first holder has released the second one's lock: %v, %v", got, err)
	}
	if err := a.Unlock(t.Context(), "again"); err != nil {
		t.Error(err)
	}
	if got, err := b.TryLock(t.Context(), "again"); !got || err != nil {
		t.Errorf("the lock is not free: %v, %v", got, err)
	}
}

func TestCloseReleasesLocks(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	a, b := openStorage(t, certstore.Options{DSN: dsn}), openStorage(t, certstore.Options{DSN: dsn})
	for _, name := range []string{"one", "two"} {
		if err := a.Lock(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan error)
	go func() { waiting <- a.Lock(t.Context(), "one") }()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; err == nil {
		t.Error("a closed storage gives a lock")
	}
	for _, name := range []string{"one", "two"} {
		if got, err := b.TryLock(t.Context(), name); !got || err != nil {
			t.Errorf("%s is not free: %v, %v", name, got, err)
		}
		// Caddy does so last of all.
		if err := a.Unlock(t.Context(), name); err != nil {
			t.Error(err)
		}
		if got, err := b.TryLock(t.Context(), name); got || err != nil {
			t.Errorf("%s was taken from its holder: %v, %v", name, got, err)
		}
	}
	if _, err := a.Load(t.Context(), "x"); !errors.Is(err, certstore.ErrClosed) {
		t.Errorf("loading: %v", err)
	}
}
