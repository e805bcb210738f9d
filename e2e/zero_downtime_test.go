package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// TestImportUnderLoad imports ten thousand routes, changes and deletes them.
func TestImportUnderLoad(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		const many = 10_000
		g := startGateway(t, settings{dsn: dsn})
		one, two := textUpstream(t, "one"), textUpstream(t, "two")
		stays := g.create(route{Path: "/stays", TargetURL: one})
		l := g.startLoad(2, "/stays", is("one"))
		l.more(20)
		operations := make([]map[string]any, many)
		for i := range operations {
			operations[i] = map[string]any{"op": "create", "route": route{Path: fmt.Sprintf("/many/%d", i), TargetURL: one}}
		}
		if a := g.call(http.MethodPost, "/api/routes/batch", map[string]any{"operations": operations}); a.status != http.StatusOK {
			t.Fatalf("the import is answered %.500s", a)
		}
		g.wantBody("/many/0", "one")
		g.wantBody(fmt.Sprint("/many/", many-1), "one")
		moves := g.startLoad(2, "/many/5000", func(body string) bool { return body == "one" || body == "two" })
		document := func(target string) []byte {
			var b strings.Builder
			fmt.Fprintf(&b, "routes:\n- {path: /stays, target_url: '%s'}\n", one)
			for i := range many {
				fmt.Fprintf(&b, "- {path: '/many/%d', target_url: '%s'}\n", i, target)
			}
			return []byte(b.String())
		}
		done := g.bulk(http.MethodPut, "/api/config", document(two), "application/yaml")
		if done.Created != 0 || done.Deleted != 0 || done.Updated != many {
			t.Errorf("the document has %s", done)
		}
		g.wantBody("/many/0", "two")
		g.wantBody(fmt.Sprint("/many/", many-1), "two")
		moves.more(20)
		moves.wantNoLoss()
		done = g.bulk(http.MethodPut, "/api/config", fmt.Appendf(nil, "routes:\n- {path: /stays, target_url: '%s'}\n", one), "application/yaml")
		if done.Deleted != many {
			t.Errorf("the short document has %s", done)
		}
		if got := g.list(""); len(got) != 1 || got[0].ID != stays.ID {
			t.Errorf("%d routes are left", len(got))
		}
		l.more(20)
		l.wantNoLoss()
	})
}

// unchecked takes any exchange with the admin API.
func unchecked(*http.Request, []byte, answer) {}

