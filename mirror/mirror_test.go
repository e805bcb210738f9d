package mirror_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

// unknownLength hides a body's length from net/http.
type unknownLength struct{ io.Reader }

func TestCopies(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 5000)
	tests := map[string]struct {
		method, path string
		body         io.Reader
		settings     mirror.Settings
		base         string // of the mirror
		uri          string // that the mirror gets
		want         string // the body
	}{
		"without a body":       {method: "GET", path: "/a/b?c=d&c=e", uri: "/a/b?c=d&c=e"},
		"an empty query":       {method: "GET", path: "/a?", uri: "/a?"},
		"escapes":              {method: "GET", path: "/a%2Fb%20c/%C3%A9!'(", uri: "/a%2Fb%20c/%C3%A9!'("},
		"HEAD":                 {method: "HEAD", path: "/", uri: "/"},
		"below a path":         {method: "DELETE", path: "/a%2Fb", base: "/ba%2Fse/", uri: "/ba%2Fse/a%2Fb"},
		"root below a path":    {method: "GET", path: "/", base: "/base", uri: "/base/"},
		"a body":               {method: "POST", path: "/x", body: strings.NewReader("hello"), uri: "/x", want: "hello"},
		"a chunked body":       {method: "PUT", path: "/x", body: unknownLength{strings.NewReader("hello")}, uri: "/x", want: "hello"},
		"an empty chunked":     {method: "PUT", path: "/x", body: unknownLength{strings.NewReader("")}, uri: "/x"},
		"a long body":          {method: "POST", path: "/x", body: strings.NewReader(long), uri: "/x", want: long},
		"a long chunked body":  {method: "POST", path: "/x", body: unknownLength{strings.NewReader(long)}, uri: "/x", want: long},
		"exactly the most":     {method: "POST", path: "/x", body: strings.NewReader(long), settings: mirror.Settings{BodyMax: len(long)}, uri: "/x", want: long},
		"just so, and chunked": {method: "POST", path: "/x", body: unknownLength{strings.NewReader(long)}, settings: mirror.Settings{BodyMax: len(long)}, uri: "/x", want: long},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, got := newReceiver(t)
			q := newQueue(t, small())
			site := front(t, newMirror(t, q, small(), url+tt.base, tt.settings), nil)
			if status := send(t, tt.method, site+tt.path, tt.body, func(r *http.Request) { r.Header.Set("X-Own", "1") }); status != http.StatusOK {
				t.Fatalf("status %d", status)
			}
			c := await(t, got, "the copy")
			if c.method != tt.method || c.uri != tt.uri || c.body != tt.want || "http://"+c.host != url || c.header.Get("X-Own") != "1" || c.header.Get(mirror.Marker) == "" {
				t.Errorf("the mirror got %+v", c)
			}
			awaitStats(t, q, mirror.Stats{Sent: 1})
		})
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	url, got := newReceiver(t)
	q := newQueue(t, small())
	site := front(t, newMirror(t, q, small(), url, mirror.Settings{}), nil)
	send(t, "POST", site, unknownLength{strings.NewReader("hello")}, func(r *http.Request) { r.Trailer = http.Header{"X-Sum": {"5d41"}} })
	if c := await(t, got, "the copy"); c.body != "hello" || c.trailer.Get("X-Sum") != "5d41" {
		t.Errorf("the mirror got %+v", c)
	}
}

func TestPreserveHost(t *testing.T) {
	t.Parallel()
	url, got := newReceiver(t)
	site := front(t, newMirror(t, newQueue(t, small()), small(), url, mirror.Settings{PreserveHost: true}), nil)
	send(t, "GET", site, nil, func(r *http.Request) { r.Host = "example.com:81" })
	if c := await(t, got, "the copy"); c.host != "example.com:81" {
		t.Errorf("the mirror got the host %q", c.host)
	}
}

