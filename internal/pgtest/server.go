package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	startTimeout = time.Minute // initdb, or a start with crash recovery
	pollInterval = 10 * time.Millisecond
	portTries    = 3 // a free port may be taken before the server binds it
)

// guardian runs the server and waits for a line on its stdin. At the end of
// stdin, which comes even if the test process is killed, it stops the server
// (which may be paused) and removes the data; at "keep" it leaves the data for another start.
// Unlike a parent-death signal this works on macOS too.
const guardian = `data=$1; shift
"$@" & p=$!
read -r order
kill -QUIT $p; kill -CONT $p; wait $p
[ "$order" = keep ] || rm -rf "$data"`

// Server is a PostgreSQL server of one test's own, which the test may stop,
// pause and start again on the same port. Its methods must not be called at the
// same time.
type Server struct {
	programs string // folder with initdb and postgres
	account  *account
	data     string
	port     int
	args     []string // further ones of postgres

	cmd    *exec.Cmd // nil when stopped
	orders io.WriteCloser
	paused []int // processes that Pause has stopped
}

// NewServer starts a server that ends with the test, with further arguments of
// postgres, such as "-c", "max_connections=20". It never uses
// ISEKAI_TEST_DATABASE_URL, since a test must not stop a server of others.
func NewServer(t testing.TB, args ...string) *Server {
	t.Helper()
	return NewServerIn(t, "", args...)
}

// NewServerIn is NewServer with the data in a folder below parent, which any
// account must be able to enter, and which is not removed.
func NewServerIn(t testing.TB, parent string, args ...string) *Server {
	t.Helper()
	s, err := startServerIn(parent, args)
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	s.endWith(t)
	return s
}

func (s *Server) endWith(t testing.TB) {
	t.Cleanup(func() {
		s.halt("")
		os.RemoveAll(s.data)
	})
}

// NewStandby starts a server that follows s, takes reads, and becomes a primary by
// pg_promote(). For that, s is stopped and started again.
func (s *Server) NewStandby(t testing.TB) *Server {
	t.Helper()
	standby, err := s.newFolder("")
	if err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	// A server that starts from these files recovers as after a crash, and goes on so.
	out, err := exec.Command("cp", "-a", s.cluster(), standby.data).CombinedOutput()
	if err != nil {
		t.Fatalf("copying the cluster: %v\n%s", err, out)
	}
	signal := filepath.Join(standby.cluster(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.account.own(signal); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	standby.args = append(standby.args, "-c", fmt.Sprintf("primary_conninfo=host=127.0.0.1 port=%d user=postgres", s.port))
	if err := standby.start(); err != nil {
		t.Fatalf("starting a standby: %v", err)
	}
	standby.endWith(t)
	return standby
}

// DSN names the server's database "postgres". It stays the same across starts.
func (s *Server) DSN() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.port)
}

// Stop ends the server at once, as a crash would: every connection breaks, and
// acknowledged commits are kept. It does nothing if the server is stopped.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.halt("keep\n")
}

// Start starts a stopped server on the same port and data, and returns when it
// accepts connections.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if s.cmd != nil {
		t.Fatal("starting PostgreSQL: it is running")
	}
	if err := s.run(); err != nil {
		t.Fatalf("starting PostgreSQL again: %v", err)
	}
}

// Pause stops all of the server's processes with SIGSTOP: connections stay
// open, and nothing answers. It does nothing if the server is stopped.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.pause(); err != nil {
		t.Fatalf("pausing PostgreSQL: %v", err)
	}
}

// Resume lets a paused server go on.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	s.resume()
}

func (s *Server) pause() error {
	status, err := s.status()
	if err != nil {
		return err
	}
	postmaster, err := strconv.Atoi(status[0])
	if err != nil {
		return fmt.Errorf("reading the server's process id: %w", err)
	}
	// The postmaster first, so that it starts no process that would be missed.
	if err := suspend(postmaster); err != nil {
		return err
	}
	s.paused = append(s.paused, postmaster)
	children, err := childrenOf(postmaster)
	if err != nil {
		return err
	}
	for _, pid := range children {
		if suspend(pid) == nil { // else it has just ended
			s.paused = append(s.paused, pid)
		}
	}
	return nil
}

func (s *Server) resume() {
	for _, pid := range s.paused {
		resume(pid)
	}
	s.paused = nil
}

