package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// chunked sets a request's body without declaring its length.
func chunked(text string) func(*http.Request) {
	return func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(text))
		r.ContentLength = -1
	}
}

func TestBodyMax(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{options: "body_max 10B", sites: tlsSite})
	rec := newRecorder(t)
	byDefault := g.create(route{Path: "/default", Method: "*", TargetURL: rec.url})
	g.create(route{Path: "/own", Method: "*", TargetURL: rec.url, Limits: map[string]any{"body_max": 20}})
	g.create(route{Path: "/none", Method: "*", TargetURL: rec.url, Limits: map[string]any{"body_max": -1}})
	g.create(route{Path: "/plugin", Method: "*", TargetURL: rec.url, Plugins: plugins(`{"handler":"request_body","max_size":5}`)})
	g.waitCertificate("localhost")
	secure := g.secureClient("localhost")

	send := func(client *http.Client, base, path string, body func(*http.Request)) answer {
		t.Helper()
		a, err := (&gateway{t: t, http: base, client: client}).trySend(http.MethodPut, path, body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return a
	}
	for name, c := range map[string]func(path string, body func(*http.Request)) answer{
		"HTTP/1.1": func(path string, body func(*http.Request)) answer { return send(g.client, g.http, path, body) },
		"HTTP/2": func(path string, body func(*http.Request)) answer {
			return send(secure, "localhost:"+port(g.https), path, func(r *http.Request) {
				body(r)
				r.URL.Scheme, r.URL.Host = "https", g.https
				r.Host = "localhost"
			})
		},
	} {
		for _, tt := range []struct {
			path    string
			length  int
			allowed bool
			says    string
		}{
			{"/default", 0, true, ""},
			{"/default", 10, true, ""},
			{"/default", 11, false, "10 bytes"},
			{"/default", 300_000, false, "10 bytes"},
			{"/own", 20, true, ""},
			{"/own", 21, false, "20 bytes"},
			{"/none", 300_000, true, ""},
			{"/plugin", 5, true, ""},
			{"/plugin", 6, false, ""},
		} {
			text := strings.Repeat("x", tt.length)
			for framing, body := range map[string]func(string) func(*http.Request){"declared": payload, "not declared": chunked} {
				a := c(tt.path, body(text))
				got := rec.take()
				what := fmt.Sprintf("%s: %d bytes, %s, to %s", name, tt.length, framing, tt.path)
				if tt.allowed {
					if a.status != http.StatusOK || len(got) != 1 || got[0].body != text {
						t.Errorf("%s are answered %s, the upstream has seen %d requests", what, a, len(got))
					}
					continue
				}
				if p := wantProblem(t, a, http.StatusRequestEntityTooLarge); !strings.Contains(p.Detail, tt.says) {
					t.Errorf("%s: the problem is %+v", what, p)
				}
				if len(got) > 0 {
					t.Errorf("%s: the upstream has taken %+v for a request", what, got)
				}
			}
		}
	}

	// The default is the configuration's, so a reload changes it.
	set := g.set
	set.options = "body_max 1KiB"
	g.configure(set)
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	g.waitReady()
	if a := g.send(http.MethodPut, "/default", chunked(strings.Repeat("x", 1024))); a.status != http.StatusOK {
		t.Errorf("after a reload with a higher bound: %s", a)
	}
	wantProblem(t, g.send(http.MethodPut, "/default", payload(strings.Repeat("x", 1025))), http.StatusRequestEntityTooLarge)
	g.patch(byDefault.ID, map[string]any{"limits": map[string]any{"body_max": -1}})
	if a := g.send(http.MethodPut, "/default", payload(strings.Repeat("x", 2000))); a.status != http.StatusOK {
		t.Errorf("without a bound: %s", a)
	}
}

// TestCutBodyBreaksTheUpstreamOff has upstreams of both kinds read a body that is
// cut: none may see its end, and a declared one may see no byte of it.
func TestCutBodyBreaksTheUpstreamOff(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	const most = 100_000
	limits := map[string]any{"body_max": most}

	raw := make(chan string, 1)
	address := rawUpstream(t, func(conn net.Conn) {
		all, _ := io.ReadAll(conn)
		raw <- string(all)
	})
	g.create(route{Path: "/raw", Method: "PUT", TargetURL: "http://" + address, Limits: limits})
	wantProblem(t, g.send(http.MethodPut, "/raw", payload(strings.Repeat("x", most+1))), http.StatusRequestEntityTooLarge)
	select {
	case got := <-raw:
		t.Errorf("of a body that declares too much the upstream has seen %.300q", got)
	default:
	}
	wantProblem(t, g.send(http.MethodPut, "/raw", chunked(strings.Repeat("x", most+1))), http.StatusRequestEntityTooLarge)
	got := await(t, raw, "the upstream's connection ends")
	if n := strings.Count(got, "x"); n > most+10 || strings.HasSuffix(got, "0\r\n\r\n") || !strings.Contains(got, "chunked") {
		t.Errorf("the upstream has seen %d bytes of %d, that end with %q", n, most, got[max(0, len(got)-20):])
	}

	type reading struct {
		n   int64
		err error
	}
	readings := make(chan reading, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/answers" {
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
		}
		n, err := io.Copy(io.Discard, r.Body)
		readings <- reading{n, err}
	}
	unencrypted := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	unencrypted.Config.Protocols = new(http.Protocols)
	unencrypted.Config.Protocols.SetUnencryptedHTTP2(true)
	unencrypted.Config.Protocols.SetHTTP1(true)
	unencrypted.Start()
	t.Cleanup(unencrypted.Close)
	host := strings.TrimPrefix(unencrypted.URL, "http://")
	for _, scheme := range []string{"http", "h2c"} {
		g.create(route{Host: scheme + ".test", Path: "/*", Method: "PUT", TargetURL: scheme + "://" + host, Limits: limits})
		asked := func(r *http.Request) { r.Host = scheme + ".test" }

		wantProblem(t, g.send(http.MethodPut, "/reads", asked, chunked(strings.Repeat("x", 2*most))), http.StatusRequestEntityTooLarge)
		if got := await(t, readings, "the upstream has read"); got.err == nil || got.n > most {
			t.Errorf("%s: the upstream has read %d bytes and %v", scheme, got.n, got.err)
		}

		// Once the answer has begun it is broken off.
		in, out := io.Pipe()
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		// The client waits for its body to be read, also when it has given up.
		defer context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })()
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+g.http+"/answers", in)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = scheme + ".test"
		go func() { _, _ = out.Write([]byte("x")) }()
		resp, err := g.client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		begun := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, begun); err != nil || string(begun) != "begun" || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: the answer begins with %q, %v", scheme, begun, err)
		}
		go func() {
			_, err := out.Write(bytes.Repeat([]byte("x"), 2*most))
			out.CloseWithError(err)
		}()
		if got := await(t, readings, "the upstream has read"); got.err == nil || got.n > most {
			t.Errorf("%s: in an answer the upstream has read %d bytes and %v", scheme, got.n, got.err)
		}
		if rest, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: the answer looks whole, with %q", scheme, rest)
		}
		resp.Body.Close()
		in.Close()
	}
}

