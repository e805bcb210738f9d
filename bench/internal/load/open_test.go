package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// needLinux skips where there is no constant rate.
func needLinux(t *testing.T) {
	t.Helper()
	if _, err := procs.Processors(); err != nil {
		t.Skip(err)
	}
}

// A server that answers nothing for a while has to answer for every request that was due
// meanwhile, also for those that could not even be sent.
func TestRunOpenCountsAStall(t *testing.T) {
	needLinux(t)
	const (
		stall = 300 * time.Millisecond
		rate  = 1000
	)
	var (
		mu    sync.Mutex
		asked int
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked == 500 {
			time.Sleep(stall) // what is injected
		}
		w.Header().Set("Content-Length", "128")
		w.Write(make([]byte, 128))
	}))
	defer server.Close()
	begun := 0
	o, err := RunOpen(t.Context(), OpenJob{
		Address: server.Listener.Addr().String(), Connections: 4, Answer: "128", Routes: 1,
		Rate: rate, Warm: 200 * time.Millisecond, Time: 2 * time.Second, Proxy: []int{os.Getpid()},
	}, func() error { begun++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Took) != 2*rate || begun != 1 {
		t.Fatalf("%d requests count, begun %d times", len(o.Took), begun)
	}
	slow := 0
	for _, took := range o.Took {
		if took <= 0 {
			t.Fatalf("a request took %v", took)
		}
		if took >= stall/2 {
			slow++
		}
	}
	// Half of those that were due in the stall waited for longer than half of it.
	if want := int(stall.Seconds() / 2 * rate); slow < want-5 {
		t.Errorf("%d requests took longer than half of the stall, want %d: those that were not sent are left out", slow, want)
	}
	if p999 := Quantile(o.Took, 0.999); p999 < stall*9/10 {
		t.Errorf("p99.9 is %v, with a stall of %v in 2s", p999, stall)
	}
	if o.Waited < int(stall.Seconds()*rate)/2 {
		t.Errorf("only %d requests waited for one of 4 connections", o.Waited)
	}
	if got := o.Between(o.Began, o.Began.Add(time.Hour)); len(got) != len(o.Took) {
		t.Errorf("%d of %d requests between the beginning and the end", len(got), len(o.Took))
	}
}

func TestRunOpen(t *testing.T) {
	needLinux(t)
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go ServeBackend(backend)
	var mu sync.Mutex
	routes := make(map[string]int)
	answer := func(length int, chunks bool) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			routes[strings.Split(r.URL.Path, "/")[2]]++
			mu.Unlock()
			if !chunks {
				w.Header().Set("Content-Length", strconv.Itoa(length))
			}
			w.Write(make([]byte, length))
			if chunks {
				w.(http.Flusher).Flush()
			}
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hanging.Close()
	closed := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer closed.Close()

	base := OpenJob{
		Address: backend.Addr().String(), Connections: 3, Answer: "128", Routes: 3,
		Rate: 500, Warm: 10 * time.Millisecond, Time: 100 * time.Millisecond, Proxy: []int{os.Getpid()},
	}
	tests := []struct {
		name   string
		change func(j *OpenJob)
		fails  string
	}{
		{name: "backend"},
		{name: "net/http", change: func(j *OpenJob) { j.Address = answer(128, false) }},
		{name: "long answers", change: func(j *OpenJob) { j.Answer, j.Rate = "1m", 50 }},
		{name: "another status", change: func(j *OpenJob) { j.Answer = "2m" }, fails: "404"},
		{name: "another size", change: func(j *OpenJob) { j.Address = answer(5, false) }, fails: "5 bytes instead of 128"},
		{name: "without a length", change: func(j *OpenJob) { j.Address = answer(128, true) }, fails: "no length"},
		{name: "a connection that ends", change: func(j *OpenJob) { j.Address = closed.Listener.Addr().String() }, fails: "closed"},
		{name: "no answer", change: func(j *OpenJob) { j.Address = hanging.Listener.Addr().String() }, fails: "deadline"},
		{name: "nobody there", change: func(j *OpenJob) { j.Address = "127.0.0.1:1" }, fails: "connecting"},
		{name: "no address", change: func(j *OpenJob) { j.Address = "localhost:80" }, fails: "address"},
		{name: "no connections", change: func(j *OpenJob) { j.Connections = 0 }, fails: "needs a connection"},
		{name: "no rate", change: func(j *OpenJob) { j.Rate = 0 }, fails: "needs a rate"},
		{name: "no time", change: func(j *OpenJob) { j.Time = 0 }, fails: "needs a rate"},
		{name: "a process that is not there", change: func(j *OpenJob) { j.Proxy = []int{0} }, fails: "process 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := base
			if test.change != nil {
				test.change(&j)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if test.fails == "deadline" {
				ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
			}
			defer cancel()
			o, err := RunOpen(ctx, j, func() error { return nil })
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Fatalf("error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(o.Took) != j.count(j.Time) || Quantile(o.Took, 0) <= 0 || o.RSS <= 0 {
				t.Errorf("measured %+v", o)
			}
		})
	}
	for _, route := range []string{"0", "1", "2"} {
		if routes[route] == 0 {
			t.Errorf("route %s was never asked for", route)
		}
	}
}

func TestBetween(t *testing.T) {
	t.Parallel()
	o := OpenOutcome{Began: time.Unix(100, 0), Rate: 10, Took: []time.Duration{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}
	at := func(ms int) time.Time { return o.Began.Add(time.Duration(ms) * time.Millisecond) }
	tests := []struct {
		from, to int
		want     []time.Duration
	}{
		{0, 1000, o.Took},
		{200, 400, []time.Duration{2, 3}},
		{150, 250, []time.Duration{2}},
		{-5000, 50, []time.Duration{0}},
		{900, 9000, []time.Duration{9}},
		{2000, 3000, []time.Duration{}},
		{400, 200, []time.Duration{}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, o.Between(at(test.from), at(test.to))); diff != "" {
			t.Errorf("%d ms to %d ms: %s", test.from, test.to, diff)
		}
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	var thousand []time.Duration
	for i := range 1000 {
		thousand = append(thousand, time.Duration(1000-i))
	}
	got := Quantiles(thousand, 0, 0.5, 0.99, 0.999, 1)
	if diff := cmp.Diff([]time.Duration{1, 500, 990, 999, 1000}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]time.Duration{0, 0}, Quantiles(nil, 0.5, 1)); diff != "" {
		t.Error(diff)
	}
	if got := Quantile(thousand, 0.001); got != 1 {
		t.Errorf("the first of a thousand is %d", got)
	}
}
