package deploytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = time.Minute // a first start on a busy machine migrates the database
	stopTimeout  = 30 * time.Second
	callTimeout  = 30 * time.Second
)

// scratch holds the binary, if it is not given.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "isekai-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a folder for the binary:", err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ISEKAI_E2E_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(scratch, "caddy")
	cmd := exec.Command("go", "build", "-tags=nobadger,nomysql,nopgx", "-o", path, "./cmd/caddy")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the binary: %w\n%s", err, out)
	}
	return path, nil
})

// gateway is a child process with a site for metrics, as README.md shows one.
type gateway struct {
	t       testing.TB
	site    string // host:port of the site with the routes
	metrics string // host:port of the site with the metrics
	admin   string
	client  *http.Client
}

// startGateway starts a gateway on the database and waits until it is ready.
func startGateway(t testing.TB, dsn string) *gateway {
	t.Helper()
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{
		t: t, site: freeAddress(t), metrics: freeAddress(t), admin: freeAddress(t),
		client: &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: callTimeout},
	}
	dir := t.TempDir()
	caddyfile := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf(`{
	admin %s
	auto_https disable_redirects
	skip_install_trust
	grace_period 2s
	persist_config off
	storage file_system %q
	isekai {
		store %q {
			poll_interval 100ms
			connect_timeout 30s
			query_timeout 30s
		}
		request_log {
			flush_interval 50ms
		}
		rate_limit {
			backend store
			timeout 5s
		}
	}
}
http://:%s {
	bind 127.0.0.1
	isekai
}
https://shop.example:%s {
	bind 127.0.0.1
	tls internal
	isekai
}
http://:%s {
	bind 127.0.0.1
	metrics /metrics
}
`, g.admin, filepath.Join(dir, "caddy"), dsn, port(g.site), port(freeAddress(t)), port(g.metrics))
	if err := os.WriteFile(caddyfile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "run", "--config", caddyfile, "--adapter", "caddyfile")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the gateway: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(stopTimeout):
			_ = cmd.Process.Kill()
			<-exited
			t.Errorf("the gateway did not end within %s of SIGTERM", stopTimeout)
		}
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return strings.Contains(line, `"logger":"admin.api"`) })
			t.Logf("log of the gateway:\n%s", strings.Join(lines[max(0, len(lines)-50):], "\n"))
		}
	})
	eventually(t, "the gateway serves routes", func() error {
		select {
		case <-exited:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the gateway has ended: %v\n%s", cmd.ProcessState, text)
		default:
		}
		resp, err := g.client.Get("http://" + g.admin + "/health")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/health says %d", resp.StatusCode)
		}
		return nil
	})
	return g
}

// call asks the admin API, which must answer with the status, and returns what it says.
func (g *gateway) call(method, path string, body any, status int) map[string]any {
	g.t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		g.t.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://"+g.admin+path, bytes.NewReader(content))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		g.t.Fatalf("%s %s %s answers %d %s (%v), want %d", method, path, content, resp.StatusCode, text, err, status)
	}
	answer := make(map[string]any)
	if err := json.Unmarshal(text, &answer); err != nil {
		g.t.Fatalf("reading %s: %v", text, err)
	}
	return answer
}

// create adds a route and returns its id.
func (g *gateway) create(route map[string]any) int64 {
	g.t.Helper()
	id, ok := g.call(http.MethodPost, "/api/routes", route, http.StatusCreated)["id"].(float64)
	if !ok {
		g.t.Fatalf("a route without id for %v", route)
	}
	return int64(id)
}

// expect sends a request that must be answered with one of the statuses.
func (g *gateway) expect(method, path, body string, statuses ...int) {
	g.t.Helper()
	req, err := http.NewRequest(method, "http://"+g.site+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Host = "shop.example"
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		g.t.Fatal(err)
	}
	if !slices.Contains(statuses, resp.StatusCode) {
		g.t.Fatalf("%s %s answers %d, want %v", method, path, resp.StatusCode, statuses)
	}
}

// freeAddress returns an address of the loopback interface that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// port returns the port of a host:port.
func port(address string) string { return address[strings.LastIndex(address, ":")+1:] }

// eventually polls check until it returns nil, and fails the test with its last error if
// it does not in time.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	err := errors.New("never tried")
	for time.Now().Before(deadline) {
		if err = check(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("waiting until %s: %v", what, err)
}
