// Package load is what is on both sides of a proxy that is measured: clients that keep
// connections busy, or send at a constant rate, and the backend. Both are lighter than
// net/http, since what they take is taken from what is left of the machine.
package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// Job is one measurement of one proxy. Its process is given it as JSON.
type Job struct {
	Address string
	TLS     bool
	HTTP2   bool

	// Connections are opened at the beginning and kept. On HTTP/2 connections so many
	// Streams are open at any time.
	Connections int
	Streams     int

	Method string
	Answer string // the last part of the path, one of answers
	Body   int    // bytes sent, 0 for none
	Routes int    // requests go to so many routes in turn
	From   int    // the route that the first connection begins with; others are spread over all

	Warm, Time time.Duration

	Proxy   []int  // the processes whose use is measured
	Backend []int  // those of the backend
	Scrape  string // a URL that is asked for once meanwhile, as Prometheus does

	// Late is how long the proxy may put off work for a request that is answered.
	Late time.Duration
}

// Outcome is what one measurement found.
type Outcome struct {
	Requests int
	Elapsed  time.Duration
	CPU      time.Duration // of the proxy, with what it did later
	Busy     time.Duration // of the proxy within Elapsed
	LoadCPU  time.Duration // of load and backend
	RSS      int64         // of the proxy at the end, bytes
	P50, P99 time.Duration
}

// Micros returns the CPU time of the proxy for a request, in microseconds.
func (o Outcome) Micros() float64 { return float64(o.CPU.Microseconds()) / float64(o.Requests) }

// Rate returns requests per second.
func (o Outcome) Rate() float64 { return float64(o.Requests) / o.Elapsed.Seconds() }

// BusyPart returns the part of its processor that the proxy used.
func (o Outcome) BusyPart() float64 { return o.Busy.Seconds() / o.Elapsed.Seconds() }

const (
	// patience bounds waiting for connections, and for the answers that are still to
	// come when a measurement is over.
	patience = 20 * time.Second

	// settleTimeout bounds waiting for the proxy to be quiet. One that never is has
	// work that is not for requests, and is measured with some of that.
	settleTimeout = 5 * time.Second
)

// client keeps one connection busy.
type client interface {
	// run sends requests until over is set, but one at least, and returns when all are
	// answered: how long each took.
	run(over *atomic.Bool) ([]time.Duration, error)
}

