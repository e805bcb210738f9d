package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

const (
	childRoutes = "ISEKAI_TEST_CHILD_ROUTES" // how many routes the child creates
	childName   = "ISEKAI_TEST_CHILD_NAME"   // tells its routes from others'
)

// child is what the test binary does as a process of its own: it starts as a
// gateway does, creates routes, and prints the id of each once it is acknowledged.
func child(ctx context.Context, dsn string) error {
	s, err := store.Open(ctx, dsn, store.Options{ConnectTimeout: time.Minute, QueryTimeout: time.Minute})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Migrate(ctx); err != nil {
		return err
	}
	routes, err := strconv.Atoi(os.Getenv(childRoutes))
	if err != nil {
		return err
	}
	for i := range routes {
		route, err := s.Create(ctx, store.NewRoute(fmt.Sprintf("/%s/%d", os.Getenv(childName), i), "http://a"), admin)
		if err != nil {
			return err
		}
		fmt.Println(route.ID)
	}
	return nil
}

func childCommand(t *testing.T, dsn, name string, routes int) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDSN+"="+dsn, childName+"="+name, childRoutes+"="+strconv.Itoa(routes))
	return cmd
}

func TestProcessesStartAtOnce(t *testing.T) {
	t.Parallel()
	for name, newDSN := range map[string]func(t *testing.T) string{
		"Postgres": func(t *testing.T) string { return pgtest.New(t) },
		"SQLite":   newSQLite,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := newDSN(t)
			const processes, routes = 6, 10
			var all sync.WaitGroup
			for i := range processes {
				all.Go(func() {
					if out, err := childCommand(t, dsn, strconv.Itoa(i), routes).CombinedOutput(); err != nil {
						t.Errorf("process %d: %v\n%s", i, err, out)
					}
				})
			}
			all.Wait()
			got, at, err := openOnly(t, dsn, store.Options{}).Load(t.Context())
			if err != nil || len(got) != processes*routes || at != processes*routes {
				t.Errorf("%d routes at revision %d, error %v", len(got), at, err)
			}
		})
	}
}

func TestStoresMigrateAtOnce(t *testing.T) {
	t.Parallel()
	for name, newDSN := range map[string]func(t *testing.T) string{
		"Postgres": func(t *testing.T) string { return pgtest.New(t) },
		"SQLite":   newSQLite,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := newDSN(t)
			var all sync.WaitGroup
			for range 6 {
				all.Go(func() {
					s, err := store.Open(t.Context(), dsn, store.Options{ConnectTimeout: time.Minute, QueryTimeout: time.Minute})
					if err != nil {
						t.Error(err)
						return
					}
					if err := s.Migrate(t.Context()); err != nil {
						t.Error(err)
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		})
	}
}

func TestSQLiteKeepsAcknowledgedWritesOfAKilledProcess(t *testing.T) {
	t.Parallel()
	dsn := newSQLite(t)
	cmd := childCommand(t, dsn, "killed", 1_000_000)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) != strconv.Itoa(acknowledged+1) {
			t.Fatalf("the process printed %q", lines.Text())
		}
		if acknowledged++; acknowledged == 50 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed, as it should be

	s := open(t, dsn, store.Options{})
	routes, at, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if acknowledged < 50 || len(routes) < acknowledged || int64(len(routes)) != at {
		t.Errorf("%d routes at revision %d, though %d were acknowledged", len(routes), at, acknowledged)
	}
	create(t, s, "/next", "next")
}
