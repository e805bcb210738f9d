package forwardauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/forwardauth"
	"github.com/isekai-gateway/isekai/proxy"
)

// provision sets a handler up as Caddy would, under the policy if it is not nil.
func provision(t *testing.T, config forwardauth.Config, policy *proxy.Policy) *forwardauth.Handler {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if policy != nil {
		ctx = proxy.WithPolicy(ctx, policy)
	}
	h := &forwardauth.Handler{Config: config}
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Cleanup() })
	return h
}

// outcome is what came of a request.
type outcome struct {
	status int // of the answer, or of the error
	err    error
	header http.Header
	body   string
	passed *http.Request // as the next handler saw it
}

// serve runs a request through the handler. An upstream that is reached answers
// 299.
func serve(h *forwardauth.Handler, r *http.Request, trusted bool) outcome {
	w := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
	caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, trusted)
	var o outcome
	o.err = h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		o.passed = r
		w.WriteHeader(299)
		return nil
	}))
	o.status, o.header, o.body = w.Code, w.Result().Header, w.Body.String()
	if failed, ok := errors.AsType[caddyhttp.HandlerError](o.err); ok {
		o.status = failed.StatusCode
	}
	return o
}

// service answers questions until the test ends.
func service(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s
}

// request reads a request as a client would send it.
func request(method, target string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader("the body"))
	r.RemoteAddr = "203.0.113.7:4711"
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