// TestThousandWritesUnderLoad has eight clients write at once.
func TestThousandWritesUnderLoad(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{dsn: pgtest.New(t), poll: "1h"})
	target := textUpstream(t, "up")
	g.create(route{Path: "/up", TargetURL: target})
	l := g.startLoad(4, "/up", is("up"))
	l.more(50)
	began := time.Now()
	var wg sync.WaitGroup
	for writer := range 8 {
		wg.Go(func() {
			for i := range 125 {
				path := fmt.Sprintf("/w/%d/%d", writer, i)
				a, err := g.exchange(http.MethodPost, "/api/routes", route{Path: path, TargetURL: target}, nil, unchecked)
				if err != nil || a.status != http.StatusCreated {
					t.Errorf("a write is answered %s, %v", a, err)
					return
				}
				// The answer to a write comes when it is served.
				if err := g.checkBody(path, "up"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("a thousand writes took %s, p99 of requests %s", time.Since(began), l.p99())
	g.wantWholeTable(openSQL(t, g.set.dsn))
	l.wantNoLoss()
}

// TestReloadsAgainstCaddy reloads a process with a site of Isekai and one of plain
// Caddy under the same load. Caddy closes connections that requests may be on their way
// to; Isekai must add nothing to that.
func TestReloadsAgainstCaddy(t *testing.T) {
	t.Parallel()
	const reloads = 20
	target := textUpstream(t, "x")
	plainPort := freePort(t)
	g := startGateway(t, settings{sites: fmt.Sprintf("http://:%d {\n bind 127.0.0.1\n reverse_proxy %s\n}", plainPort, target)})
	g.create(route{Path: "/x", Method: "POST", TargetURL: target})
	plain := *g
	plain.http = fmt.Sprintf("127.0.0.1:%d", plainPort)
	var loads [2]*load
	for i, of := range []*gateway{g, &plain} {
		// A client whose requests are not repeated.
		loads[i] = of.startLoadBy(newClient(), 4, http.MethodPost, "/x", is("x"))
	}
	for i := range reloads {
		loads[0].more(20)
		g.set.options = fmt.Sprintf("max_concurrent %d", 1000+i)
		g.configure(g.set)
		if err := g.reload(); err != nil {
			t.Fatal(err)
		}
		loads[1].more(20)
	}
	ok, failed := loads[0].stop()
	plainOK, plainFailed := loads[1].stop()
	t.Logf("in %d reloads, %d of %d requests failed; of plain Caddy, %d of %d", reloads, failed, ok+failed, plainFailed, plainOK+plainFailed)
	// Both numbers are small and left to chance.
	if ok == 0 || plainOK == 0 || failed > 2*plainFailed+5 {
		t.Errorf("%d requests failed, of plain Caddy %d; the first: %q", failed, plainFailed, loads[0].first)
	}
}

// TestShutdownDelay ends a gateway that a balancer is to leave first: it says that it is
// not ready, serves all the same, and lets requests in flight end.
func TestShutdownDelay(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		g := startGateway(t, settings{dsn: dsn, global: "shutdown_delay 8s"})
		begun, release := make(chan struct{}, 2), make(chan struct{})
		const size = 4 << 20
		slow := newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
			half := content(size)
			_, _ = io.CopyN(w, half, size/2)
			w.(http.Flusher).Flush()
			begun <- struct{}{}
			<-release
			_, _ = io.Copy(w, half)
		})
		events := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: hello\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		g.create(route{Path: "/slow", TargetURL: slow.URL})
		g.create(route{Path: "/events", TargetURL: events.URL, Timeout: forever})
		g.create(route{Path: "/up", Method: "*", TargetURL: textUpstream(t, "up")})

		downloaded := make(chan error, 1)
		want, err := sum(content(size))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			a, err := g.trySend(http.MethodGet, "/slow")
			if err == nil {
				var got string
				if got, err = sum(strings.NewReader(string(a.body))); err == nil && got != want {
					err = fmt.Errorf("%d bytes came, of another content", len(a.body))
				}
			}
			downloaded <- err
		}()
		await(t, begun, "the download has begun")
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.http+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := (&http.Transport{}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		lines := bufio.NewReader(stream.Body)
		if line, err := lines.ReadString('\n'); line != "data: hello\n" {
			t.Fatalf("the stream begins with %q, %v", line, err)
		}
		l := g.startLoadBy(newClient(), 4, http.MethodPost, "/up", is("up"))
		l.more(50)
		if a := g.send(http.MethodGet, "/up"); a.header.Get("Connection") != "" {
			t.Errorf("before, connections are closed: %v", a.header)
		}

		g.signal(syscall.SIGTERM)
		g.waitStatus("/healthz/ready", http.StatusServiceUnavailable)
		g.waitStatus("/healthz", http.StatusServiceUnavailable)
		g.waitStatus("/healthz/live", http.StatusOK)
		l.more(50)
		g.wantBody("/up", "up")
		// The balancer has been told, and sends nothing more.
		l.wantNoLoss()
		eventually(t, startTimeout, "the delay is over", func() error {
			if !strings.Contains(g.log.String(), "servers shutting down") {
				return errors.New("it is not")
			}
			return nil
		})
		close(release)
		if err := await(t, downloaded, "the download ends"); err != nil {
			t.Errorf("the download: %v", err)
		}
		if rest, err := io.ReadAll(lines); err == nil {
			t.Errorf("the stream ended as if it were whole, after %q", rest)
		}
		if code := g.waitExit(); code != 0 {
			t.Errorf("the exit code is %d", code)
		}
	})
}

