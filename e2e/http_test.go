package e2e_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
)

// tlsSite serves the routes over TLS too, for the name localhost.
const tlsSite = `https://localhost {
	bind 127.0.0.1
	tls internal
	isekai
}`

// TestServerSentEvents has the upstream send each event only when the client has
// received the one before, for longer than the route's timeout.
func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	received := make(chan struct{})
	ended := make(chan struct{}, 2)
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for i := range 15 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-received:
			case <-r.Context().Done():
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	second := 1
	g.create(route{Path: "/events", TargetURL: upstream.URL, Timeout: &second})

	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.http+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 15 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) {
			t.Fatalf("event %d is %q (%v)", i, lines.Text(), lines.Err())
		}
		lines.Scan()
		select {
		case received <- struct{}{}:
		case <-ctx.Done():
			t.Fatalf("the upstream does not go on after event %d", i)
		}
	}
	// Then the upstream is silent, and the stream is ended.
	if lines.Scan() || ctx.Err() != nil {
		t.Errorf("the silent stream goes on: %q (%v)", lines.Text(), ctx.Err())
	}
	await(t, ended, "the upstream is told that the stream has ended")
}

// content is a reproducible body that does not compress.
func content(size int64) io.Reader {
	return io.LimitReader(rand.New(rand.NewSource(1)), size)
}

func sum(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	want, err := sum(content(size))
	if err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, settings{sites: tlsSite})
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			if r.URL.Query().Has("length") {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			_, _ = io.Copy(w, content(size))
			return
		}
		got, err := sum(r.Body)
		fmt.Fprint(w, got, err)
	})
	timeout := 300
	g.create(route{Path: "/large", Method: "GET,PUT", TargetURL: upstream.URL, Timeout: &timeout})
	g.waitCertificate("localhost")
	secure := g.secureClient("localhost")
	secure.Timeout = 5 * time.Minute
	plain := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Minute}
	for name, via := range map[string]struct {
		client *http.Client
		base   string
	}{
		"http1": {plain, "http://" + g.http},
		"http2": {secure, "https://localhost:" + port(g.https)},
	} {
		for _, length := range []int64{size, -1} {
			t.Run(fmt.Sprint(name, " length ", length), func(t *testing.T) {
				req, err := http.NewRequest(http.MethodPut, via.base+"/large", content(size))
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = length
				resp, err := via.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if text, err := io.ReadAll(resp.Body); string(text) != want+"<nil>" {
					t.Errorf("the upstream has read %s (%v), want %s", text, err, want)
				}
				query := ""
				if length > 0 {
					query = "?length"
				}
				resp, err = via.client.Get(via.base + "/large" + query)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if got, err := sum(resp.Body); got != want || err != nil || resp.ContentLength != length {
					t.Errorf("the client has read %s (%v) of length %d, want %s", got, err, resp.ContentLength, want)
				}
			})
		}
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	g.create(route{Path: "/trailers", Method: "POST", TargetURL: newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Sum", "answered "+r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	}).URL})
	req, err := http.NewRequest(http.MethodPost, "http://"+g.http+"/trailers", struct{ io.Reader }{strings.NewReader("body")})
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"X-Sum": {"asked"}}
	resp, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "body" || resp.Trailer.Get("X-Sum") != "answered asked" || resp.Trailer.Get("X-Late") != "unannounced" {
		t.Errorf("the answer is %q with the trailers %v (%v)", body, resp.Trailer, err)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	g.create(route{Path: "/reads", Method: "POST", TargetURL: newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}).URL})
	g.create(route{Path: "/refuses", Method: "POST", TargetURL: newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}).URL})
	const head = "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"

	conn := dialRaw(t, g.http)
	r := bufio.NewReader(conn)
	fmt.Fprintf(conn, head, "/reads")
	if interim, err := readHead(r); err != nil || !strings.HasPrefix(interim, "HTTP/1.1 100 ") {
		t.Fatalf("before the body there comes %q (%v)", interim, err)
	}
	fmt.Fprint(conn, "hello")
	resp, err := readFinal(r)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "hello" || err != nil {
		t.Errorf("the answer is %s %q (%v)", resp.Status, body, err)
	}

	// A body that the upstream does not want is never sent, and not waited for.
	conn = dialRaw(t, g.http)
	fmt.Fprintf(conn, head, "/refuses")
	if resp, err := readFinal(bufio.NewReader(conn)); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("an upstream's refusal is answered %v (%v)", resp, err)
	}
	// One that the gateway does not want is not even asked for.
	conn = dialRaw(t, g.http)
	fmt.Fprintf(conn, head, "/nothing")
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("the gateway's refusal is answered %v (%v)", resp, err)
	}
}