func TestQuestion(t *testing.T) {
	t.Parallel()
	const own = "203.0.113.7"
	tests := []struct {
		name    string
		request *http.Request
		trusted bool
		want    http.Header // of the question, but for Accept-Encoding
	}{
		{"plain", request("POST", "http://api.example.com/a%2Fb?x=1", "Authorization", "Bearer t", "Cookie", "a=b", "Content-Type", "text/plain", "Content-Length", "8"), false, http.Header{
			"Authorization": {"Bearer t"}, "Cookie": {"a=b"}, "X-Forwarded-Method": {"POST"}, "X-Forwarded-Uri": {"/a%2Fb?x=1"},
			"X-Forwarded-Host": {"api.example.com"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-For": {own}}},
		{"over TLS", request("GET", "https://api.example.com/", "User-Agent", "u"), false, http.Header{
			"User-Agent": {"u"}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/"},
			"X-Forwarded-Host": {"api.example.com"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {own}}},
		{"about the connection and the resource", request("GET", "http://a/", "Connection", "X-Secret, Upgrade", "X-Secret", "s", "Upgrade", "websocket", "Te", "trailers",
			"Keep-Alive", "5", "Proxy-Authorization", "p", "Expect", "100-continue", "Range", "bytes=0-1", "If-None-Match", `"x"`, "If-Modified-Since", "x", "X-Kept", "k"), false, http.Header{
			"X-Kept": {"k"}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-For": {own}}},
		{"a client that lies", request("DELETE", "http://a/admin", "X-Forwarded-Method", "GET", "X-Forwarded-Uri", "/public", "X-Forwarded-Host", "b", "X-Forwarded-Proto", "https",
			"X-Forwarded-For", "10.0.0.1", "X-Original-Url", "http://a/public", "X-Original-Method", "GET", "Forwarded", "for=10.0.0.1", "X-Real-Ip", "10.0.0.1"), false, http.Header{
			"X-Forwarded-Method": {"DELETE"}, "X-Forwarded-Uri": {"/admin"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-For": {own}}},
		{"a trusted proxy", request("DELETE", "http://a/admin", "X-Forwarded-Method", "GET", "X-Forwarded-Uri", "/public", "X-Forwarded-Host", "b", "X-Forwarded-Proto", "https",
			"X-Forwarded-For", "198.51.100.1, 10.0.0.1", "X-Original-Url", "http://a/public", "X-Real-Ip", "198.51.100.1"), true, http.Header{
			"X-Forwarded-Method": {"DELETE"}, "X-Forwarded-Uri": {"/admin"}, "X-Forwarded-Host": {"b"}, "X-Forwarded-Proto": {"https"},
			"X-Forwarded-For": {"198.51.100.1, 10.0.0.1, " + own}, "X-Real-Ip": {"198.51.100.1"}}},
	}
	extended := request("CONNECT", "http://a/ws")
	extended.Host = "a"
	extended.URL.Path, extended.Proto, extended.ProtoMajor, extended.ProtoMinor = "/ws", "HTTP/2.0", 2, 0
	extended.Header[":protocol"] = []string{"websocket"}
	tests = append(tests, struct {
		name    string
		request *http.Request
		trusted bool
		want    http.Header
	}{"a WebSocket over HTTP/2", extended, false, http.Header{
		"X-Forwarded-Method": {"GET"}, "X-Forwarded-Uri": {"/ws"}, "X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-For": {own}}})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			questions := make(chan *http.Request, 1)
			bodies := make(chan string, 1)
			s := service(t, func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				questions <- r
				bodies <- string(body)
			})
			h := provision(t, forwardauth.Config{URL: s.URL + "/verify%2Fx?rd=y"}, nil)
			before := tt.request.Header.Clone()
			o := serve(h, tt.request, tt.trusted)
			if o.err != nil || o.passed == nil {
				t.Fatalf("got %+v", o)
			}
			got, body := <-questions, <-bodies
			if got.Method != "GET" || got.RequestURI != "/verify%2Fx?rd=y" || "http://"+got.Host != s.URL || body != "" || got.ContentLength != 0 {
				t.Errorf("the service was asked %s %s of %s with %q", got.Method, got.RequestURI, got.Host, body)
			}
			if diff := cmp.Diff(tt.want, got.Header); diff != "" {
				t.Errorf("the question (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, o.passed.Header); diff != "" {
				t.Errorf("the request has changed:\n%s", diff)
			}
			if rest, err := io.ReadAll(o.passed.Body); string(rest) != "the body" {
				t.Errorf("the body is %q (%v)", rest, err)
			}
		})
	}
}

func TestCopiedFields(t *testing.T) {
	t.Parallel()
	s := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-User"] = []string{"bob"}
		w.Header()["X-Group"] = []string{"a", "b"}
		w.Header().Set("X-Id", "7")
		w.Header().Set("X-Other", "o")
		w.Header().Set("X-Hop", "h")
		w.Header().Set("Connection", "X-Hop")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "granted")
	})
	h := provision(t, forwardauth.Config{URL: s.URL, CopyHeaders: []string{"x-user", "X-Group", "X-Id>X-User-Id", "X-Missing", "X-Hop"}}, nil)
	tests := []struct {
		name   string
		fields []string
		want   http.Header
	}{
		{"of a client without any", nil, http.Header{}},
		{"in place of the client's", []string{"X-User", "root", "X-User", "root", "X-Group", "wheel", "X-User-Id", "0", "X-Missing", "m", "X-Hop", "h", "X-Id", "own", "X-Kept", "k"},
			http.Header{"X-Id": {"own"}, "X-Kept": {"k"}}},
		{"though Connection names them", []string{"Connection", "keep-alive, X-USER", "Connection", "x-missing,Upgrade", "X-Missing", "m"},
			http.Header{"Connection": {"keep-alive, Upgrade"}}},
		{"though Connection names nothing else", []string{"Connection", "x-user"}, http.Header{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := serve(h, request("GET", "http://a/", tt.fields...), false)
			if o.passed == nil {
				t.Fatalf("got %+v", o)
			}
			tt.want["X-User"], tt.want["X-Group"], tt.want["X-User-Id"] = []string{"bob"}, []string{"a", "b"}, []string{"7"}
			if diff := cmp.Diff(tt.want, o.passed.Header); diff != "" {
				t.Errorf("the request (-want +got):\n%s", diff)
			}
			if o.body != "" || len(o.header) > 0 {
				t.Errorf("the client sees %v %q of the service", o.header, o.body)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		service http.HandlerFunc
		status  int
		header  http.Header
		body    string
	}{
		{"401", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", "Bearer")
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Keep-Alive", "timeout=5")
			w.WriteHeader(401)
			fmt.Fprint(w, "{}")
		}, 401, http.Header{"Www-Authenticate": {"Bearer"}, "Content-Type": {"application/json"}, "Content-Length": {"2"}}, "{}"},
		{"redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
			w.Header().Set("Location", "https://login.example.com/")
			w.WriteHeader(302)
		}, 302, http.Header{"Location": {"https://login.example.com/"}, "Set-Cookie": {"a=1", "b=2"}}, ""},
		{"304", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, 304, http.Header{}, ""},
		{"300", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(300) }, 300, http.Header{}, ""},
		{"its own failure", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, 500, http.Header{}, ""},
		{"the longest body", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, strings.Repeat("x", 1<<20))
		}, 403, http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Content-Length": {"1048576"}}, strings.Repeat("x", 1<<20)},
		{"a longer body", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			fmt.Fprint(w, strings.Repeat("x", 1<<20+1))
		}, 502, http.Header{}, ""},
		{"a body that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(403)
			fmt.Fprint(w, "x")
		}, 502, http.Header{}, ""},
	}
	for _, onError := range []string{"", "allow"} {
		for _, tt := range tests {
			t.Run(strings.TrimSpace(tt.name+" "+onError), func(t *testing.T) {
				t.Parallel()
				h := provision(t, forwardauth.Config{URL: service(t, tt.service).URL, OnError: onError}, nil)
				o := serve(h, request("GET", "http://a/"), false)
				o.header.Del("Date")
				if o.passed != nil || o.status != tt.status || o.body != tt.body {
					t.Errorf("got %d %.100q (%v), passed %v; want %d %.100q", o.status, o.body, o.err, o.passed != nil, tt.status, tt.body)
				}
				if diff := cmp.Diff(tt.header, o.header); diff != "" {
					t.Errorf("the answer (-want +got):\n%s", diff)
				}
				if o.status == 502 && !errors.Is(o.err, forwardauth.ErrUnavailable) {
					t.Errorf("the error is %v", o.err)
				}
			})
		}
	}
}

