package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = time.Minute // a first start on a busy machine migrates, and makes a CA
	stopTimeout  = 30 * time.Second
	callTimeout  = 30 * time.Second
	pollInterval = 20 * time.Millisecond
)

// settings describe one gateway's Caddyfile. The zero value is a gateway on
// SQLite that polls the store often.
type settings struct {
	dsn     string   // default: a SQLite file in the gateway's folder
	poll    string   // how often the store is asked for changes; default: 100ms
	outage  bool     // the database will be away: that is to be noticed soon
	env     []string // added to the child's environment, as in os.Environ
	global  string   // further global options
	servers string   // the global option servers, without its braces
	options string   // further options of the isekai block
	site    string   // further directives of the plain site
	handler string   // further options of the isekai directive
	sites   string   // further sites

	binary      string // another program than the one under test
	descriptors int    // the most files that the process may open; default: the system's
}

// gateway is one child process with its ports and folder.
type gateway struct {
	t         *testing.T
	set       settings
	dir       string
	http      string // host:port of the plain site
	https     string // host:port for sites that use TLS
	admin     string // host:port of the admin endpoint
	caddyfile string

	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended and exit is set
	exit   error
	log    *logBuffer
	client *http.Client
}

// startGateway starts a gateway and waits until it serves routes.
func startGateway(t *testing.T, set settings) *gateway {
	t.Helper()
	g := newGateway(t, set)
	g.start()
	g.waitReady()
	return g
}

// newGateway prepares a gateway without starting it. It is stopped at the end of
// the test, which fails if the process did not end well.
func newGateway(t *testing.T, set settings) *gateway {
	t.Helper()
	g := &gateway{
		t: t, set: set, dir: t.TempDir(),
		http:  fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		https: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		admin: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		log:   new(logBuffer),
	}
	g.client = newClient()
	g.caddyfile = filepath.Join(g.dir, "Caddyfile")
	g.configure(set)
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		g.stop()
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.log.tail(200))
		}
	})
	return g
}

// newClient returns a client with connections of its own, which shows answers as
// they are.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		Timeout:   callTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// configure writes the Caddyfile.
func (g *gateway) configure(set settings) {
	g.t.Helper()
	g.set = set
	dsn := set.dsn
	if dsn == "" {
		dsn = "sqlite://" + filepath.Join(g.dir, "isekai.db")
	}
	// A busy machine or disk is no outage.
	timeout := "30s"
	if set.outage {
		timeout = "2s"
	}
	poll := set.poll
	if poll == "" {
		poll = "100ms"
	}
	text := fmt.Sprintf(`{
	admin %s
	http_port %s
	https_port %s
	grace_period 10s
	skip_install_trust
	persist_config off
	storage file_system %q
	%s
	servers {
		%s
	}
	isekai {
		store %q {
			poll_interval %s
			connect_timeout %s
			query_timeout %s
		}
		%s
	}
}
http:// {
	bind 127.0.0.1
	%s
	isekai {
		health_path /healthz
		%s
	}
}
%s
`, g.admin, port(g.http), port(g.https), filepath.Join(g.dir, "caddy"), set.global, set.servers, dsn, poll, timeout, timeout, set.options, set.site, set.handler, set.sites)
	if err := os.WriteFile(g.caddyfile, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// start starts the process without waiting for anything.
func (g *gateway) start(args ...string) {
	g.t.Helper()
	if len(args) == 0 {
		args = []string{"run", "--config", g.caddyfile, "--adapter", "caddyfile"}
	}
	program := g.set.binary
	if program == "" {
		program = binary(g.t)
	}
	cmd := exec.Command(program, args...)
	if g.set.descriptors > 0 {
		limited := append([]string{"-c", `ulimit -n "$0" && exec "$@"`, itoa(g.set.descriptors), program}, args...)
		cmd = exec.Command("sh", limited...)
	}
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+g.dir, "XDG_CONFIG_HOME="+g.dir, "HOME="+g.dir)
	cmd.Env = append(cmd.Env, g.set.env...)
	cmd.Stdout, cmd.Stderr = g.log, g.log
	if err := cmd.Start(); err != nil {
		g.t.Fatalf("starting the gateway: %v", err)
	}
	exited := make(chan struct{})
	g.cmd, g.exited = cmd, exited
	go func() {
		g.exit = cmd.Wait()
		close(exited)
	}()
}

// waitReady waits until /health says that routes are served.
func (g *gateway) waitReady() {
	g.t.Helper()
	g.waitHealth("routes are served", func(status int, _ health) bool { return status == http.StatusOK })
}

// waitHealth waits for an answer of /health that is as wanted.
func (g *gateway) waitHealth(what string, wanted func(int, health) bool) health {
	g.t.Helper()
	var last health
	eventually(g.t, startTimeout, what, func() error {
		select {
		case <-g.exited:
			g.t.Fatalf("the gateway has ended: %v\n%s", g.exit, g.log.tail(50))
		default:
		}
		status, h, err := g.health()
		if err != nil {
			return err
		}
		last = h
		if !wanted(status, h) {
			return fmt.Errorf("/health says %d %+v", status, h)
		}
		return nil
	})
	return last
}

// stop ends the process by SIGTERM and checks how it ended. It does nothing to
// a process that has ended, or was never started.
func (g *gateway) stop() {
	g.t.Helper()
	if g.cmd == nil {
		return
	}
	select {
	case <-g.exited:
	default:
		g.signal(syscall.SIGTERM)
		select {
		case <-g.exited:
			if g.exit != nil {
				g.t.Errorf("the gateway ended with %v after SIGTERM", g.exit)
			}
		case <-time.After(stopTimeout):
			g.t.Errorf("the gateway did not end within %s of SIGTERM", stopTimeout)
			g.kill()
		}
	}
	g.cmd = nil
	for _, bad := range []string{"panic:", "fatal error:", "DATA RACE", `"level":"panic"`, "a handler panicked", "http: panic serving"} {
		if strings.Contains(g.log.String(), bad) {
			g.t.Errorf("the gateway's log has %q", bad)
		}
	}
}

// kill ends the process at once, as a power cut would.
func (g *gateway) kill() {
	g.t.Helper()
	g.signal(syscall.SIGKILL)
	<-g.exited
}

func (g *gateway) signal(s os.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		g.t.Fatalf("signalling the gateway: %v", err)
	}
}

