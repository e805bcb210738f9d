package certstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/certstore"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

const (
	childDSN  = "ISEKAI_TEST_CHILD_DSN"
	childTask = "ISEKAI_TEST_CHILD_TASK"

	issueLock = "issue_cert_race.test"
	issueKey  = "certificates/ca/race.test/race.test.crt"
)

// child is what the test binary does as a process of its own: it obtains
// certificates as certmagic does, or takes a lock and keeps it until it is killed.
func child(ctx context.Context, dsn string) error {
	s, err := certstore.Open(certstore.Options{DSN: dsn, QueryTimeout: time.Minute, LockLease: 2 * time.Second, Log: zap.NewNop})
	if err != nil {
		return err
	}
	defer s.Close()
	if os.Getenv(childTask) == "hold" {
		if err := s.Lock(ctx, "held"); err != nil {
			return err
		}
		fmt.Println("held")
		select {}
	}
	rounds, err := strconv.Atoi(os.Getenv(childTask))
	if err != nil {
		return err
	}
	for i := range rounds {
		if err := obtain(ctx, s, i); err != nil {
			return err
		}
	}
	return nil
}

// obtain orders certificate i unless it is there, and says so when it does.
func obtain(ctx context.Context, s *certstore.Storage, i int) (err error) {
	lock, key := fmt.Sprint(issueLock, i), fmt.Sprint(issueKey, i)
	if err := s.Lock(ctx, lock); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Unlock(ctx, lock)) }()
	_, err = s.Load(ctx, key)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.RenewLockLease(ctx, lock, time.Hour); err != nil {
		return err
	}
	fmt.Println("ordered", i)
	return s.Store(ctx, key, []byte("certificate"))
}

func childCommand(t *testing.T, dsn, task string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDSN+"="+dsn, childTask+"="+task)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestProcessesRace has three processes, on a database that nobody has prepared, want
// the same certificates.
func TestProcessesRace(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	const processes, certificates = 3, 40
	orders := make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			out, err := childCommand(t, dsn, strconv.Itoa(certificates)).Output()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(string(out)) {
				orders[line]++
			}
		})
	}
	wg.Wait()
	for order, n := range orders {
		if n != 1 {
			t.Errorf("%q was said %d times", order, n)
		}
	}
	if len(orders) != certificates {
		t.Errorf("%d of %d certificates were ordered", len(orders), certificates)
	}
	var left int
	connect(t, dsn).one(&left, "SELECT count(*) FROM storage_locks")
	if left != 0 {
		t.Errorf("%d locks are left", left)
	}
}

// TestLockOfAKilledProcess checks that a lock is held as long as its process lives,
// though its lease is short, and free some time after it was killed.
func TestLockOfAKilledProcess(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	cmd := childCommand(t, dsn, "hold")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	s := openStorage(t, certstore.Options{DSN: dsn})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // more than two leases
	defer cancel()
	if err := s.Lock(ctx, "held"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the lock of a living process: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	if err := s.Lock(t.Context(), "held"); err != nil {
		t.Error(err)
	}
	if err := s.Unlock(t.Context(), "held"); err != nil {
		t.Error(err)
	}
}