func TestNoAnswer(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	stop := make(chan struct{})
	slow := service(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	})
	t.Cleanup(func() { close(stop) })
	slowBody := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-stop:
		}
	})
	switches := service(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		conn.Close()
	})
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(untrusted.Close)
	short := caddy.Duration(100 * time.Millisecond)
	tests := []struct {
		name   string
		config forwardauth.Config
		status int
	}{
		{"nobody listens", forwardauth.Config{URL: "http://" + closed.Addr().String()}, 502},
		{"a certificate nobody knows", forwardauth.Config{URL: untrusted.URL}, 502},
		{"a switch of protocols", forwardauth.Config{URL: switches.URL}, 502},
		{"too slow", forwardauth.Config{URL: slow.URL, Timeout: short}, 504},
		{"too slow, explicitly denied", forwardauth.Config{URL: slow.URL, Timeout: short, OnError: "deny"}, 504},
		{"a refusal too slow", forwardauth.Config{URL: slowBody.URL, Timeout: short}, 504},
		{"a refusal too slow, though failures are allowed", forwardauth.Config{URL: slowBody.URL, Timeout: short, OnError: "allow"}, 504},
		{"nobody listens, allowed", forwardauth.Config{URL: "http://" + closed.Addr().String(), OnError: "allow"}, 299},
		{"too slow, allowed", forwardauth.Config{URL: slow.URL, Timeout: short, OnError: "allow"}, 299},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.config.CopyHeaders = []string{"X-User"}
			h := provision(t, tt.config, nil)
			o := serve(h, request("GET", "http://a/", "X-User", "root"), false)
			if o.status != tt.status || (o.passed != nil) != (tt.status == 299) {
				t.Errorf("got %d (%v), passed %v; want %d", o.status, o.err, o.passed != nil, tt.status)
			}
			if o.passed != nil && o.passed.Header.Get("X-User") != "" {
				t.Error("the client's own X-User passes")
			}
		})
	}

	t.Run("the client goes away", func(t *testing.T) {
		t.Parallel()
		asked := make(chan struct{})
		s := service(t, func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		h := provision(t, forwardauth.Config{URL: s.URL, OnError: "allow"}, nil)
		if o := serve(h, request("GET", "http://a/").WithContext(ctx), false); o.status != 499 || o.passed != nil {
			t.Errorf("got %d (%v), passed %v", o.status, o.err, o.passed != nil)
		}
	})
}

