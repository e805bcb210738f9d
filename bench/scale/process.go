package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startWithin bounds every wait for a gateway.
const startWithin = 2 * time.Minute

// build makes the gateway's binary.
func build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "gateway")
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/isekai-gateway/isekai").Output()
	if err != nil {
		return "", fmt.Errorf("finding the gateway's module: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-tags=nobadger,nomysql,nopgx", "-o", path, "./cmd/caddy") //nolint:gosec // in a folder of this run's own
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return path, nil
}

// process is a gateway of its own.
type process struct {
	cmd       *exec.Cmd
	exited    chan struct{}
	log       *bytes.Buffer
	dir       string
	addr      string
	admin     string
	caddyfile []byte
	took      time.Duration // from its start until it is ready
	cpu       time.Duration // that it took until then
}

// freeAddr returns an address of this machine that nobody listens on.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startProcess starts the binary on a database and waits until it serves. With
// pinned it has one processor, the first.
func startProcess(ctx context.Context, binary, dsn, dir string, pinned bool) (_ *process, err error) {
	p := &process{exited: make(chan struct{}), log: new(bytes.Buffer), dir: dir}
	if p.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	if p.admin, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(p.addr)
	if err != nil {
		return nil, err
	}
	p.caddyfile = fmt.Appendf(nil, `{
	admin %s
	auto_https off
	persist_config off
	isekai {
		store %q {
			query_timeout 60s
		}
		request_log off
	}
}
http://:%s {
	bind 127.0.0.1
	isekai {
		health_path /healthz
	}
}
`, p.admin, dsn, port)
	path := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(path, p.caddyfile, 0o600); err != nil {
		return nil, err
	}
	args := []string{binary, "run", "--config", path, "--adapter", "caddyfile"}
	if pinned && canPin() {
		args = append([]string{"taskset", "-c", "0"}, args...)
	}
	p.cmd = exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // what the user of this program names
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the gateway: %w", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	for !p.isReady(ctx) {
		select {
		case <-p.exited:
			return nil, fmt.Errorf("the gateway has ended: %s", p.log)
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		}
		if time.Since(began) > startWithin {
			p.stop()
			return nil, fmt.Errorf("the gateway is not ready after %s: %s", startWithin, p.log)
		}
	}
	p.took = time.Since(began)
	if p.cpu, err = p.cpuTime(); err != nil {
		p.stop()
		return nil, err
	}
	// The admin API knows the app only once Caddy has started everything.
	for {
		if _, _, err = p.ask(ctx, http.MethodGet, "/api/status", "", nil); err == nil {
			return p, nil
		}
		if ctx.Err() != nil || time.Since(began) > startWithin {
			p.stop()
			return nil, err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// stop ends the process.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// isReady asks whether the gateway serves its routes.
func (p *process) isReady(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/healthz/ready", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// canPin reports whether there is what processes are pinned with, and a processor to
// spare.
func canPin() bool {
	_, err := exec.LookPath("taskset")
	return err == nil
}

// pinSelf puts this process, with all its threads, on another processor than gateways.
func pinSelf(ctx context.Context) {
	if canPin() {
		_ = exec.CommandContext(ctx, "taskset", "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run() //nolint:gosec // a number
	}
}

// unpinSelf lets this process have all processors again.
func unpinSelf(ctx context.Context) {
	if canPin() {
		_ = exec.CommandContext(ctx, "taskset", "-a", "-p", "-c", "0-1", strconv.Itoa(os.Getpid())).Run() //nolint:gosec // a number
	}
}

// tick is the unit of times in /proc, which is the same on all of today's Linux.
const tick = 10 * time.Millisecond

// cpuTime returns the processor time that the process has taken, user and system.
func (p *process) cpuTime() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading processor time: %w", err)
	}
	// The name of the program, in parentheses, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("reading processor time: /proc has another form")
	}
	var sum time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading processor time: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// memory returns a line of the process's status in bytes: VmRSS, or VmHWM for the most
// since resetPeak.
func (p *process) memory(line string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(l, line+":"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kb * 1024
		}
	}
	return 0
}

// resetPeak makes VmHWM begin anew.
func (p *process) resetPeak() {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0o600)
}

// ask sends a request to the admin endpoint and reads the answer to its end.
func (p *process) ask(ctx context.Context, method, path, contentType string, body []byte) (answer []byte, took time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.admin+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Cache-Control", "must-revalidate") // so that Caddy loads the same again
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	took = time.Since(began)
	if err != nil {
		return nil, 0, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s %s: %s: %.500s", method, path, resp.Status, answer)
	}
	return answer, took, nil
}
