package isekai_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"go.uber.org/goleak"

	_ "github.com/isekai-gateway/isekai"
)

func TestMain(m *testing.M) {
	// What gateways keep beside their database, such as snapshots, goes with the tests.
	dir, err := os.MkdirTemp("", "isekai-test-")
	if err == nil {
		err = os.Setenv("XDG_DATA_HOME", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	if code == 0 {
		code = checkLeaks(time.Now().Add(10 * time.Second))
	}
	os.Exit(code)
}

// checkLeaks waits until no goroutine is left. Caddy shuts servers down in the
// background, which takes a moment.
func checkLeaks(deadline time.Time) int {
	for {
		err := goleak.Find(
			// Caddy keeps its last admin server after Stop, and certmagic its lock
			// files a little longer than it needs them.
			goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2.replaceLocalAdminServer.func2"),
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		)
		switch {
		case err == nil:
			return 0
		case time.Now().After(deadline):
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

// server is a running Caddy with isekai. There can be one at a time in a
// process, so its tests don't run in parallel.
type server struct {
	t       testing.TB
	site    string // base URL of the site with the isekai handler
	admin   string
	port    int
	adminAt string
	dsn     string
	client  *http.Client
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// start runs a Caddy with an empty SQLite store. edit may change its
// configuration.
func start(t testing.TB, edit func(cfg map[string]any)) *server {
	t.Helper()
	s := &server{t: t, port: freePort(t), dsn: "sqlite://" + filepath.Join(t.TempDir(), "isekai.db")}
	s.site = fmt.Sprintf("http://127.0.0.1:%d", s.port)
	s.adminAt = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s.admin = "http://" + s.adminAt
	s.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	if err := s.load(edit); err != nil {
		t.Fatalf("loading configuration: %v", err)
	}
	return s
}

// load replaces the running configuration.
func (s *server) load(edit func(cfg map[string]any)) error {
	cfg := map[string]any{
		"admin":   map[string]any{"listen": s.adminAt, "config": map[string]any{"persist": false}},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"level": "PANIC"}}},
		"storage": map[string]any{"module": "file_system", "root": s.t.TempDir()},
		"apps": map[string]any{
			"isekai": map[string]any{
				"store": map[string]any{"dsn": s.dsn, "poll_interval": "20ms", "connect_timeout": "1m", "query_timeout": "1m"},
			},
			"http": map[string]any{"grace_period": "3s", "servers": map[string]any{"srv": map[string]any{
				"listen":          []string{fmt.Sprintf("127.0.0.1:%d", s.port)},
				"automatic_https": map[string]any{"disable": true},
				"routes":          []any{map[string]any{"handle": []any{map[string]any{"handler": "isekai"}}}},
			}}},
		},
	}
	if edit != nil {
		edit(cfg)
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	if err := caddy.Load(encoded, true); err != nil {
		return err
	}
	// On a busy machine the store may take longer than the start waits for it.
	eventually(s.t, "the gateway is ready", func() bool {
		return s.do("GET", s.admin+"/health", "").StatusCode == http.StatusOK
	})
	return nil
}

// isekaiApp and siteOf find the parts of a configuration that tests edit.
func isekaiApp(cfg map[string]any) map[string]any {
	return cfg["apps"].(map[string]any)["isekai"].(map[string]any)
}

func siteOf(cfg map[string]any) map[string]any {
	return cfg["apps"].(map[string]any)["http"].(map[string]any)["servers"].(map[string]any)["srv"].(map[string]any)
}

// response is an answer read to its end.
type response struct {
	*http.Response
	body string
}

// do sends a request and reads the answer. A reload of Caddy resets a few of the
// connections that are made at that moment, of any handler; those are made anew.
func (s *server) do(method, url, body string, header ...string) response {
	s.t.Helper()
	for attempt := 1; ; attempt++ {
		res, err := s.try(method, url, body, header...)
		switch {
		case err == nil:
			return res
		case attempt == 3 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF):
			s.t.Fatalf("%s %s: %v", method, url, err)
		}
		s.client.CloseIdleConnections()
	}
}

func (s *server) try(method, url, body string, header ...string) (response, error) {
	s.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := s.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	return response{res, string(content)}, err
}

func (s *server) get(path string, header ...string) response {
	s.t.Helper()
	return s.do("GET", s.site+path, "", header...)
}

// route is a route's JSON.
type route map[string]any

// create adds a route by the admin API and returns its id.
func (s *server) create(r route) int64 {
	s.t.Helper()
	res := s.write("POST", "/api/routes", r)
	if res.StatusCode != http.StatusCreated {
		s.t.Fatalf("creating %v: %d %s", r, res.StatusCode, res.body)
	}
	var made struct{ ID int64 }
	if err := json.Unmarshal([]byte(res.body), &made); err != nil {
		s.t.Fatal(err)
	}
	return made.ID
}

func (s *server) write(method, path string, value any) response {
	s.t.Helper()
	var body bytes.Buffer
	if value != nil {
		if err := json.NewEncoder(&body).Encode(value); err != nil {
			s.t.Fatal(err)
		}
	}
	return s.do(method, s.admin+path, body.String(), "Content-Type", "application/json")
}

// eventually waits until ok, for what happens in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it never happened: %s", what)
}

// sql reads one column past the gateway.
func (s *server) sql(query string) []string {
	s.t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(s.dsn, "sqlite://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(s.t.Context(), query)
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			s.t.Fatal(err)
		}
		list = append(list, one)
	}
	if err := rows.Err(); err != nil {
		s.t.Fatal(err)
	}
	return list
}
