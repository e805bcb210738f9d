package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// scripted is an upstream that answers with the text as soon as it has a request's
// header, and does so for as many requests as the connection carries. A connection
// out of step fails the test.
func scripted(t *testing.T, answer string) (target string) {
	t.Helper()
	return "http://" + rawUpstream(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
				return
			}
			if err != nil || req.URL.Path == "/hidden" {
				t.Errorf("the upstream was sent what is no request, or was hidden in one: %v", err)
				return
			}
			say(answer)(conn)
			// Whoever does not close the connection must read the body (RFC 9110, 10.1.1).
			if _, err := io.Copy(io.Discard, req.Body); err != nil || strings.Contains(answer, "Connection: close") {
				return
			}
		}
	})
}

// TestInterimAnswers has the upstream send every kind of interim answer.
func TestInterimAnswers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	const final = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Final: yes\r\n\r\ndone"
	for name, c := range map[string]struct {
		interim string
		want    []string // without 100s, which say nothing
	}{
		"100":                {"HTTP/1.1 100 Continue\r\n\r\n", nil},
		"102":                {"HTTP/1.1 102 Processing\r\n\r\n", []string{"102 "}},
		"103":                {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", []string{"103 </a>"}},
		"all, and 103 twice": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n", []string{"102 ", "103 </a>", "103 </b>"}},
		"an unknown one":     {"HTTP/1.1 199 Whatever\r\nX-A: b\r\n\r\n", []string{"199 "}},
	} {
		path := "/interim/" + strings.NewReplacer(" ", "-", ",", "").Replace(name)
		g.create(route{Path: path, TargetURL: scripted(t, c.interim+final)})
		for _, v := range g.versions() {
			t.Run(name+" to "+v.name, func(t *testing.T) {
				// The connection is in step afterwards, so it is done twice.
				for range 2 {
					req, _ := v.request(t, http.MethodGet, path)
					var got []string
					req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
							if code != http.StatusContinue {
								got = append(got, fmt.Sprint(code, " ", h.Get("Link")))
							}
							return nil
						},
					}))
					resp := v.do(t, req)
					body, err := io.ReadAll(resp.Body)
					if !slices.Equal(got, c.want) {
						t.Errorf("the interim answers are %q, want %q", got, c.want)
					}
					if err != nil || resp.StatusCode != http.StatusOK || string(body) != "done" || resp.Header.Get("X-Final") != "yes" || resp.Header.Get("Link") != "" {
						t.Errorf("the answer is %s %q %v (%v)", resp.Status, body, resp.Header, err)
					}
				}
			})
		}
		t.Run(name+" to HTTP/1.0", func(t *testing.T) {
			// Such a client knows no interim answers and would take one for the answer
			// (RFC 9110, 15.2).
			conn := dialRaw(t, g.http)
			fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: x\r\n\r\n", path)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != "done" {
				t.Errorf("the answer is %s %q (%v)", resp.Status, body, err)
			}
		})
	}
}