func startServer() (*Server, error) { return startServerIn("", nil) }

func startServerIn(parent string, args []string) (*Server, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	acct, err := unprivilegedAccount()
	if err != nil {
		return nil, err
	}
	s, err := (&Server{programs: programs, account: acct, args: args}).newFolder(parent)
	if err != nil {
		return nil, err
	}
	if err := s.initialize(); err != nil {
		os.RemoveAll(s.data)
		return nil, err
	}
	if err := s.start(); err != nil {
		os.RemoveAll(s.data)
		return nil, err
	}
	return s, nil
}

// newFolder returns a server like s, with a folder of its own.
func (s *Server) newFolder(parent string) (*Server, error) {
	// The temporary folder of root may be closed to the server's account.
	if parent == "" && s.account != nil {
		parent = "/tmp"
	}
	data, err := os.MkdirTemp(parent, "isekai-pgtest-")
	if err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	if err := s.account.own(data); err != nil {
		return nil, fmt.Errorf("giving the data folder to the server's account: %w", err)
	}
	return &Server{programs: s.programs, account: s.account, data: data, args: slices.Clone(s.args)}, nil
}

// start finds a port and runs the server on it.
func (s *Server) start() error {
	var err error
	for range portTries {
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.run(); err == nil {
			return nil
		}
	}
	return err
}

func (s *Server) initialize() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, "initdb"),
		"-D", s.cluster(), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	cmd.Dir = s.data
	s.account.apply(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", cmd.Path, err, out)
	}
	return nil
}

// run starts the server on s.port and waits until it is ready.
func (s *Server) run() error {
	logPath := filepath.Join(s.data, "log")
	logFile, err := os.Create(logPath)
	if err != nil {
		return fmt.Errorf("making the server's log: %w", err)
	}
	defer logFile.Close()

	// What costs time only to survive a crash of the machine is off. Commits
	// must survive Stop, so synchronous_commit is not.
	args := []string{
		"-c", guardian, "sh", s.data, filepath.Join(s.programs, "postgres"),
		"-D", s.cluster(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300",
		"-c", "fsync=off", "-c", "full_page_writes=off",
	}
	cmd := exec.Command("sh", append(args, s.args...)...)
	cmd.Dir = s.data
	cmd.Stdout, cmd.Stderr = logFile, logFile
	s.account.apply(cmd)
	if s.orders, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("running %s: %w", cmd.Path, err)
	}
	s.cmd = cmd
	if err := s.awaitReady(logPath); err != nil {
		s.halt("keep\n")
		return err
	}
	return nil
}

func (s *Server) awaitReady(logPath string) error {
	deadline := time.Now().Add(startTimeout)
	for {
		// The port alone would not tell whose server answers there.
		if status, err := s.status(); err == nil && len(status) > 7 && strings.TrimSpace(status[7]) == "ready" {
			return nil
		}
		log, err := os.ReadFile(logPath)
		if err != nil {
			return err
		}
		if failed(log) {
			return fmt.Errorf("the server did not start:\n%s", log)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server was not ready within %s:\n%s", startTimeout, log)
		}
		time.Sleep(pollInterval)
	}
}

// failed tells from the log that the server will not start. A client that
// comes too early is told a FATAL of its own.
func failed(log []byte) bool {
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte("FATAL:")) && !bytes.Contains(line, []byte("the database system is")) {
			return true
		}
	}
	return false
}

// halt gives the guardian its last order and waits for the server's end.
func (s *Server) halt(order string) {
	if s.cmd == nil {
		return
	}
	s.resume()
	// If the guardian is gone already there is nothing left to stop.
	_, _ = io.WriteString(s.orders, order)
	_ = s.orders.Close()
	_ = s.cmd.Wait()
	s.cmd = nil
	// A crash leaves this file, which would look like a running server's.
	_ = os.Remove(s.pidFile())
}

func (s *Server) cluster() string { return filepath.Join(s.data, "cluster") }

func (s *Server) pidFile() string { return filepath.Join(s.cluster(), "postmaster.pid") }

// status returns the lines of postmaster.pid: the process id first, the state eighth.
func (s *Server) status() ([]string, error) {
	text, err := os.ReadFile(s.pidFile())
	if err != nil {
		return nil, fmt.Errorf("reading the server's state: %w", err)
	}
	return strings.Split(string(text), "\n"), nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
