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

	cmd    *exec.Cmd // nil when stopped
	orders io.WriteCloser
	paused []int // processes that Pause has stopped
}

// NewServer starts a server that ends with the test. It never uses
// ISEKAI_TEST_DATABASE_URL, since a test must not stop a server of others.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s, err := startServer()
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		s.halt("")
		os.RemoveAll(s.data)
	})
	return s
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

func startServer() (*Server, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	acct, err := unprivilegedAccount()
	if err != nil {
		return nil, err
	}
	// The temporary folder of root may be closed to the server's account.
	parent := ""
	if acct != nil {
		parent = "/tmp"
	}
	data, err := os.MkdirTemp(parent, "isekai-pgtest-")
	if err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	s := &Server{programs: programs, account: acct, data: data}
	if err := s.initialize(); err != nil {
		os.RemoveAll(data)
		return nil, err
	}
	for range portTries {
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.run(); err == nil {
			return s, nil
		}
	}
	os.RemoveAll(data)
	return nil, err
}

func (s *Server) initialize() error {
	if err := s.account.own(s.data); err != nil {
		return fmt.Errorf("giving the data folder to the server's account: %w", err)
	}
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
	cmd := exec.Command("sh", "-c", guardian, "sh", s.data, filepath.Join(s.programs, "postgres"),
		"-D", s.cluster(), "-p", strconv.Itoa(s.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300",
		"-c", "fsync=off", "-c", "full_page_writes=off")
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