// balancer hands TCP connections to the gateways that say that they are ready, and tries
// another when one refuses.
type balancer struct {
	l        net.Listener
	backends []*gateway
	ready    []atomic.Bool
	next     atomic.Int64
	stop     context.CancelFunc
	done     sync.WaitGroup
}

func newBalancer(t *testing.T, backends ...*gateway) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &balancer{l: l, backends: backends, ready: make([]atomic.Bool, len(backends)), stop: cancel}
	for i := range backends {
		b.done.Go(func() { b.check(ctx, i) })
	}
	b.done.Go(func() { b.accept(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		b.done.Wait()
	})
	b.waitReady(t, len(backends))
	return b
}

// check asks one of them again and again.
func (b *balancer) check(ctx context.Context, i int) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	for ctx.Err() == nil {
		ready := false
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.backends[i].http+"/healthz/ready", nil)
		if err == nil {
			if resp, err := client.Do(req); err == nil {
				ready = resp.StatusCode == http.StatusOK
				resp.Body.Close()
			}
		}
		b.ready[i].Store(ready)
		time.Sleep(pollInterval)
	}
}

func (b *balancer) accept(ctx context.Context) {
	for {
		client, err := b.l.Accept()
		if err != nil {
			return
		}
		b.done.Go(func() { b.carry(ctx, client) })
	}
}

func (b *balancer) carry(ctx context.Context, client net.Conn) {
	defer client.Close()
	for range 2 * len(b.backends) {
		i := int(b.next.Add(1)) % len(b.backends)
		if !b.ready[i].Load() {
			continue
		}
		server, err := net.Dial("tcp", b.backends[i].http)
		if err != nil {
			b.ready[i].Store(false)
			continue
		}
		defer server.Close()
		stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
		defer stop()
		var back sync.WaitGroup
		back.Go(func() {
			_, _ = io.Copy(client, server)
			client.Close()
		})
		_, _ = io.Copy(server, client)
		server.Close()
		back.Wait()
		return
	}
}

func (b *balancer) waitReady(t *testing.T, n int) {
	t.Helper()
	eventually(t, startTimeout, "the balancer sees who is ready", func() error {
		ready := 0
		for i := range b.ready {
			if b.ready[i].Load() {
				ready++
			}
		}
		if ready != n {
			return fmt.Errorf("%d are, want %d", ready, n)
		}
		return nil
	})
}

// TestRollingRestart restarts three replicas one after the other under load and edits.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	set := settings{dsn: pgtest.New(t), poll: "1h", global: "shutdown_delay 3s"}
	all := []*gateway{startGateway(t, set), startGateway(t, set), startGateway(t, set)}
	target := textUpstream(t, "up")
	all[0].create(route{Path: "/up", Method: "*", TargetURL: target})
	for _, g := range all {
		g.waitBody("/up", "up")
	}
	b := newBalancer(t, all...)
	front := *all[0]
	front.http = b.l.Addr().String()
	fresh := newClient()
	fresh.Transport.(*http.Transport).DisableKeepAlives = true
	loads := []*load{
		front.startLoadBy(newClient(), 4, http.MethodPost, "/up", is("up")),
		front.startLoadBy(fresh, 2, http.MethodPost, "/up", is("up")),
	}
	for i, g := range all {
		for _, l := range loads {
			l.more(50)
		}
		g.signal(syscall.SIGTERM)
		b.waitReady(t, 2)
		other := all[(i+1)%3]
		other.create(route{Path: fmt.Sprint("/meanwhile/", i), TargetURL: target})
		if code := g.waitExit(); code != 0 {
			t.Errorf("the exit code of replica %d is %d", i, code)
		}
		g.client.CloseIdleConnections()
		g.start()
		g.waitReady()
		b.waitReady(t, 3)
	}
	for _, l := range loads {
		l.more(50)
		l.wantNoLoss()
	}
	db := openSQL(t, set.dsn)
	for _, g := range all {
		g.wantWholeTable(db)
	}
}