// waitExit waits for the process to end by itself and returns its exit code.
func (g *gateway) waitExit() int {
	g.t.Helper()
	select {
	case <-g.exited:
	case <-time.After(startTimeout):
		g.t.Fatal("the gateway did not end")
	}
	return g.cmd.ProcessState.ExitCode()
}

// reload loads the Caddyfile as "caddy reload" does and returns an error if the
// gateway refuses it. Idle connections of before are given up: Caddy closes them,
// perhaps just as the next request is on its way.
func (g *gateway) reload() error {
	g.t.Helper()
	defer g.client.CloseIdleConnections()
	const stopped = `"msg":"stopped previous server"`
	before := strings.Count(g.log.String(), stopped)
	text, err := os.ReadFile(g.caddyfile)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.admin+"/load", bytes.NewReader(text))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate") // reload even if nothing has changed
	// A connection of its own: the admin endpoint is replaced by the reload.
	req.Close = true
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("/load answered %d: %s", resp.StatusCode, body)
	}
	if err == nil {
		// Until then the admin endpoint of before takes connections, and breaks them.
		eventually(g.t, startTimeout, "the admin endpoint of before has stopped", func() error {
			if strings.Count(g.log.String(), stopped) == before {
				return errors.New("it has not")
			}
			return nil
		})
	}
	return err
}

// logBuffer collects a process's output.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// tail returns the last lines, without the many that Caddy's admin endpoint
// writes for each of its requests.
func (b *logBuffer) tail(n int) string {
	lines := slices.DeleteFunc(strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n"), func(line string) bool {
		return strings.Contains(line, `"logger":"admin.api","msg":"received request"`)
	})
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// eventually polls check until it returns nil, and fails the test with its last
// error if it has not within the given time.
func eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		time.Sleep(pollInterval)
	}
}

var taken sync.Map // ports given to a test of this process

// freePort returns a port of the loopback interface that nobody listens on. It
// lies below the range from which systems number outgoing connections, so that
// none of those takes it before the gateway does.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 12_000 + rand.IntN(20_000)
		if _, used := taken.LoadOrStore(port, true); used {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("finding a free port: none of a thousand is")
	return 0
}

// port returns the port of a host:port.
func port(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	return port
}

func itoa(n int) string { return strconv.Itoa(n) }