// TestPolicy has the address allowed when the handler is made, and refused when
// it connects, as with a name that resolves anew.
func TestPolicy(t *testing.T) {
	t.Parallel()
	var refused atomic.Bool
	var asked atomic.Int64
	s := service(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	h := provision(t, forwardauth.Config{URL: s.URL}, &proxy.Policy{Internal: func(netip.AddrPort) bool { return refused.Load() }})
	refused.Store(true)
	o := serve(h, request("GET", "http://a/"), false)
	if o.status != 502 || o.passed != nil || !errors.Is(o.err, proxy.ErrTargetRefused) || asked.Load() > 0 {
		t.Errorf("got %d (%v), passed %v, asked %d times", o.status, o.err, o.passed != nil, asked.Load())
	}
	refused.Store(false)
	if o := serve(h, request("GET", "http://a/"), false); o.passed == nil {
		t.Errorf("got %d (%v)", o.status, o.err)
	}
}

// TestConnections has one connection used by several questions, whatever the
// answers, and closed by Cleanup.
func TestConnections(t *testing.T) {
	t.Parallel()
	var opened, asked atomic.Int64
	closed := make(chan struct{}, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%2 == 0 {
			w.WriteHeader(403)
		}
		fmt.Fprint(w, strings.Repeat("x", 10_000))
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	h := provision(t, forwardauth.Config{URL: s.URL}, nil)
	for range 6 {
		if o := serve(h, request("GET", "http://a/"), false); o.err != nil {
			t.Fatal(o.err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections were opened", n)
	}
	if err := h.Cleanup(); err != nil {
		t.Error(err)
	}
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the connection stays open")
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const fine = "http://10.0.0.9:9091/verify?rd=https://login.example.com"
	policy := &proxy.Policy{Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.8/32")}}
	tests := []struct {
		name   string
		config forwardauth.Config
		fields []string
	}{
		{"all", forwardauth.Config{URL: fine, CopyHeaders: []string{"A", "b>C"}, Timeout: 1, OnError: "deny"}, nil},
		{"a name", forwardauth.Config{URL: "https://auth.example.com"}, nil},
		{"nothing", forwardauth.Config{}, []string{"url"}},
		{"refused by the policy", forwardauth.Config{URL: "http://10.0.0.8/"}, []string{"url"}},
		{"metadata", forwardauth.Config{URL: "http://[::ffff:169.254.169.254]/"}, []string{"url"}},
		{"fields", forwardauth.Config{URL: fine, CopyHeaders: []string{"", "A>", ">A", "A>B>C", "Host", "A>Connection", "content-length", "X Y", "*"}},
			[]string{"copy_headers[0]", "copy_headers[1]", "copy_headers[2]", "copy_headers[3]", "copy_headers[4]", "copy_headers[5]", "copy_headers[6]", "copy_headers[7]"}},
		{"times and words", forwardauth.Config{URL: fine, Timeout: -1, OnError: "Allow"}, []string{"timeout", "on_error"}},
	}
	for _, url := range []string{"10.0.0.9", "ftp://a/", "unix//run/x.sock", "unix:///run/x.sock", "h2c://a/", "file:///etc/passwd", "http://", "http:///x", "http://u:p@a/",
		"http://a/#f", "http://a/#", "http://{env.HOST}/", "http://a/{x}", "http://2130706433/", "http://127.1/", "http://a:0/", "http://a/%zz", "http://a b/", "http://a\\@b/", "//a/"} {
		tests = append(tests, struct {
			name   string
			config forwardauth.Config
			fields []string
		}{"URL " + url, forwardauth.Config{URL: url}, []string{"url"}})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var fields []string
			for _, p := range tt.config.Check(policy) {
				if p.Err.Error() == "" {
					t.Errorf("nothing is said about %s", p.Field)
				}
				fields = append(fields, p.Field)
			}
			if !slices.Equal(fields, tt.fields) {
				t.Errorf("got %q, want %q", fields, tt.fields)
			}
			client, err := forwardauth.New(&tt.config, policy)
			if (err != nil) != (len(tt.fields) > 0) {
				t.Errorf("New: %v", err)
			}
			if client != nil {
				client.Close()
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("http://10.0.0.9:9091/verify?rd=x", "X-User>X-Id")
	f.Add("https://[::1]/a%2Fb?#", "Connection")
	f.Add("http://a@b", ">")
	f.Fuzz(func(t *testing.T, url, field string) {
		config := forwardauth.Config{URL: url, CopyHeaders: []string{field}}
		if len(config.Check(nil)) > 0 {
			return
		}
		client, err := forwardauth.New(&config, nil)
		if err != nil {
			t.Fatalf("%q, %q pass the check only: %v", url, field, err)
		}
		client.Close()
	})
}
