package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lanes are two gateways that differ only in which lane their requests take.
type lanes struct {
	t          *testing.T
	fast, full *gateway
}

// startLanes starts both. The one without a fast lane is an option away from the
// default.
func startLanes(t *testing.T, set settings) *lanes {
	t.Helper()
	l := &lanes{t: t, fast: newGateway(t, set)}
	set.options += "\nfast_lane off"
	l.full = newGateway(t, set)
	l.fast.start()
	l.full.start()
	l.fast.waitReady()
	l.full.waitReady()
	return l
}

// each calls fn for either gateway.
func (l *lanes) each(fn func(name string, g *gateway)) {
	fn("fast", l.fast)
	fn("full", l.full)
}

// create makes the route on both and returns the fast gateway's.
func (l *lanes) create(r route) route {
	l.t.Helper()
	l.full.create(r)
	return l.fast.create(r)
}

// fastTries returns how many tries a gateway has made on its fast lane.
func (g *gateway) fastTries() int {
	g.t.Helper()
	n := 0
	for _, pool := range g.pools("") {
		n += pool.FastLane
	}
	return n
}

// wantIdle waits until nothing is in flight on either gateway.
func (l *lanes) wantIdle() {
	l.t.Helper()
	l.each(func(name string, g *gateway) {
		eventually(l.t, startTimeout, "nothing is in flight", func() error {
			for _, pool := range g.pools("") {
				for _, target := range pool.Targets {
					if target.InFlight != 0 {
						return fmt.Errorf("%s: %d requests to %s are", name, target.InFlight, target.URL)
					}
				}
			}
			return nil
		})
	})
}

// asked is what an upstream has seen of a request.
type asked struct {
	Line    string
	Host    string
	Header  []string
	Body    string
	Length  int64
	Trailer http.Header
}

// got is what a client has got for it.
type got struct {
	Status  int
	Interim []string
	Header  []string
	Length  int64
	Close   bool
	Body    string
	Trailer []string
	Cut     bool
}