// Run opens the connections, keeps all of them busy for Warm, and measures while it
// keeps them busy again for Time. What the proxy does later for those requests, such as
// writing its log, is measured with them: both times it is waited for. An answer that is
// not as it should be is an error.
func Run(ctx context.Context, j Job) (*Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, j.Warm+j.Time+3*patience)
	defer cancel()
	clients := make([]client, j.Connections)
	for i := range clients {
		conn, err := dial(ctx, j)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if deadline, ok := ctx.Deadline(); ok {
			if err := conn.SetDeadline(deadline); err != nil {
				return nil, fmt.Errorf("setting a deadline: %w", err)
			}
		}
		first := firstRoute(i, j.Connections, j.Routes, j.From)
		if j.HTTP2 {
			clients[i], err = newHTTP2(conn, j, first)
		} else {
			clients[i] = newHTTP1(conn, j, first)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := runAll(ctx, clients, j.Warm); err != nil {
		return nil, err
	}
	if err := settle(ctx, j.Proxy, j.Late); err != nil {
		return nil, err
	}
	return j.measure(ctx, clients)
}

func (j Job) measure(ctx context.Context, clients []client) (*Outcome, error) {
	proxy, load, err := j.usage()
	if err != nil {
		return nil, err
	}
	scraped := make(chan error, 1)
	go func() { scraped <- scrape(ctx, j.Scrape) }()
	began := time.Now()
	took, err := runAll(ctx, clients, j.Time)
	if err != nil {
		return nil, err
	}
	o := &Outcome{Requests: len(took), Elapsed: time.Since(began)}
	if o.Requests == 0 {
		return nil, errors.New("no request was answered")
	}
	if err := <-scraped; err != nil {
		return nil, err
	}
	proxyAfter, loadAfter, err := j.usage()
	if err != nil {
		return nil, err
	}
	o.Busy, o.LoadCPU, o.RSS = proxyAfter.CPU-proxy.CPU, loadAfter.CPU-load.CPU, proxyAfter.RSS
	if err := settle(ctx, j.Proxy, j.Late); err != nil {
		return nil, err
	}
	if proxyAfter, err = procs.Of(j.Proxy); err != nil {
		return nil, err
	}
	o.CPU = proxyAfter.CPU - proxy.CPU
	o.P50, o.P99 = quantiles(took)
	return o, nil
}

// runAll runs the clients for so long and returns what all of them measured.
func runAll(ctx context.Context, clients []client, d time.Duration) ([]time.Duration, error) {
	var (
		working sync.WaitGroup
		over    atomic.Bool
		mu      sync.Mutex
		all     []time.Duration
		failed  error
	)
	stop := time.AfterFunc(d, func() { over.Store(true) })
	defer stop.Stop()
	for _, c := range clients {
		working.Go(func() {
			took, err := c.run(&over)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil && failed == nil {
				failed = err
				over.Store(true)
			}
		})
	}
	working.Wait() // each connection has a deadline
	return all, errors.Join(failed, ctx.Err())
}

// settle waits until the proxy has used no CPU time for a while.
func settle(ctx context.Context, proxy []int, late time.Duration) error {
	quiet := 50 * time.Millisecond
	if late > 0 {
		quiet = late + 100*time.Millisecond
	}
	const step = 25 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	until := time.Now().Add(settleTimeout)
	var last procs.Usage
	for still := time.Duration(0); still < quiet && time.Now().Before(until); {
		now, err := procs.Of(proxy)
		if err != nil {
			return err
		}
		if still += step; now.CPU != last.CPU {
			last, still = now, 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// usage is of the proxy's processes, and of this one with the backend's.
func (j Job) usage() (proxy, load procs.Usage, err error) {
	if proxy, err = procs.Of(j.Proxy); err != nil {
		return procs.Usage{}, procs.Usage{}, err
	}
	load, err = procs.Of(slices.Concat(j.Backend, procs.Self()))
	return proxy, load, err
}

// scrape reads metrics, if there is a url.
func scrape(ctx context.Context, url string) error {
	if url == "" {
		return nil
	}
	return Get(ctx, url)
}

// Get reads an answer to its end. It is an error unless its status is 200.
func Get(ctx context.Context, url string) error {
	_, err := Text(ctx, url)
	return err
}

// Text returns an answer. It is an error unless its status is 200.
func Text(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", url, res.Status)
	}
	text, err := io.ReadAll(res.Body)
	return string(text), err
}

func dial(ctx context.Context, j Job) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", j.Address)
	if err != nil || !j.TLS {
		return conn, err
	}
	protocol := "http/1.1"
	if j.HTTP2 {
		protocol = "h2"
	}
	secure := tls.Client(conn, &tls.Config{
		ServerName:         ServerName,
		InsecureSkipVerify: true, //nolint:gosec // checking the certificate costs the load, not the proxy
		NextProtos:         []string{protocol},
		MinVersion:         tls.VersionTLS13,
	})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS handshake: %w", err), conn.Close())
	}
	if got := secure.ConnectionState().NegotiatedProtocol; j.HTTP2 && got != protocol {
		return nil, errors.Join(fmt.Errorf("the server chose %q instead of %q", got, protocol), conn.Close())
	}
	return secure, nil
}

// quantiles sorts took.
func quantiles(took []time.Duration) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.SortFunc(took, cmp.Compare[time.Duration])
	at := func(q float64) time.Duration { return took[min(int(q*float64(len(took))), len(took)-1)] }
	return at(0.5), at(0.99)
}

// firstRoute returns the route that connection i begins with: routes are not asked for in
// step.
func firstRoute(i, connections, routes, from int) int {
	routes = max(routes, 1)
	return (from + i*routes/connections) % routes
}

// RoutePath is the path of the route number i and of an answer of the backend.
func RoutePath(i int, answer string) string { return "/r/" + strconv.Itoa(i) + "/" + answer }

// fields are a browser's, as both protocols send them.
var fields = [][2]string{
	{"User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"},
	{"Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
	{"Accept-Language", "en-US,en;q=0.9,de;q=0.8"},
	{"Accept-Encoding", "gzip, deflate, br"},
	{"Referer", "https://example.com/somewhere/else?page=1"},
	{"Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"},
	{"Cache-Control", "max-age=0"},
}
