package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/proxy"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// What Caddy and certmagic leave behind after their own stop.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"))
}

// received is a request as a server got it.
type received struct {
	method, uri, host, body string
	header, trailer         http.Header
}

// receive reads a whole request.
func receive(r *http.Request) (received, error) {
	body, err := io.ReadAll(r.Body)
	return received{r.Method, r.RequestURI, r.Host, string(body), r.Header.Clone(), r.Trailer.Clone()}, err
}

// newServer serves the handler until the test ends.
func newServer(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

// newReceiver is a server that hands over what it gets.
func newReceiver(t *testing.T) (url string, got <-chan received) {
	t.Helper()
	ch := make(chan received, 10_000)
	return newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		req, err := receive(r)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		ch <- req
	}).URL, ch
}

// newHanging is a server that takes requests and answers none until the test ends
// or release is called.
func newHanging(t *testing.T) (url string, arrived <-chan struct{}, release func()) {
	t.Helper()
	ch, done := make(chan struct{}, 10_000), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		ch <- struct{}{}
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	released := false
	release = func() {
		if !released {
			released = true
			close(done)
		}
	}
	t.Cleanup(func() { release(); s.Close() })
	return s.URL, ch, release
}

func nopLog() *zap.Logger { return zap.NewNop() }

func newQueue(t *testing.T, limits mirror.Limits) *mirror.Queue {
	t.Helper()
	q := mirror.NewQueue(limits, nopLog)
	t.Cleanup(q.Close)
	return q
}

// small are limits that tests can reach.
func small() mirror.Limits { return mirror.Limits{Copies: 3, Memory: 1 << 20, Concurrency: 2} }

// newMirror returns a mirror of a server, with a destination of its own.
func newMirror(t *testing.T, q *mirror.Queue, share mirror.Limits, url string, s mirror.Settings) *mirror.Mirror {
	t.Helper()
	target, err := mirror.ParseTarget(url, new(proxy.Policy))
	if err != nil {
		t.Fatal(err)
	}
	d := mirror.NewDestination(q, share, target, new(proxy.Policy))
	t.Cleanup(func() { _ = d.Destruct() })
	return mirror.New(d, target, s)
}

// front serves through a mirror: the answer is what the handler says, by default
// the length of the body.
func front(t *testing.T, m *mirror.Mirror, handler http.HandlerFunc) string {
	t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
			}
		}
	}
	return newServer(t, func(w http.ResponseWriter, r *http.Request) {
		mirror.Sanitize(r.Header)
		defer m.Begin(r)()
		handler(w, r)
	}).URL
}

// send sends a request on a connection of its own and returns the status.
func send(t *testing.T, method, url string, body io.Reader, change ...func(*http.Request)) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, fn := range change {
		fn(r)
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// patience is far longer than anything here takes.
const patience = 30 * time.Second

func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waiting for %s", what)
		panic("unreachable")
	}
}

// awaitStats polls until the queue's counts are as wanted.
func awaitStats(t *testing.T, q *mirror.Queue, want mirror.Stats) {
	t.Helper()
	awaitStatsThat(t, q, fmt.Sprintf("%+v", want), func(got mirror.Stats) bool { return got == want })
}

func awaitStatsThat(t *testing.T, q *mirror.Queue, what string, ok func(mirror.Stats) bool) {
	t.Helper()
	var got mirror.Stats
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got = q.Stats(); ok(got) {
			return
		}
	}
	t.Fatalf("the counts are %+v, want %s", got, what)
}
