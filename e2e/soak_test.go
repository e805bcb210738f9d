//go:build soak

package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// gauge returns one of the gateway's own metrics.
func (g *gateway) gauge(name string) float64 {
	g.t.Helper()
	a := g.call(http.MethodGet, "/metrics", nil)
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(a.body)
	if m == nil {
		g.t.Fatalf("there is no metric %s", name)
	}
	value, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return value
}

// TestSoakPartition cuts the database off for a minute, without a packet that says so.
func TestSoakPartition(t *testing.T) {
	direct := pgtest.New(t)
	network, dsn := newToxicDSN(t, direct)
	g := startGateway(t, never(dsn))
	g.sufferOutage(t, openSQL(t, direct), func() {
		network.poison("timeout", map[string]int{"timeout": 0})
		time.Sleep(time.Minute)
	}, func() { network.heal("timeout") })
}

// TestSoakDiskFull fills the database's disk, a small one in memory, which only root may
// mount.
func TestSoakDiskFull(t *testing.T) {
	disk, err := os.MkdirTemp("/tmp", "isekai-disk-")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=200m,mode=0755", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Fatalf("this test mounts a small disk, for which it must be run as root: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v\n%s", err, out)
		}
		os.Remove(disk)
	})
	server := pgtest.NewServerIn(t, disk)
	set := never(server.DSN())
	set.options += "\nrequest_log {\nflush_interval 50ms\n}"
	g := startGateway(t, set)
	target := textUpstream(t, "up")
	g.create(route{Path: "/up", TargetURL: target})
	l := g.startLoad(4, "/up", is("up"))
	l.more(50)

	ballast := disk + "/ballast"
	_ = exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=1M").Run() // ends when the disk is full
	large := map[string]string{}
	for i := range 20 {
		large[fmt.Sprint("label", i)] = fmt.Sprintf("%0200d", rand.Uint64())
	}
	refused := 0
	for i := 0; refused < 5; i++ {
		if i == 5000 {
			t.Fatal("the disk is full, and all writes went well")
		}
		a := g.call(http.MethodPost, "/api/routes", route{Path: fmt.Sprint("/large/", i), TargetURL: target, Labels: large})
		switch a.status {
		case http.StatusCreated:
		case http.StatusServiceUnavailable:
			refused++
		default:
			t.Fatalf("a write is answered %s", a)
		}
	}
	l.more(200)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, startTimeout, "writes go well again", func() error {
		if a := g.call(http.MethodPost, "/api/routes", route{Path: "/after", TargetURL: target}); a.status != http.StatusCreated {
			return fmt.Errorf("answered %s", a)
		}
		return nil
	})
	g.waitHealth("all is well", func(_ int, h health) bool { return h.Status == "ok" })
	g.wantWholeTable(openSQL(t, server.DSN()))
	l.more(50)
	l.wantNoLoss()
}

// TestSoakRandomKeys limits a million made-up clients beside an honest one.
func TestSoakRandomKeys(t *testing.T) {
	const requests, honest = 1_000_000, 500
	g := startGateway(t, settings{})
	g.create(route{Path: "/limited", TargetURL: textUpstream(t, "up"), RateLimit: honest, Limits: map[string]any{
		"window": 86_400, "key": "{http.request.header.X-Client}",
	}})
	before := g.gauge("process_resident_memory_bytes")
	var sent atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for sent.Add(1) <= requests {
				a, err := g.trySend(http.MethodGet, "/limited", header("X-Client", strconv.FormatUint(rand.Uint64(), 36)))
				if err != nil || a.status != http.StatusOK {
					t.Errorf("a made-up client is answered %s, %v", a, err)
					return
				}
			}
		})
	}
	admitted, refused := 0, 0
	for range honest + 100 {
		switch a := g.send(http.MethodGet, "/limited", header("X-Client", "honest")); a.status {
		case http.StatusOK:
			admitted++
		case http.StatusTooManyRequests:
			refused++
		default:
			t.Fatalf("the honest client is answered %s", a)
		}
		time.Sleep(20 * time.Millisecond)
	}
	wg.Wait()
	if admitted != honest || refused != 100 {
		t.Errorf("the honest client was admitted %d times and refused %d, want %d and 100", admitted, refused, honest)
	}
	after := g.gauge("process_resident_memory_bytes")
	t.Logf("%d keys took the process from %.0f to %.0f MB", requests, before/(1<<20), after/(1<<20))
	if after > 1<<30 {
		t.Errorf("the process has %.0f MB", after/(1<<20))
	}
}

// TestSoakMemory runs for ISEKAI_SOAK_MINUTES, half an hour by default, at load with
// edits and reloads of the table. What is in use must not grow.
func TestSoakMemory(t *testing.T) {
	minutes := 30
	if text := os.Getenv("ISEKAI_SOAK_MINUTES"); text != "" {
		var err error
		if minutes, err = strconv.Atoi(text); err != nil || minutes < 3 {
			t.Fatalf("ISEKAI_SOAK_MINUTES is %q, and must be a number from 3", text)
		}
	}
	g := startGateway(t, settings{dsn: pgtest.New(t), options: "request_log {\nretention 1h\n}"})
	one, two := textUpstream(t, "up"), textUpstream(t, "up")
	edited := g.create(route{Path: "/up", TargetURL: one})
	for i := range 200 {
		g.create(route{Path: fmt.Sprint("/other/", i, "/{id}"), TargetURL: one})
	}
	l := g.startLoad(2, "/up", is("up"))
	end := time.Now().Add(time.Duration(minutes) * time.Minute)
	var at, used []float64 // minutes, MB
	for i := 0; time.Now().Before(end); i++ {
		g.patch(edited.ID, map[string]any{"target_url": []string{one, two}[i%2]})
		extra := g.create(route{Path: fmt.Sprint("/extra/", i), TargetURL: two})
		g.wantBody(fmt.Sprint("/extra/", i), "up")
		g.remove(extra.ID)
		if i%20 == 0 {
			g.call(http.MethodGet, "/debug/pprof/heap?gc=1", nil)
			at = append(at, float64(minutes)-time.Until(end).Minutes())
			used = append(used, g.gauge("go_memstats_heap_alloc_bytes")/(1<<20))
			l.p99() // forget what is only a figure
		}
		time.Sleep(500 * time.Millisecond)
	}
	l.wantNoLoss()
	// The first third is for caches to fill.
	at, used = at[len(at)/3:], used[len(used)/3:]
	growth := 10 * slope(at, used)
	t.Logf("the heap has %.1f MB and grows by %.2f MB in 10 minutes, %d samples", used[len(used)-1], growth, len(used))
	if minutes >= 30 && growth > 1 {
		t.Errorf("the heap grows by %.2f MB in 10 minutes: %.1f", growth, used)
	}
}

// slope is that of the line with the least squares.
func slope(x, y []float64) float64 {
	var mx, my, xy, xx float64
	for i := range x {
		mx, my = mx+x[i]/float64(len(x)), my+y[i]/float64(len(x))
	}
	for i := range x {
		xy, xx = xy+(x[i]-mx)*(y[i]-my), xx+(x[i]-mx)*(x[i]-mx)
	}
	return xy / xx
}