func TestWhatIsNotCopied(t *testing.T) {
	t.Parallel()
	field := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	large := strings.Repeat("x", 1001)
	tests := map[string]struct {
		method string
		body   io.Reader
		change func(*http.Request)
		want   mirror.Dropped
	}{
		"too large":          {"POST", strings.NewReader(large), nil, mirror.Dropped{TooLarge: 1}},
		"too large, chunked": {"POST", unknownLength{strings.NewReader(large)}, nil, mirror.Dropped{TooLarge: 1}},
		"upgrade": {"GET", nil, func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}, mirror.Dropped{Skipped: 1}},
		"gRPC":    {"POST", strings.NewReader("x"), field("Content-Type", "application/grpc+proto"), mirror.Dropped{Skipped: 1}},
		"Expect":  {"POST", strings.NewReader("x"), field("Expect", "100-continue"), mirror.Dropped{Skipped: 1}},
		"TRACE":   {"TRACE", nil, nil, mirror.Dropped{Skipped: 1}},
		"CONNECT": {"CONNECT", nil, nil, mirror.Dropped{Skipped: 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, got := newReceiver(t)
			q := newQueue(t, small())
			site := front(t, newMirror(t, q, small(), url, mirror.Settings{BodyMax: 1000}), nil)
			change := tt.change
			if change == nil {
				change = func(*http.Request) {}
			}
			if status := send(t, tt.method, site, tt.body, change); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
			awaitStats(t, q, mirror.Stats{Dropped: tt.want})
			// What is sent after it arrives; so it would have, too.
			send(t, "GET", site+"/next", nil)
			if c := await(t, got, "the next copy"); c.uri != "/next" {
				t.Errorf("the mirror got %+v", c)
			}
		})
	}
}

func TestBodyThatIsBrokenOff(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"chunked":     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"with length": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := newReceiver(t)
			q := newQueue(t, small())
			site := front(t, newMirror(t, q, small(), url, mirror.Settings{}), nil)
			conn, err := net.Dial("tcp", strings.TrimPrefix(site, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, request)
			conn.Close()
			awaitStats(t, q, mirror.Stats{Dropped: mirror.Dropped{Incomplete: 1}})
		})
	}
}

func TestBodyThatIsNotRead(t *testing.T) {
	t.Parallel()
	url, _ := newReceiver(t)
	q := newQueue(t, small())
	site := front(t, newMirror(t, q, small(), url, mirror.Settings{}), func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 3))
	})
	send(t, "POST", site, strings.NewReader("hello"))
	awaitStats(t, q, mirror.Stats{Dropped: mirror.Dropped{Incomplete: 1}})
}

// TestBodyIsComplete reads as many bytes as there are and not the end after them.
func TestBodyIsComplete(t *testing.T) {
	t.Parallel()
	url, got := newReceiver(t)
	site := front(t, newMirror(t, newQueue(t, small()), small(), url, mirror.Settings{}), func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 5))
	})
	send(t, "POST", site, strings.NewReader("hello"))
	if c := await(t, got, "the copy"); c.body != "hello" {
		t.Errorf("the mirror got %+v", c)
	}
}

// TestCopyDoesNotWaitForTheAnswer has the upstream answer only when the copy has
// arrived.
func TestCopyDoesNotWaitForTheAnswer(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"without a body": "", "with one": "hello"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, got := newReceiver(t)
			copies := make(chan received, 1)
			site := front(t, newMirror(t, newQueue(t, small()), small(), url, mirror.Settings{}), func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				copies <- await(t, got, "the copy")
			})
			send(t, "POST", site, strings.NewReader(body))
			if c := <-copies; c.body != body {
				t.Errorf("the mirror got %+v", c)
			}
		})
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	const requests = 4000
	url, _ := newReceiver(t)
	q := newQueue(t, mirror.Limits{Copies: requests, Memory: 64 << 20, Concurrency: 4})
	sample := 0.25
	m := newMirror(t, q, mirror.Limits{Copies: requests, Memory: 64 << 20, Concurrency: 4}, url, mirror.Settings{Sample: &sample})
	for range requests {
		r, err := http.NewRequest("GET", "/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		m.Begin(r)()
	}
	stats := q.Stats()
	copied := float64(stats.Sent + stats.Failed + stats.Waiting)
	// Ten standard deviations, and what may be on its way between two counts.
	if most := 10*math.Sqrt(requests*sample*(1-sample)) + 4; math.Abs(copied-requests*sample) > most {
		t.Errorf("%v of %d requests were copied, which is not a quarter", copied, requests)
	}
}

func TestAnswersAreThrownAway(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 100)
	var url string
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		requests <- r.URL.Path
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, url+"/elsewhere", http.StatusFound)
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		case "/error":
			w.WriteHeader(http.StatusInternalServerError)
		case "/switch":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				_, _ = bufio.NewReader(conn).ReadByte()
				conn.Close()
			}
		}
	})
	url = server.URL
	q := newQueue(t, small())
	site := front(t, newMirror(t, q, small(), url, mirror.Settings{}), nil)
	for i, path := range []string{"/redirect", "/endless", "/error", "/switch", "/last"} {
		send(t, "GET", site+path, nil)
		if got := await(t, requests, path); got != path {
			t.Errorf("the mirror got %s, want %s", got, path)
		}
		awaitStats(t, q, mirror.Stats{Sent: int64(i) + 1})
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	hanging, _, _ := newHanging(t)
	for name, url := range map[string]string{"down": "http://" + closed.Addr().String(), "never answers": hanging} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, small())
			site := front(t, newMirror(t, q, small(), url, mirror.Settings{Timeout: time.Second}), nil)
			if status := send(t, "GET", site, nil); status != http.StatusOK {
				t.Errorf("status %d", status)
			}
			awaitStats(t, q, mirror.Stats{Failed: 1})
		})
	}
}

