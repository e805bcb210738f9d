package redis_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/backendtest"
	"github.com/isekai-gateway/isekai/ratelimit/redis"
)

// startServer starts redis-server, which is Debian's package of that name, and
// returns its address. It ends with the test.
func startServer(t *testing.T, args ...string) string {
	t.Helper()
	if os.Getenv("ISEKAI_TEST_REDIS") == "off" {
		t.Skip("ISEKAI_TEST_REDIS is off")
	}
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is not on the PATH: install it (on Debian: apt-get install redis-server), or set ISEKAI_TEST_REDIS=off to do without these tests")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	cmd := exec.Command(program, append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--save", "", "--appendonly", "no"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not listen: %v", err)
		}
	}
}

// do sends a command until it is answered.
func do(t *testing.T, address string, done func(answer string) bool, command ...string) {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		answer, err := client.Do(context.Background(), client.B().Arbitrary(command...).Build()).ToString()
		if err == nil && done(answer) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q: %q, %v", command, answer, err)
		}
	}
}

func TestRealServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) string{
		"single": func(t *testing.T) string { return startServer(t) },
		"cluster": func(t *testing.T) string {
			address := startServer(t, "--cluster-enabled", "yes")
			do(t, address, func(string) bool { return true }, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
			do(t, address, func(answer string) bool { return strings.Contains(answer, "cluster_state:ok") }, "CLUSTER", "INFO")
			return address
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := start(t)
			var backends atomic.Int64
			backendtest.RunAtAnyTime(t, func(t *testing.T) ratelimit.Backend {
				prefix := fmt.Sprintf("test%d:", backends.Add(1))
				return open(t, func(o *redis.Options) { o.Prefix = prefix }, address)
			})
		})
	}
}
