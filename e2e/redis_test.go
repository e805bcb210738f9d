package e2e_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// redisServer is a Redis of the test's own.
type redisServer struct {
	t       *testing.T
	address string
	dir     string
	cmd     *exec.Cmd
}

const redisPassword = "r3dis-passw0rd"

// startRedis starts redis-server, which is Debian's package of that name. It ends
// with the test.
func startRedis(t *testing.T) *redisServer {
	t.Helper()
	if os.Getenv("ISEKAI_TEST_REDIS") == "off" {
		t.Skip("ISEKAI_TEST_REDIS is off")
	}
	s := &redisServer{t: t, address: "127.0.0.1:" + itoa(freePort(t)), dir: t.TempDir()}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *redisServer) start() {
	s.t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("redis-server is not on the PATH: install it (on Debian: apt-get install redis-server), or set ISEKAI_TEST_REDIS=off to do without these tests")
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(program, "--bind", "127.0.0.1", "--port", port(s.address), "--dir", s.dir,
		"--save", "", "--appendonly", "no", "--requirepass", redisPassword)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, startTimeout, "Redis listens", func() error {
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// kill ends the server at once, paused or not.
func (s *redisServer) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *redisServer) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// backend is the option of a gateway that counts there.
func (s *redisServer) backend() string {
	return "backend redis " + s.address + " {\n password {env.TEST_REDIS_PASSWORD}\n }"
}
