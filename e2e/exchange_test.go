package e2e_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestExchanges does what HTTP can do in every version of it, on both sides.
func TestExchanges(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	large := make([]byte, 16<<20)
	_, _ = rand.Read(large)

	t.Run("large bodies", func(t *testing.T) {
		g.eachVersion(t, route{Path: "/large", Method: "POST"}, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(body)
		}, func(t *testing.T, v version, path string) {
			for _, length := range []int64{int64(len(large)), -1} {
				req, _ := v.request(t, http.MethodPost, path)
				req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(large)), length
				resp := v.do(t, req)
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, large) {
					t.Errorf("of length %d: the answer is %s with %d bytes (%v)", length, resp.Status, len(body), err)
				}
			}
		})
	})

	t.Run("trailers", func(t *testing.T) {
		g.eachVersion(t, route{Path: "/trailers", Method: "POST"}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
			_ = http.NewResponseController(w).Flush()
			w.Header().Set("X-Sum", "answered "+r.Trailer.Get("X-Sum"))
			w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
		}, func(t *testing.T, v version, path string) {
			req, _ := v.request(t, http.MethodPost, path)
			req.Body, req.ContentLength = io.NopCloser(struct{ io.Reader }{strings.NewReader("body")}), -1
			req.Trailer = http.Header{"X-Sum": {"asked"}}
			resp := v.do(t, req)
			body, err := io.ReadAll(resp.Body)
			want := "answered asked"
			if v.major == 3 {
				// quic-go sets a request's trailers anew, which the copies that Caddy's
				// server makes of the request don't see.
				want = "answered"
			}
			if err != nil || string(body) != "body" || strings.TrimSpace(resp.Trailer.Get("X-Sum")) != want || resp.Trailer.Get("X-Late") != "unannounced" {
				t.Errorf("the answer is %q with the trailers %v (%v)", body, resp.Trailer, err)
			}
		})
	})

	t.Run("early hints", func(t *testing.T) {
		// The upstream gives its answer only once the client has the hint.
		hinted := make(chan struct{})
		g.eachVersion(t, route{Path: "/hints"}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			select {
			case <-hinted:
			case <-r.Context().Done():
				return
			}
			w.Header().Set("Link", "</b.css>; rel=preload")
			fmt.Fprint(w, "done")
		}, func(t *testing.T, v version, path string) {
			req, _ := v.request(t, http.MethodGet, path)
			var got []string
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					got = append(got, fmt.Sprint(code, " ", h.Get("Link")))
					hinted <- struct{}{}
					return nil
				},
			}))
			resp := v.do(t, req)
			body, err := io.ReadAll(resp.Body)
			if want := []string{"103 </a.css>; rel=preload"}; !slices.Equal(got, want) {
				t.Errorf("the interim answers are %q, want %q", got, want)
			}
			if links := resp.Header.Values("Link"); err != nil || string(body) != "done" || !slices.Equal(links, []string{"</b.css>; rel=preload"}) {
				t.Errorf("the answer is %q with the links %q (%v)", body, links, err)
			}
		})
	})

	t.Run("an answer before the body", func(t *testing.T) {
		// Without a timeout, what waits for the body waits for ever.
		noTimeout := 0
		g.eachVersion(t, route{Path: "/early", Method: "POST", Timeout: &noTimeout}, func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 1 {
				// net/http's server would wait for the body before it answers.
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				defer conn.Close()
				say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")(conn)
				silence(conn)
				return
			}
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "no")
		}, func(t *testing.T, v version, path string) {
			for _, begin := range []string{"", "it begins, and does not end"} {
				req, _ := v.request(t, http.MethodPost, path)
				in, out := io.Pipe()
				defer out.Close()
				if begin != "" {
					go func() { _, _ = io.WriteString(out, begin) }()
				}
				req.Body, req.ContentLength = in, -1
				resp := v.do(t, req)
				if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusForbidden || string(body) != "no" || err != nil {
					t.Errorf("after the body's begin %q the answer is %s %q (%v)", begin, resp.Status, body, err)
				}
			}
			next, _ := v.request(t, http.MethodPost, path)
			if resp := v.do(t, next); resp.StatusCode != http.StatusForbidden {
				t.Errorf("the next answer is %s", resp.Status)
			}
		})
	})

	t.Run("both ways at once", func(t *testing.T) {
		// Only HTTP/2 and 3 are made for this: the answer begins while the body is sent.
		g.eachVersion(t, route{Path: "/duplex", Method: "POST"}, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			_ = control.EnableFullDuplex()
			_ = control.Flush()
			lines := bufio.NewScanner(r.Body)
			for lines.Scan() {
				fmt.Fprintln(w, "heard", lines.Text())
				_ = control.Flush()
			}
		}, func(t *testing.T, v version, path string) {
			if v.major == 1 || strings.HasSuffix(path, "http1") {
				t.Skip("net/http's server stops reading a body of HTTP/1 once it answers")
			}
			req, _ := v.request(t, http.MethodPost, path)
			in, out := io.Pipe()
			req.Body, req.ContentLength = in, -1
			resp := v.do(t, req)
			lines := bufio.NewScanner(resp.Body)
			for i := range 5 {
				fmt.Fprintln(out, i)
				if !lines.Scan() || lines.Text() != fmt.Sprint("heard ", i) {
					t.Fatalf("line %d is answered %q (%v)", i, lines.Text(), lines.Err())
				}
			}
			out.Close()
			if lines.Scan() || lines.Err() != nil {
				t.Errorf("after the end there comes %q (%v)", lines.Text(), lines.Err())
			}
		})
	})

	t.Run("no bodies", func(t *testing.T) {
		g.eachVersion(t, route{Path: "/bodiless", Method: "GET"}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"x"`)
			switch r.URL.RawQuery {
			case "204":
				w.WriteHeader(http.StatusNoContent)
			case "304":
				w.WriteHeader(http.StatusNotModified)
			default:
				w.Header().Set("Content-Length", "5")
				_, _ = io.WriteString(w, "hello")
			}
		}, func(t *testing.T, v version, path string) {
			for _, c := range []struct {
				method, query string
				status        int
				length        int64
			}{{"HEAD", "", 200, 5}, {"GET", "204", 204, 0}, {"GET", "304", 304, 0}, {"HEAD", "304", 304, 0}, {"GET", "", 200, 5}} {
				req, _ := v.request(t, c.method, path+"?"+c.query)
				resp := v.do(t, req)
				body, err := io.ReadAll(resp.Body)
				if want := c.method == "GET" && c.status == 200; err != nil || resp.StatusCode != c.status || (len(body) > 0) != want || resp.Header.Get("Etag") != `"x"` {
					t.Errorf("%s %s: the answer is %s %q %v (%v)", c.method, c.query, resp.Status, body, resp.Header, err)
				}
				if c.status == 200 && resp.ContentLength != c.length {
					t.Errorf("%s: the length is %d, want %d", c.method, resp.ContentLength, c.length)
				}
			}
		})
	})
}

// TestEventsOneByOne has the upstream write an event only once the client has read
// the one before, with and without compression on the way.
func TestEventsOneByOne(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	for name, c := range map[string]struct {
		plugins []string
		accept  string
	}{
		"plain":                     {nil, ""},
		"plain, compression asked":  {nil, "gzip"},
		"encode, none asked":        {[]string{`{"handler":"encode","encodings":{"gzip":{}}}`}, "identity"},
		"encode":                    {[]string{`{"handler":"encode","encodings":{"gzip":{}}}`}, "gzip"},
		"encode every content type": {[]string{`{"handler":"encode","encodings":{"gzip":{},"zstd":{}},"minimum_length":1,"match":{"headers":{"Content-Type":["*"]}}}`}, "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			read := make(chan struct{})
			r := route{Path: "/events/" + strings.NewReplacer(" ", "-", ",", "").Replace(name)}
			if c.plugins != nil {
				r.Plugins = plugins(c.plugins...)
			}
			g.eachVersion(t, r, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for i := range 20 {
					// Of different lengths, around those at which encoders begin.
					fmt.Fprintf(w, "data: %d %s\n\n", i, strings.Repeat("x", i*60))
					_ = http.NewResponseController(w).Flush()
					select {
					case <-read:
					case <-r.Context().Done():
						return
					}
				}
			}, func(t *testing.T, v version, path string) {
				req, _ := v.request(t, http.MethodGet, path)
				if c.accept != "" {
					req.Header.Set("Accept-Encoding", c.accept)
				}
				resp := v.do(t, req)
				var body io.Reader = resp.Body
				if resp.Header.Get("Content-Encoding") == "gzip" {
					unzipped, err := gzip.NewReader(resp.Body)
					if err != nil {
						t.Fatal(err)
					}
					body = unzipped
				}
				if strings.HasPrefix(name, "encode every") && body == io.Reader(resp.Body) {
					t.Errorf("the events are not compressed: %v", resp.Header)
				}
				lines := bufio.NewScanner(body)
				for i := range 20 {
					if !lines.Scan() || !strings.HasPrefix(lines.Text(), fmt.Sprintf("data: %d ", i)) {
						t.Fatalf("event %d is %q (%v)", i, lines.Text(), lines.Err())
					}
					lines.Scan()
					read <- struct{}{}
				}
				if lines.Scan() || lines.Err() != nil {
					t.Errorf("after the last event there comes %q (%v)", lines.Text(), lines.Err())
				}
			})
		})
	}
}

// TestLeavingCancels has clients of every version leave at every stage: the
// upstream must hear of it, by what it waits for.
func TestLeavingCancels(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	entered, left := make(chan struct{}), make(chan error, 1)
	g.eachVersion(t, route{Path: "/leave", Method: "GET,POST"}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "body" {
			_, err := io.ReadFull(r.Body, make([]byte, 5))
			entered <- struct{}{}
			if err == nil {
				_, err = io.ReadAll(r.Body)
			}
			left <- err
			return
		}
		if r.URL.RawQuery == "answer" {
			fmt.Fprint(w, "begun")
			_ = http.NewResponseController(w).Flush()
		}
		entered <- struct{}{}
		<-r.Context().Done()
		left <- r.Context().Err()
	}, func(t *testing.T, v version, path string) {
		for _, stage := range []string{"wait", "answer", "body"} {
			t.Run(stage, func(t *testing.T) {
				method := http.MethodGet
				if stage == "body" {
					method = http.MethodPost
				}
				req, cancel := v.request(t, method, path+"?"+stage)
				in, out := io.Pipe()
				if stage == "body" {
					req.Body, req.ContentLength = in, -1
					go func() { _, _ = out.Write([]byte("begun")) }()
				}
				ended := make(chan error, 1)
				answered := make(chan struct{})
				go func() {
					resp, err := v.client.Do(req)
					if err == nil {
						close(answered)
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					ended <- err
				}()
				await(t, entered, "the request has come to the upstream")
				if stage == "answer" {
					await(t, answered, "the answer has begun")
				}
				cancel()
				if err := await(t, left, "the upstream is told that the client has left"); err == nil {
					t.Error("to the upstream the body looks whole")
				}
				_ = out.CloseWithError(context.Canceled)
				if err := await(t, ended, "the client has left"); err == nil {
					t.Error("the client has read a whole answer")
				}
			})
		}
	})
}

// TestSlowReadersHoldTheWriter shows that nothing on the way buffers without
// bound: a peer that stops reading stops the other one from writing.
func TestSlowReadersHoldTheWriter(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	const size, most = 1 << 30, 128 << 20
	noTimeout := 0
	var written atomic.Int64
	resume := make(chan struct{})
	chunk := make([]byte, 64<<10)
	// stalls waits until the number has stopped growing, and gives up at the end
	// of what is to be written.
	stalls := func(t *testing.T, n *atomic.Int64) int64 {
		t.Helper()
		last, same := int64(-1), 0
		for deadline := time.Now().Add(startTimeout); same < 25; time.Sleep(pollInterval) {
			now := n.Load()
			if now != last || now == 0 {
				last, same = now, 0
			} else {
				same++
			}
			if time.Now().After(deadline) {
				t.Fatalf("after %d bytes it still goes on", now)
			}
		}
		return last
	}
	g.eachVersion(t, route{Path: "/slow", Method: "GET,POST", Timeout: &noTimeout}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = r.Body.Read(make([]byte, 1))
			select {
			case <-resume:
			case <-r.Context().Done():
			}
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n+1, err)
			return
		}
		for range size / len(chunk) {
			n, err := w.Write(chunk)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}, func(t *testing.T, v version, path string) {
		t.Run("download", func(t *testing.T) {
			written.Store(0)
			req, cancel := v.request(t, http.MethodGet, path)
			resp := v.do(t, req)
			if n := stalls(t, &written); n > most {
				t.Errorf("the upstream has written %d bytes that nobody has read", n)
			}
			// And it goes on when the client does.
			stalled := written.Load()
			if _, err := io.CopyN(io.Discard, resp.Body, stalled+most); err != nil {
				t.Errorf("reading on: %v", err)
			}
			cancel()
		})
		t.Run("upload", func(t *testing.T) {
			var sent atomic.Int64
			req, cancel := v.request(t, http.MethodPost, path)
			defer cancel()
			req.Body, req.ContentLength = io.NopCloser(&countingReader{io.LimitReader(zeros{}, most*2), &sent}), -1
			answer := make(chan string, 1)
			go func() {
				resp, err := v.client.Do(req)
				if err != nil {
					answer <- err.Error()
					return
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				answer <- string(body)
			}()
			if n := stalls(t, &sent); n > most {
				t.Errorf("the client has sent %d bytes that nobody has read", n)
			}
			resume <- struct{}{}
			if got := await(t, answer, "the upload is done"); got != fmt.Sprint(most*2, " <nil>") {
				t.Errorf("the upstream has read %s", got)
			}
		})
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

func TestAltSvc(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	g.create(route{Path: "/x", TargetURL: textUpstream(t, "x")})
	for _, v := range g.versions() {
		req, _ := v.request(t, http.MethodGet, "/x")
		got := v.do(t, req).Header.Get("Alt-Svc")
		if want := fmt.Sprintf(`h3=":%s"`, port(g.https)); v.major == 2 && !strings.Contains(got, want) {
			t.Errorf("over %s Alt-Svc is %q, want %q", v.name, got, want)
		}
	}
	// An error of the gateway looks the same in all of them.
	for _, v := range g.versions() {
		req, _ := v.request(t, http.MethodGet, "/nothing")
		resp := v.do(t, req)
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		wantProblem(t, answer{resp.StatusCode, resp.Header, body}, http.StatusNotFound)
	}
}