// readFinal reads the answer that comes after any number of 100s: the gateway's
// own and the upstream's.
func readFinal(r *bufio.Reader) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusContinue {
			return resp, err
		}
	}
}

func TestEarlyHints(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	g.create(route{Path: "/hints", TargetURL: newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Final", "yes")
		fmt.Fprint(w, "done")
	}).URL})
	var hints []string
	a := g.send(http.MethodGet, "/hints", func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h.Get("Link"), h.Get("X-Final")))
				return nil
			},
		}))
	})
	if want := []string{"103 </a.css>; rel=preload"}; !slices.Equal(hints, want) {
		t.Errorf("the hints are %q, want %q", hints, want)
	}
	if a.status != http.StatusOK || string(a.body) != "done" || a.header.Get("X-Final") != "yes" || a.header.Get("Link") == "" {
		t.Errorf("the answer is %s %v", a, a.header)
	}
}

func TestMethodsAndStatuses(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	upstream := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Method", r.Method)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		case "/302":
			http.Redirect(w, r, "http://127.0.0.1/elsewhere", http.StatusFound)
		case "/500":
			http.Error(w, "the upstream's own words", http.StatusInternalServerError)
		default:
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "hello")
		}
	})
	g.create(route{Path: "/*", Method: "GET", TargetURL: upstream.URL})
	g.create(route{Path: "/any", Method: "*", TargetURL: upstream.URL})

	a := g.send(http.MethodHead, "/x")
	if a.status != http.StatusOK || len(a.body) != 0 || a.header.Get("Content-Length") != "5" || a.header.Get("X-Method") != "HEAD" {
		t.Errorf("HEAD answers %s %v", a, a.header)
	}
	for path, want := range map[string]int{"/204": 204, "/304": 304, "/302": 302, "/500": 500} {
		a := g.send(http.MethodGet, path)
		if a.status != want || a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s answers %s %v", path, a, a.header)
		}
		if path == "/500" && !strings.Contains(string(a.body), "the upstream's own words") {
			t.Errorf("the upstream's own error became %s", a)
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"} {
		if a := g.send(method, "/any"); a.status != http.StatusOK || a.header.Get("X-Method") != method {
			t.Errorf("%s answers %s %v", method, a, a.header)
		}
	}
	for _, method := range []string{"POST", "DELETE", "OPTIONS"} {
		if a := g.send(method, "/x"); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
			t.Errorf("%s answers %s %v", method, a, a.header)
		}
	}
}

