package isekai_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// lateReader is a plugin behind which a body is read only once the answer has
// begun.
type lateReader struct{}

func init() { caddy.RegisterModule(lateReader{}) }

func (lateReader) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_late_reader", New: func() caddy.Module { return new(lateReader) }}
}

func (lateReader) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	late := &lateBody{ReadCloser: r.Body, answered: make(chan struct{}), canceled: r.Context().Done()}
	r.Body = late
	return next.ServeHTTP(&lateAnswer{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, body: late}, r)
}

type lateBody struct {
	io.ReadCloser
	answered chan struct{}
	canceled <-chan struct{}
}

func (b *lateBody) Read(p []byte) (int, error) {
	select {
	case <-b.answered:
	case <-b.canceled:
	}
	return b.ReadCloser.Read(p)
}

type lateAnswer struct {
	caddyhttp.ResponseWriterWrapper
	body *lateBody
	once sync.Once
}

func (w *lateAnswer) WriteHeader(status int) {
	w.ResponseWriterWrapper.WriteHeader(status)
	w.once.Do(func() { close(w.body.answered) })
}

// TestAnswerBeforeTheBodyIsRead has upstreams answer as soon as they have the
// header, before the transport reads any of the body, and then read it. The
// client sends it only once it has the answer.
func TestAnswerBeforeTheBodyIsRead(t *testing.T) {
	s := start(t, func(cfg map[string]any) { isekaiApp(cfg)["plugins"] = []string{"test_late_reader"} })
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		controller := http.NewResponseController(w)
		_ = controller.EnableFullDuplex() // HTTP/2 always is
		w.WriteHeader(http.StatusOK)
		_ = controller.Flush()
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}))
	upstream.Config.Protocols = new(http.Protocols)
	upstream.Config.Protocols.SetHTTP1(true)
	upstream.Config.Protocols.SetUnencryptedHTTP2(true)
	upstream.Start()
	t.Cleanup(upstream.Close)
	host := strings.TrimPrefix(upstream.URL, "http://")
	body := strings.Repeat("x", 100_000)
	for _, scheme := range []string{"http", "h2c"} {
		s.create(route{
			"path": "/" + scheme, "method": "PUT", "target_url": scheme + "://" + host, "timeout": 10,
			"plugins": []any{map[string]any{"handler": "test_late_reader"}},
		})
		if got, err := s.sendAfterAnswer("/"+scheme, body); err != nil || got != fmt.Sprint(len(body), nil) {
			t.Errorf("%s: the upstream has read %q (%v)", scheme, got, err)
		}
	}
}

// TestConnectionsAreKept is the other side: what has no body, or one that the
// upstream reads before it answers, leaves its connection for the next request.
func TestConnectionsAreKept(t *testing.T) {
	s := start(t, nil)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}))
	t.Cleanup(upstream.Close)
	s.create(route{"path": "/*", "method": "*", "target_url": upstream.URL})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	answers := bufio.NewReader(conn)
	for _, request := range []string{
		"GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE /x HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
		"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("%q: %v", request, err)
		}
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK || res.Close || err != nil {
			t.Fatalf("%q: %s %q, closes: %v (%v)", request, res.Status, body, res.Close, err)
		}
	}
}

// sendAfterAnswer sends a request whose body waits for the answer's header, and
// returns the answer's body.
func (s *server) sendAfterAnswer(path, body string) (string, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.site, "http://"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", path)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	fmt.Fprintf(conn, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	answer, err := io.ReadAll(res.Body)
	return string(answer), err
}

// panickingReader is a plugin behind which nobody can read a body.
type panickingReader struct{}

func init() { caddy.RegisterModule(panickingReader{}) }

func (panickingReader) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_panicking_reader", New: func() caddy.Module { return new(panickingReader) }}
}

func (panickingReader) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	r.Body = panickingBody{r.Body}
	return next.ServeHTTP(w, r)
}

type panickingBody struct{ io.ReadCloser }

func (panickingBody) Read([]byte) (int, error) { panic("no body") }

// TestPanickingReader has the body read by goroutines on which a panic would end the process.
func TestPanickingReader(t *testing.T) {
	s, upstream := start(t, func(cfg map[string]any) { isekaiApp(cfg)["plugins"] = []string{"test_panicking_reader"} }), echo(t)
	s.create(route{"path": "/x", "method": "POST", "target_url": upstream.URL, "plugins": []any{route{"handler": "test_panicking_reader"}}})
	for name, body := range map[string]io.Reader{"fast lane": strings.NewReader("body"), "full lane": io.MultiReader(strings.NewReader("body"))} {
		res, err := s.client.Post(s.site+"/x", "text/plain", body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusInternalServerError {
			t.Errorf("%s: status %d", name, res.StatusCode)
		}
	}
}
