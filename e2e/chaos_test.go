package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Variables that make this test binary an upstream: where to listen, and the file
// to add a byte to for each request.
const (
	upstreamAddressVar = "ISEKAI_E2E_UPSTREAM"
	upstreamCountVar   = "ISEKAI_E2E_UPSTREAM_COUNT"
)

// serveUpstream is what the binary does as an upstream.
func serveUpstream(address, count string) error {
	f, err := os.OpenFile(count, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// Whoever has started it may be gone at any time, and must not leave it behind.
	time.AfterFunc(5*time.Minute, func() { os.Exit(0) })
	s := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = f.Write([]byte{'.'}) // survives the process
		_, _ = w.Write([]byte("fine"))
	})}
	return s.ListenAndServe()
}

// process is an upstream of its own, to be killed and paused.
type process struct {
	t       *testing.T
	address string
	count   string
	cmd     *exec.Cmd
}

func newProcess(t *testing.T, dir string, i int) *process {
	t.Helper()
	p := &process{t: t, address: fmt.Sprintf("127.0.0.1:%d", freePort(t)), count: filepath.Join(dir, fmt.Sprint(i))}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	self, err := os.Executable()
	if err != nil {
		p.t.Error(err)
		return
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), upstreamAddressVar+"="+p.address, upstreamCountVar+"="+p.count)
	if err := p.cmd.Start(); err != nil {
		p.t.Error(err)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// seen is how many requests have come to it.
func (p *process) seen() int64 {
	info, err := os.Stat(p.count)
	if err != nil {
		return 0
	}
	return info.Size()
}

// disturb kills or pauses the process for a moment.
func (p *process) disturb(rest time.Duration) {
	if rand.IntN(2) == 0 {
		p.kill()
		time.Sleep(rest)
		p.start()
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(rest)
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
}

func (p *process) waitUp(t *testing.T) {
	t.Helper()
	eventually(t, startTimeout, "the upstream listens", func() error {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// TestChaos kills, pauses and restarts the targets of a pool at random, two of
// three at a time, under load: clients must not notice, and the targets must not
// get more than the requests and the budget.
func TestChaos(t *testing.T) {
	const lasts, clients = 15 * time.Second, 12
	g := startGateway(t, settings{})
	dir, three := t.TempDir(), 3
	u := &upstreamSettings{
		Policy: "round_robin", Retries: &three,
		Retry:    map[string]any{"backoff": 0.02},
		Timeouts: map[string]any{"connect": 1, "response_header": 1},
		Health: map[string]any{
			"active":  map[string]any{"path": "/", "interval": 0.2, "timeout": 1},
			"passive": map[string]any{"max_fails": 1, "fail_duration": 0.5},
		},
		CircuitBreaker: map[string]any{"min_requests": 5, "window": 2, "open_for": 0.3, "probes": 1},
	}
	processes := make([]*process, 3)
	for i := range processes {
		processes[i] = newProcess(t, dir, i)
		u.Targets = append(u.Targets, upstreamTarget{URL: "http://" + processes[i].address})
	}
	for _, p := range processes {
		p.waitUp(t)
	}
	r := g.create(route{Path: "/x", TargetURL: u.Targets[0].URL, Upstream: u})
	l := g.startLoad(clients, "/x", is("fine"))
	l.more(200)

	var wg sync.WaitGroup
	free := make(chan *process, len(processes))
	for _, p := range processes {
		free <- p
	}
	deadline := time.Now().Add(lasts)
	for range 2 {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				p := <-free
				p.disturb(200*time.Millisecond + rand.N(1500*time.Millisecond))
				// Which one is left changes: this one must be known to be back before
				// it can be that.
				p.waitUp(t)
				time.Sleep(time.Second + rand.N(500*time.Millisecond))
				free <- p
			}
		})
	}
	wg.Wait()
	ok, failed := l.stop()
	sent := ok + failed
	t.Logf("%d requests, %d failed: %q", sent, failed, l.first)
	if failed*10_000 > sent && failed > 1 {
		t.Errorf("%d of %d requests failed, which is more than one in 10,000: %q", failed, sent, l.first)
	}
	var seen int64
	for _, p := range processes {
		seen += p.seen()
	}
	pool := g.pool(r.ID)
	checks := int64(3 * (lasts.Seconds() + 60) / 0.2) // at the most
	minimum := int64(3 * (lasts.Seconds() + 60))
	t.Logf("the targets have seen %d requests, checks included; the pool is %+v", seen, pool)
	if most := sent + max(sent/5, minimum) + checks; seen > most {
		t.Errorf("the targets have seen %d requests for %d, the budget allows %d", seen, sent, most)
	}
}