// TestPathsAndHeaders looks at what upstreams see of requests.
func TestPathsAndHeaders(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	trusting := startGateway(t, settings{servers: "trusted_proxies static 127.0.0.1/32"})
	rec := newRecorder(t)
	upstreamHost := strings.TrimPrefix(rec.url, "http://")
	for name, c := range map[string]struct {
		trusted bool
		route   route
		send    string
		change  func(*http.Request)
		uri     string
		host    string // default: the upstream's
		header  map[string]string
	}{
		"the path is appended":        {route: route{Path: "/a/*", TargetURL: rec.url + "/base/"}, send: "/a/b/?c=d", uri: "/base/a/b/?c=d"},
		"the prefix is stripped":      {route: route{Path: "/b/c/*", TargetURL: rec.url + "/base", StripPrefix: true}, send: "/b/c/d/e", uri: "/base/d/e"},
		"all of the path is stripped": {route: route{Path: "/d/*", TargetURL: rec.url, StripPrefix: true}, send: "/d", uri: "/"},
		"a full rewrite":              {route: route{Path: "/e/{x}/{rest...}", TargetURL: rec.url + "/v2/{rest}/of/{x}"}, send: "/e/1/2/3?q", uri: "/v2/2/3/of/1?q"},
		"an encoded slash":            {route: route{Path: "/f/{x}", TargetURL: rec.url}, send: "/f/a%2fb%20c", uri: "/f/a%2Fb%20c"},
		"an encoded slash, rewritten": {route: route{Path: "/g/{x}", TargetURL: rec.url + "/h/{x}/i"}, send: "/g/a%2Fb", uri: "/h/a%2Fb/i"},
		"reserved characters":         {route: route{Path: "/j/*", TargetURL: rec.url}, send: "/j/!$&'()*+,;=:@", uri: "/j/!$&'()*+,;=:@"},
		"letters beyond ASCII":        {route: route{Path: "/k/*", TargetURL: rec.url}, send: "/k/%c3%a4", uri: "/k/%C3%A4"},
		"repeated slashes":            {route: route{Path: "/l/*", TargetURL: rec.url, MergeSlashes: true}, send: "/l//m///n", uri: "/l/m/n"},
		"the client's host":           {route: route{Path: "/m", TargetURL: rec.url, PreserveHost: true}, send: "/m", uri: "/m", change: host("shop.test:81"), host: "shop.test:81"},
		"forwarding fields": {route: route{Path: "/n", TargetURL: rec.url}, send: "/n", uri: "/n", change: host("shop.test"),
			header: map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.test"}},
		"forwarding fields of a trusted proxy": {trusted: true, route: route{Path: "/o", TargetURL: rec.url}, send: "/o", uri: "/o",
			change: func(r *http.Request) {
				r.Header = http.Header{"X-Forwarded-For": {"9.8.7.6"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"edge.test"}, "X-Real-Ip": {"9.8.7.6"}, "X-Request-Id": {"outer-1"}}
			},
			header: map[string]string{"X-Forwarded-For": "9.8.7.6, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "edge.test", "X-Real-Ip": "9.8.7.6", "X-Request-Id": "outer-1"}},
		"the client's coding": {route: route{Path: "/p", TargetURL: rec.url}, send: "/p", uri: "/p", change: header("Accept-Encoding", "br;q=0.5"),
			header: map[string]string{"Accept-Encoding": "br;q=0.5"}},
		"predicates": {route: route{Path: "/q", TargetURL: rec.url, Headers: map[string]string{"X-Env": "beta"}, Query: map[string]string{"v": "2"}}, send: "/q?v=2", uri: "/q?v=2",
			change: header("X-Env", "beta"), header: map[string]string{"X-Env": "beta"}},
	} {
		via := g
		if c.trusted {
			via = trusting
		}
		via.create(c.route)
		var changes []func(*http.Request)
		if c.change != nil {
			changes = append(changes, c.change)
		}
		a := via.send(http.MethodGet, c.send, changes...)
		got := rec.take()
		if a.status != http.StatusOK || len(got) != 1 {
			t.Errorf("%s: the answer is %s, the upstream has seen %+v", name, a, got)
			continue
		}
		want := c.host
		if want == "" {
			want = upstreamHost
		}
		if got[0].uri != c.uri || got[0].host != want {
			t.Errorf("%s: the upstream has seen %s of %s, want %s of %s", name, got[0].uri, got[0].host, c.uri, want)
		}
		if got, sent := got[0].header.Get("X-Request-Id"), a.header.Get("X-Request-Id"); got == "" || got != sent {
			t.Errorf("%s: the request id is %q at the upstream, %q at the client", name, got, sent)
		}
		for _, field := range slices.Sorted(maps.Keys(c.header)) {
			if got := got[0].header.Values(field); !slices.Equal(got, []string{c.header[field]}) {
				t.Errorf("%s: %s is %q, want %q", name, field, got, c.header[field])
			}
		}
	}
	if a := g.send(http.MethodGet, "/q?v=3", header("X-Env", "beta")); a.status != http.StatusNotFound {
		t.Errorf("a request that misses a predicate is answered %s", a)
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	text := strings.Repeat("compress me ", 1000)
	g.create(route{Path: "/text", TargetURL: newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
	}).URL, Plugins: plugins(`{"handler":"encode","encodings":{"gzip":{}}}`)})
	a := g.send(http.MethodGet, "/text", header("Accept-Encoding", "gzip"))
	if a.header.Get("Content-Encoding") != "gzip" || len(a.body) >= len(text) {
		t.Fatalf("the answer is %d bytes with %v", len(a.body), a.header)
	}
	r, err := gzip.NewReader(strings.NewReader(string(a.body)))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(r); string(plain) != text || err != nil {
		t.Errorf("the answer is not the upstream's (%v)", err)
	}
}