// lines brings a header into an order, without what differs from one request to the
// next.
func lines(h http.Header, without ...string) []string {
	var list []string
	for name, values := range h {
		if name != "Date" && name != "X-Request-Id" && !slices.Contains(without, name) {
			if name == "Trailer" {
				values = strings.Split(strings.Join(values, ", "), ", ")
			}
			for _, value := range values {
				if name != "Alt-Svc" || !strings.HasPrefix(value, "h3=") { // that has a port
					list = append(list, name+": "+value)
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// ask sends the exchange's request and reads the answer.
func (e *exchange) ask(client *http.Client, base string) (got, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var (
		mu sync.Mutex
		g  got
	)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			// Whether there is a 100, the gateway's own, depends on who is quicker.
			if code != http.StatusContinue {
				g.Interim = append(g.Interim, fmt.Sprint(code, lines(http.Header(h))))
			}
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, e.method, base+e.target, nil)
	if err != nil {
		return g, err
	}
	req.Header = e.header.Clone()
	req.Host = e.host
	if len(e.body) > 0 || e.chunked {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(e.body)), int64(len(e.body))
		if e.chunked {
			req.ContentLength = -1
		}
		req.Trailer = e.trailer.Clone()
	}
	resp, err := client.Do(req)
	if err != nil && e.cut && e.version == "HTTP3" {
		return got{Cut: true}, nil // what is cut may be lost as a whole
	}
	if err != nil {
		return g, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil && e.cut && e.version == "HTTP3" {
		return got{Cut: true}, nil
	}
	mu.Lock()
	defer mu.Unlock()
	g.Status, g.Length, g.Close, g.Body, g.Cut = resp.StatusCode, resp.ContentLength, resp.Close, string(body), err != nil
	g.Trailer = lines(resp.Trailer)
	// An answer that was there at once may have got a length on the fast lane, and
	// reverse_proxy may or may not have flushed the header before it has the body.
	if e.unknown {
		resp.Header.Del("Content-Length")
		g.Length = 0
	}
	if e.untyped {
		resp.Header.Del("Content-Type")
	}
	g.Header = lines(resp.Header)
	return g, nil
}

// sample is enough to find a fault, and few enough to be done soon. More, and others,
// come of another seed.
const (
	laneSeed    = 20261125
	laneSamples = 2000 // each is sent twice
	laneWorkers = 6
)

// TestLanesAreAlike sends the same generated exchanges over both lanes and compares what
// upstreams and clients see of them.
func TestLanesAreAlike(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d", laneSeed)
	l := startLanes(t, settings{
		sites: tlsSite,
		// Those who come from the second address of the machine's own network are
		// proxies that are believed.
		servers: "trusted_proxies static 127.0.0.2/32",
	})
	up := newLaneUpstream(t)
	for _, r := range laneRoutes(up.url) {
		l.create(r)
	}
	clients := map[string]map[string]func() (*http.Client, string){}
	l.each(func(name string, g *gateway) {
		clients[name] = make(map[string]func() (*http.Client, string))
		for _, v := range g.versions() {
			v.client.CheckRedirect = g.client.CheckRedirect
			clients[name][v.name] = func() (*http.Client, string) { return v.client, v.base }
		}
		believed := newClient()
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		believed.Transport.(*http.Transport).DialContext = dialer.DialContext
		t.Cleanup(believed.CloseIdleConnections)
		clients[name]["trusted"] = func() (*http.Client, string) { return believed, "http://" + g.http }
	})
	numbers := make(chan int)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		simple int
	)
	for range laneWorkers {
		wg.Go(func() {
			for n := range numbers {
				e := generate(rand.New(rand.NewPCG(laneSeed, uint64(n))), n)
				up.exchanges.Store(e.id(), e)
				results := map[string]got{}
				for name := range clients {
					client, base := clients[name][e.version]()
					g, err := e.ask(client, base)
					if err != nil {
						t.Errorf("exchange %d, %s: %v", n, name, err)
					}
					results[name] = g
				}
				up.exchanges.Delete(e.id())
				if diff := cmp.Diff(results["full"], results["fast"]); diff != "" {
					t.Errorf("exchange %d: to the client (-full +fast): %.1500s\n%s", n, diff, e)
				}
				requests := e.requests()
				if len(requests) != 2 {
					t.Errorf("exchange %d: the upstream has seen %d requests", n, len(requests))
				} else if diff := cmp.Diff(requests[0], requests[1]); diff != "" {
					t.Errorf("exchange %d: to the upstream: %.1500s\n%s", n, diff, e)
				}
				if e.simple {
					mu.Lock()
					simple++
					mu.Unlock()
				}
			}
		})
	}
	for n := range laneSamples {
		if t.Failed() {
			break
		}
		numbers <- n
	}
	close(numbers)
	wg.Wait()
	l.wantIdle()
	if n := l.full.fastTries(); n != 0 {
		t.Errorf("without a fast lane, %d tries were made on it", n)
	}
	// A body that does not come at once is left to the full lane.
	if n := l.fast.fastTries(); n > simple || n < simple*9/10 || simple < laneSamples/2 {
		t.Errorf("the fast lane has had %d exchanges, of %d that are for it", n, simple)
	}
	if !t.Failed() {
		t.Logf("%d exchanges, %d of them for the fast lane", laneSamples, simple)
	}
}

// laneRoutes have all that changes requests and answers on their way.
func laneRoutes(target string) []route {
	placeholders := `{"handler":"headers","response":{"deferred":true,"set":{` +
		`"X-Was":["{http.reverse_proxy.status_code} of {http.reverse_proxy.upstream.hostport}"],"X-Text":["{http.reverse_proxy.status_text}"],` +
		`"X-Host":["{http.reverse_proxy.upstream.host} {http.reverse_proxy.upstream.port} {http.reverse_proxy.upstream.address}"],` +
		`"X-Counts":["{http.reverse_proxy.upstream.max_requests} {http.reverse_proxy.upstream.fails}"],` +
		`"X-Copied":["{http.reverse_proxy.header.X-Multi}|{http.reverse_proxy.header.Content-Type}|{http.reverse_proxy.header.X-None}"]}}}`
	before := `{"handler":"headers","request":{"set":{"X-Added":["by a plugin"]},"delete":["Cookie"]},"response":{"set":{"X-Multi":["before"]}}}`
	encode := `{"handler":"encode","encodings":{"gzip":{}},"minimum_length":100}`
	return []route{
		{Path: "/plain/*", Method: "*", TargetURL: target},
		{Path: "/strip/*", Method: "*", TargetURL: target + "/base", StripPrefix: true},
		{Path: "/host/*", Method: "*", TargetURL: target, PreserveHost: true},
		{Path: "/ops/*", Method: "*", TargetURL: target, Plugins: plugins(before, placeholders)},
		{Path: "/gzip/*", Method: "*", TargetURL: target, Plugins: plugins(encode)},
		{Path: "/idle/*", Method: "*", TargetURL: target, Upstream: &upstreamSettings{Timeouts: map[string]any{"idle": 20, "response_header": 20}}},
		{Path: "/cors/*", Method: "*", TargetURL: target, CORS: map[string]any{"origins": []string{"https://a.test"}}},
	}
}

// describe is for messages.
func (e *exchange) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s %s %v, body of %d, chunked %v, trailer %v\n", e.version, e.method, e.target, e.host, e.header, len(e.body), e.chunked, e.trailer)
	fmt.Fprintf(&b, "%.500q of %d bytes, then closes: %v", e.answer, len(e.answer), e.closes)
	return b.String()
}