// TestUnwantedBodies has the upstream send bodies where an answer has none.
func TestUnwantedBodies(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	for name, c := range map[string]struct {
		method, answer, want string
	}{
		"HEAD":            {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 200 OK"},
		"HEAD, chunked":   {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 200 OK"},
		"204":             {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 204 No Content"},
		"204 to a DELETE": {"DELETE", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 204 No Content"},
		"304":             {"GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 304 Not Modified"},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/unwanted/" + strings.NewReplacer(" ", "-", ",", "").Replace(name)
			g.create(route{Path: path, Method: "*", TargetURL: scripted(t, c.answer)})
			g.create(route{Path: path + "/next", TargetURL: textUpstream(t, "next")})
			conn := dialRaw(t, g.http)
			r := bufio.NewReader(conn)
			fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\n\r\nGET %s/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", c.method, path, path)
			head, err := readHead(r)
			if err != nil || !strings.HasPrefix(head, c.want) {
				t.Fatalf("the answer is %q (%v)", head, err)
			}
			if strings.Contains(c.want, " 204 ") && (strings.Contains(head, "Content-Length") || strings.Contains(head, "Transfer-Encoding")) {
				t.Errorf("a 204 announces a body (RFC 9110, 8.6; RFC 9112, 6.1): %q", head)
			}
			// Whatever comes next is the next answer.
			if next, err := io.ReadAll(r); err != nil || !strings.HasPrefix(string(next), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(next), "\r\n\r\nnext") {
				t.Errorf("after the answer there comes %q (%v)", next, err)
			}
		})
	}
}

// TestExpectations asks before it sends a body, or does not wait for the answer to
// that, from upstreams that want the body and that don't.
func TestExpectations(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	var smuggled atomic.Int64
	reads := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "read %s %v", body, err)
	}
	refuses := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "no")
	}
	g.create(route{Path: "/reads/http1", Method: "*", TargetURL: newUpstream(t, reads).URL})
	g.create(route{Path: "/reads/h2c", Method: "*", TargetURL: newUnencrypted(t, reads)})
	g.create(route{Path: "/refuses/http1", Method: "*", TargetURL: newUpstream(t, refuses).URL})
	g.create(route{Path: "/refuses/h2c", Method: "*", TargetURL: newUnencrypted(t, refuses)})
	g.create(route{Path: "/refuses/417", Method: "*", TargetURL: scripted(t, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")})
	g.create(route{Path: "/refuses/403", Method: "*", TargetURL: scripted(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")})
	g.create(route{Path: "/refuses/closing", Method: "*", TargetURL: scripted(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")})
	g.create(route{Path: "/refuses/chunked", Method: "*", TargetURL: scripted(t, "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")})
	g.create(route{Path: "/hidden", TargetURL: newUpstream(t, func(http.ResponseWriter, *http.Request) { smuggled.Add(1) }).URL})

	bodies := map[string]string{"with a length": "Content-Length: %d\r\n\r\n", "chunked": "Transfer-Encoding: chunked\r\n\r\n"}
	frame := func(name, body string) string {
		if name == "chunked" {
			return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		}
		return body
	}
	begin := func(path, name, body string) string {
		format := bodies[name]
		if name != "chunked" {
			format = fmt.Sprintf(format, len(body))
		}
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + format
	}
	for name := range bodies {
		for _, upstream := range []string{"http1", "h2c"} {
			t.Run("accepted by "+upstream+", "+name, func(t *testing.T) {
				t.Parallel()
				conn := dialRaw(t, g.http)
				r := bufio.NewReader(conn)
				for i := range 3 {
					body := fmt.Sprint("body ", i)
					fmt.Fprint(conn, begin("/reads/"+upstream, name, body))
					if head, err := readHead(r); err != nil || !strings.HasPrefix(head, "HTTP/1.1 100 ") {
						t.Fatalf("before the body there comes %q (%v)", head, err)
					}
					fmt.Fprint(conn, frame(name, body))
					resp, err := readFinal(r)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(got) != "read "+body+" <nil>" || err != nil {
						t.Errorf("the answer is %s %q (%v)", resp.Status, got, err)
					}
				}
			})
			t.Run("accepted by "+upstream+" from a client that does not wait, "+name, func(t *testing.T) {
				t.Parallel()
				conn := dialRaw(t, g.http)
				r := bufio.NewReader(conn)
				for i := range 3 {
					body := fmt.Sprint("body ", i)
					fmt.Fprint(conn, begin("/reads/"+upstream, name, body)+frame(name, body))
					resp, err := readFinal(r)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || string(got) != "read "+body+" <nil>" || err != nil {
						t.Errorf("the answer is %s %q (%v)", resp.Status, got, err)
					}
				}
			})
		}
		for _, upstream := range []string{"http1", "h2c", "417", "403", "closing", "chunked"} {
			for _, waits := range []bool{true, false} {
				t.Run(fmt.Sprintf("refused by %s, waits %v, %s", upstream, waits, name), func(t *testing.T) {
					t.Parallel()
					const rounds = 5 // the upstream's connections, too, stay in step
					asked := 0
					for range rounds {
						conn := dialRaw(t, g.http)
						r := bufio.NewReader(conn)
						// A body that a connection out of step would take for requests.
						body := strings.Repeat("GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n", 3)
						text := begin("/refuses/"+upstream, name, body)
						if !waits {
							text += frame(name, body)
						}
						fmt.Fprint(conn, text)
						if waits {
							if next, _ := r.Peek(len("HTTP/1.1 100")); string(next) == "HTTP/1.1 100" {
								asked++
							}
						}
						resp, err := readFinal(r)
						if err != nil {
							t.Fatal(err)
						}
						checkRefusal(t, resp)
						if waits && !resp.Close && asked > 0 {
							continue
						}
						// Either the connection ends, or it carries further requests. The
						// client that was refused sends no body.
						if _, err := fmt.Fprint(conn, "GET /reads/http1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
							continue
						}
						rest, err := io.ReadAll(r)
						if isTimeout(err) || len(rest) > 0 && (!strings.HasPrefix(string(rest), "HTTP/1.1 200 OK\r\n") || strings.Count(string(rest), "HTTP/1.1 ") != 1) {
							t.Errorf("after the refusal there comes %q (%v)", rest, err)
						}
					}
					// An upstream that refuses and keeps its connection is sent the body all the
					// same by Go's transport, which may ask for it. That it is asked for once may
					// be due to a machine so busy that the upstream took too long.
					if upstream == "closing" && asked == rounds {
						t.Error("the body that the upstream refuses was asked for")
					}
				})
			}
		}
	}
	t.Cleanup(func() {
		if n := smuggled.Load(); n > 0 {
			t.Errorf("%d hidden requests were carried out", n)
		}
	})
}

func checkRefusal(t *testing.T, resp *http.Response) {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusExpectationFailed || string(body) != "no" || err != nil {
		t.Errorf("the answer is %s %q (%v)", resp.Status, body, err)
	}
}

// TestEarlyAnswerEndsTheConnection has a client begin a body and fall silent, and
// an upstream, or a plugin, that answers without it.
func TestEarlyAnswerEndsTheConnection(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{options: "plugins static_response"})
	noTimeout, two := 0, 2
	scriptedNo := scripted(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	unencryptedNo := newUnencrypted(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "no")
	})
	for name, target := range map[string]string{
		"http1": scriptedNo, "h2c": unencryptedNo, "plugin": textUpstream(t, "never asked"),
		// Bodies that may be sent again go another way.
		"http1-retried": scriptedNo, "h2c-retried": unencryptedNo,
	} {
		r := route{Path: "/" + name, Method: "POST", TargetURL: target, Timeout: &noTimeout}
		if name == "plugin" {
			r.Plugins = plugins(`{"handler":"static_response","status_code":403,"body":"no"}`)
		}
		if strings.HasSuffix(name, "-retried") {
			r.Upstream = &upstreamSettings{
				Retries: &two, Health: map[string]any{"passive": map[string]any{}}, CircuitBreaker: map[string]any{},
			}
		}
		g.create(r)
		for _, framing := range []string{
			"Content-Length: 100\r\n\r\n", "Content-Length: 100\r\n\r\nbegun",
			"Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
		} {
			t.Run(fmt.Sprintf("%s, %q", name, framing), func(t *testing.T) {
				t.Parallel()
				conn := dialRaw(t, g.http)
				r := bufio.NewReader(conn)
				fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: x\r\n%s", name, framing)
				resp, err := readFinal(r)
				if err != nil {
					t.Fatal(err)
				}
				checkRefusal(t, resp)
				if rest, err := io.ReadAll(r); isTimeout(err) || len(rest) > 0 {
					t.Errorf("after the answer there comes %q (%v)", rest, err)
				}
			})
		}
	}
}