// TestBodyMaxExpect has a client ask whether to send its body.
func TestBodyMaxExpect(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]string{
		"default options":   "",
		"no body idle time": "timeouts {\n read_body_idle -1s\n }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, settings{servers: servers})
			rec := newRecorder(t)
			g.create(route{Path: "/x", Method: "POST", TargetURL: rec.url, Limits: map[string]any{"body_max": 4}})
			const head = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"

			conn := dialRaw(t, g.http)
			fmt.Fprintf(conn, head, 5)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
				t.Fatalf("a body that is too large is answered %v, %v", resp, err)
			}
			if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(rest, []byte("4 bytes")) {
				t.Errorf("the problem is %q, %v", rest, err)
			}
			// What the client sends nevertheless is no request.
			fmt.Fprint(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
			if more, err := io.ReadAll(conn); len(more) > 0 || isTimeout(err) {
				t.Errorf("after it there comes %q, %v", more, err)
			}

			conn = dialRaw(t, g.http)
			fmt.Fprintf(conn, head, 4)
			r := bufio.NewReader(conn)
			if interim, err := readHead(r); err != nil || !strings.HasPrefix(interim, "HTTP/1.1 100 ") {
				t.Fatalf("before a body that is allowed there comes %q, %v", interim, err)
			}
			fmt.Fprint(conn, "1234")
			if resp, err := readFinal(r); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("a body that is allowed is answered %v, %v", resp, err)
			}
			if got := rec.take(); len(got) != 1 || got[0].body != "1234" {
				t.Errorf("the upstream has seen %+v", got)
			}
		})
	}
}

// TestCutBodyIsNoRequest hides requests in bodies that are cut, at every
// alignment: a connection whose body was not read to its end must not carry
// another request.
func TestCutBodyIsNoRequest(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]string{
		"default options":   "",
		"no body idle time": "timeouts {\n read_body_idle -1s\n }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAttack(t, servers)
			reading := newUpstream(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }).URL
			for path, most := range map[string]int{"/cut-early": 10, "/cut-late": attackSize - 100_000} {
				a.g.create(route{Path: path, Method: "*", TargetURL: reading, Limits: map[string]any{"body_max": most}})
				for framing, frame := range framings {
					t.Run(path[1:]+", "+framing, func(t *testing.T) {
						var wg sync.WaitGroup
						for shift := range len(hidden) {
							wg.Go(func() { a.try(t, path, shift, frame) })
							if shift%8 == 7 {
								wg.Wait()
							}
						}
						wg.Wait()
					})
				}
			}
			for framing, frame := range framings {
				// A connection that ends well takes no answer away. A machine may be so
				// busy that its client comes too late for that, but not every time.
				var err error
				for try := range 5 {
					if err = a.tooLarge(t, frame, attackBody(0)); err == nil {
						break
					}
					t.Logf("%s, try %d: %v", framing, try, err)
				}
				if err != nil {
					t.Errorf("%s: the connection never ends well, but with %v", framing, err)
				}
			}
			// Even a body of which little is left ends its connection.
			_ = a.tooLarge(t, framings["one chunk"], []byte("12345678901"))
			_ = a.tooLarge(t, framings["chunks"], attackBody(0)[:8192])
		})
	}
}

// tooLarge sends a body that is cut, and a request after it. It checks that the
// client finds the 413 and nothing more, and returns how the connection ends.
func (a *attack) tooLarge(t *testing.T, frame func([]byte) (string, []byte), content []byte) error {
	t.Helper()
	head, body := frame(content)
	conn := dialRaw(t, a.g.http)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = fmt.Fprintf(conn, "PUT /cut-early HTTP/1.1\r\nHost: x\r\n%s\r\n", head)
		_, _ = conn.Write(body)
		_, _ = io.WriteString(conn, hidden)
	}()
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close || !bytes.Contains(text, []byte("10 bytes")) || err != nil {
		t.Errorf("the answer is %s %q, %v, closes: %v", resp.Status, text, err, resp.Close)
	}
	rest, err := io.ReadAll(r)
	if len(rest) > 0 || isTimeout(err) {
		t.Errorf("after the answer there comes %.200q, %v", rest, err)
	}
	conn.Close()
	<-sent
	a.check(t, 0, nil)
	return err
}