// TestPolicyIsAskedAtDial has a target that no policy could judge when it was
// parsed.
func TestPolicyIsAskedAtDial(t *testing.T) {
	t.Parallel()
	url, got := newReceiver(t)
	target, err := mirror.ParseTarget(url, new(proxy.Policy))
	if err != nil {
		t.Fatal(err)
	}
	loopback, err := proxy.ParsePrefix("127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	q := newQueue(t, small())
	d := mirror.NewDestination(q, small(), target, &proxy.Policy{Deny: []netip.Prefix{loopback}})
	t.Cleanup(func() { _ = d.Destruct() })
	send(t, "GET", front(t, mirror.New(d, target, mirror.Settings{}), nil), nil)
	awaitStats(t, q, mirror.Stats{Failed: 1})
	if len(got) > 0 {
		t.Errorf("the mirror got %+v", <-got)
	}
}

func TestMarker(t *testing.T) {
	t.Parallel()
	url, got := newReceiver(t)
	q := newQueue(t, small())
	var upstream string
	site := front(t, newMirror(t, q, small(), url, mirror.Settings{}), func(_ http.ResponseWriter, r *http.Request) {
		upstream = r.Header.Get(mirror.Marker)
	})
	// A client's marker is worth nothing: it is removed, and the request copied.
	for _, forged := range []string{"", "1", strings.Repeat("A", 26)} {
		send(t, "GET", site, nil, func(r *http.Request) { r.Header[mirror.Marker] = []string{forged} })
		if c := await(t, got, "the copy"); upstream != "" || c.header.Get(mirror.Marker) == forged {
			t.Errorf("marker %q: the upstream got %q, the mirror %q", forged, upstream, c.header.Get(mirror.Marker))
		}
	}
	send(t, "GET", site, nil)
	marker := await(t, got, "the copy").header.Get(mirror.Marker)
	// A copy that comes back keeps its marker and is not copied.
	send(t, "GET", site, nil, func(r *http.Request) { r.Header.Set(mirror.Marker, marker) })
	if upstream != marker {
		t.Errorf("the marker is %q, the upstream got %q", marker, upstream)
	}
	awaitStats(t, q, mirror.Stats{Sent: 4, Dropped: mirror.Dropped{Skipped: 1}})
}

func TestSettings(t *testing.T) {
	t.Parallel()
	sample := func(f float64) *float64 { return &f }
	tests := []struct {
		settings mirror.Settings
		want     store.FieldErrors
	}{
		{mirror.Settings{}, nil},
		{mirror.Settings{Sample: sample(1), BodyMax: 1 << 20, Timeout: time.Minute}, nil},
		{mirror.Settings{Sample: sample(1e-9), BodyMax: 1, Timeout: time.Second}, nil},
		{mirror.Settings{Sample: sample(0)}, store.FieldErrors{{Field: "sample"}}},
		{mirror.Settings{Sample: sample(-0.1)}, store.FieldErrors{{Field: "sample"}}},
		{mirror.Settings{Sample: sample(1.1)}, store.FieldErrors{{Field: "sample"}}},
		{mirror.Settings{Sample: sample(math.NaN())}, store.FieldErrors{{Field: "sample"}}},
		{mirror.Settings{BodyMax: -1}, store.FieldErrors{{Field: "body_max"}}},
		{mirror.Settings{BodyMax: 1<<20 + 1, Timeout: 1}, store.FieldErrors{{Field: "body_max"}, {Field: "timeout"}}},
		{mirror.Settings{Timeout: time.Minute + 1}, store.FieldErrors{{Field: "timeout"}}},
		{mirror.Settings{Timeout: -time.Second}, store.FieldErrors{{Field: "timeout"}}},
	}
	for _, tt := range tests {
		var got store.FieldErrors
		if err := tt.settings.Validate(); err != nil && !errors.As(err, &got) {
			t.Errorf("%+v: %v", tt.settings, err)
		}
		ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Message" }, cmp.Ignore())
		if diff := cmp.Diff(tt.want, got, ignore); diff != "" {
			t.Errorf("%+v: %s", tt.settings, diff)
		}
	}
}
