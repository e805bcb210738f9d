package cors_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/cors"
)

// Tests that load a config share the process's one Caddy and don't run in parallel.

// load makes a site serve handlers and errors until the test ends, and returns
// its URL.
func load(t *testing.T, handlers, errorHandlers string) string {
	t.Helper()
	addr, err := tryLoad(t, handlers, errorHandlers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + addr
}

func tryLoad(t *testing.T, handlers, errorHandlers string) (addr string, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	ln.Close()
	return addr, caddy.Load([]byte(fmt.Sprintf(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
		"apps": {"tls": {"disable_storage_check": true, "disable_storage_clean": true}, "http": {"servers": {"s": {
			"listen": [%q],
			"automatic_https": {"disable": true},
			"routes": [{"handle": [%s]}],
			"errors": {"routes": [{"handle": [%s]}]}
		}}}}}`, addr, handlers, errorHandlers)), true)
}

// do sends a request and returns the answer with those of its fields that matter
// here, and its body.
func do(t *testing.T, method, url string, fields ...string) (status int, header http.Header, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, corsFields(response.Header), string(text)
}

func corsFields(all http.Header) http.Header {
	fields := http.Header{}
	for name, values := range all {
		if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
			fields[name] = values
		}
	}
	return fields
}

const (
	evil   = "https://evil.test"
	policy = `{"handler": "isekai_cors", "origins": ["https://app.example.com"], "methods": ["PUT"],
		"expose_headers": ["X-Total"], "credentials": true, "max_age": 60}`
	secret = `{"handler": "authentication", "providers": {"http_basic": {"accounts": [
		{"username": "bob", "password": "$2a$04$4oDF/yfJWVpkYNsQAz9jmeFL3ygRsRpSAKgLKLyhNNhkCBtm22EFS"}]}}}`
	errorPage = `{"handler": "static_response", "body": "error {http.error.status_code}"}`
)

var (
	refused = http.Header{"Vary": {varyPreflight}}
	granted = http.Header{
		"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Methods": {"PUT"},
		"Access-Control-Allow-Credentials": {"true"}, "Access-Control-Max-Age": {"60"}, "Vary": {varyPreflight},
	}
	shared = http.Header{
		"Access-Control-Allow-Origin": {app}, "Access-Control-Allow-Credentials": {"true"},
		"Access-Control-Expose-Headers": {"X-Total"}, "Vary": {"Origin"},
	}
	unshared = http.Header{"Vary": {"Origin"}}
)

func check(t *testing.T, what string, wantStatus, status int, want, header http.Header, wantBody, body string) {
	t.Helper()
	if status != wantStatus || body != wantBody {
		t.Errorf("%s: %d %q, want %d %q", what, status, body, wantStatus, wantBody)
	}
	if diff := cmp.Diff(want, header); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestHandlerBeforeAuthAndLimit(t *testing.T) {
	site := load(t, policy+`,
		{"handler": "isekai_rate_limit", "name": "cors", "limit": 2, "window": "1h", "headers": "none"},`+secret+`,
		{"handler": "static_response", "body": "hello"}`, errorPage)

	// More often than the limit, and always without a password.
	for range 3 {
		status, header, body := do(t, "OPTIONS", site, "Origin", app, "Access-Control-Request-Method", "PUT")
		check(t, "preflight", 204, status, granted, header, "", body)
	}
	status, header, body := do(t, "OPTIONS", site, "Origin", evil, "Access-Control-Request-Method", "PUT")
	check(t, "preflight of another origin", 403, status, refused, header, "error 403", body)

	status, header, body = do(t, "PUT", site, "Origin", app)
	check(t, "no password", 401, status, shared, header, "error 401", body)
	status, header, body = do(t, "OPTIONS", site, "Origin", app)
	check(t, "OPTIONS that is no preflight", 401, status, shared, header, "error 401", body)
	status, header, body = do(t, "PUT", site, "Origin", app)
	check(t, "too many", 429, status, shared, header, "error 429", body)
}

func TestHandlerStatic(t *testing.T) {
	site := load(t, policy+`, {"handler": "static_response", "body": "hello", "headers": {"Access-Control-Allow-Origin": ["*"], "Vary": ["Accept"]}}`, errorPage)
	want := shared.Clone()
	want["Vary"] = []string{"Accept, Origin"}
	status, header, body := do(t, "GET", site, "Origin", app)
	check(t, "allowed", 200, status, want, header, "hello", body)
	status, header, body = do(t, "HEAD", site, "Origin", app)
	check(t, "HEAD", 200, status, want, header, "", body)
	status, header, body = do(t, "GET", site, "Origin", evil)
	check(t, "not allowed", 200, status, http.Header{"Vary": {"Accept, Origin"}}, header, "hello", body)
	status, header, body = do(t, "GET", site)
	check(t, "no origin", 200, status, http.Header{"Vary": {"Accept, Origin"}}, header, "hello", body)
}

func TestHandlerWithoutResponse(t *testing.T) {
	site := load(t, policy, errorPage)
	status, header, body := do(t, "GET", site, "Origin", app)
	check(t, "nothing follows", 200, status, shared, header, "", body)
}

func TestHandlersNested(t *testing.T) {
	site := load(t, policy+`, {"handler": "isekai_cors"}, {"handler": "static_response", "body": "hello"}`, errorPage)
	status, header, body := do(t, "GET", site, "Origin", app)
	check(t, "outermost", 200, status, shared, header, "hello", body)
	status, header, body = do(t, "GET", site, "Origin", evil)
	check(t, "not allowed by the outermost", 200, status, unshared, header, "hello", body)
}

// TestHandlerWhateverComesFirst tries all that may send the head of an answer.
func TestHandlerWhateverComesFirst(t *testing.T) {
	t.Parallel()
	h := &cors.Handler{Config: cors.Config{Origins: []string{app}}}
	if err := h.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(http.ResponseWriter) error{
		"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(http.StatusAccepted); return nil },
		"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("hello")); return err },
		"ReadFrom": func(w http.ResponseWriter) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello"))
			return err
		},
		"Flush": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	}
	for name, send := range tests {
		w := httptest.NewRecorder()
		err := h.ServeHTTP(w, request(http.MethodGet, http.Header{"Origin": {app}}), caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.Header()["Access-Control-Allow-Origin"] = []string{"*", evil}
			return send(w)
		}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff([]string{app}, w.Result().Header["Access-Control-Allow-Origin"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// upstream has an opinion of its own on CORS.
func upstream(t *testing.T) string {
	t.Helper()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/hints":
			h.Set("Link", "</style.css>; rel=preload")
			h.Set("Access-Control-Allow-Origin", "https://hint.test")
			w.WriteHeader(http.StatusEarlyHints)
		case "/release":
			close(release)
			return
		case "/upgrade":
			conn, brw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("upstream: %v", err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nAccess-Control-Allow-Origin: *\r\n\r\n")
			line, err := brw.ReadString('\n')
			if err == nil {
				fmt.Fprint(conn, line)
			}
			return
		}
		h.Set("Access-Control-Allow-Origin", "*")
		h.Add("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Allow-Methods", "DELETE")
		h.Set("Access-Control-Expose-Headers", "X-Upstream")
		h.Set("Access-Control-Allow-Private-Network", "true")
		h.Add("Vary", "Accept-Encoding")
		h.Add("Vary", "origin")
		if r.URL.Path == "/stream" {
			h.Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
			<-release
		}
		fmt.Fprintf(w, "%s by upstream", r.Method)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func loadProxy(t *testing.T) string {
	t.Helper()
	return load(t, policy+fmt.Sprintf(`, {"handler": "reverse_proxy", "upstreams": [{"dial": %q}]}`, upstream(t)), errorPage)
}

func TestHandlerReplacesUpstreamFields(t *testing.T) {
	site := loadProxy(t)
	want := shared.Clone()
	want["Vary"] = []string{"Accept-Encoding, origin"}
	status, header, body := do(t, "PUT", site, "Origin", app)
	check(t, "allowed", 200, status, want, header, "PUT by upstream", body)
	status, header, body = do(t, "PUT", site, "Origin", evil)
	check(t, "not allowed", 200, status, http.Header{"Vary": want["Vary"]}, header, "PUT by upstream", body)

	status, header, body = do(t, "OPTIONS", site, "Origin", app, "Access-Control-Request-Method", "PUT")
	check(t, "preflight", 204, status, granted, header, "", body)
	status, header, body = do(t, "OPTIONS", site, "Origin", app)
	check(t, "OPTIONS that is no preflight", 200, status, want, header, "OPTIONS by upstream", body)
	status, header, body = do(t, "OPTIONS", site, "Access-Control-Request-Method", "PUT")
	check(t, "OPTIONS without an origin", 200, status, http.Header{"Vary": want["Vary"]}, header, "OPTIONS by upstream", body)
}

func TestHandlerPassesInterimResponses(t *testing.T) {
	site := loadProxy(t)
	var hints []http.Header
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			if status == http.StatusEarlyHints {
				hints = append(hints, http.Header(header))
			}
			return nil
		},
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, site+"/hints", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if len(hints) != 1 || hints[0].Get("Link") == "" {
		t.Fatalf("hints %v", hints)
	}
	if diff := cmp.Diff(http.Header{"Access-Control-Allow-Origin": {"https://hint.test"}}, corsFields(hints[0])); diff != "" {
		t.Errorf("hint (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{app}, response.Header["Access-Control-Allow-Origin"]); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestHandlerStreams(t *testing.T) {
	site := loadProxy(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", app)
	transport := &http.Transport{DisableKeepAlives: true}
	// It comes back though the body has yet to begin.
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if diff := cmp.Diff([]string{app}, response.Header["Access-Control-Allow-Origin"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	do(t, http.MethodGet, site+"/release")
	if body, err := io.ReadAll(response.Body); string(body) != "GET by upstream" {
		t.Errorf("body %q, %v", body, err)
	}
}

func TestHandlerUpgrades(t *testing.T) {
	site := loadProxy(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site+"/upgrade", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Origin": {app}, "Connection": {"Upgrade"}, "Upgrade": {"echo"}}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(response.Status)
	}
	if diff := cmp.Diff(shared, corsFields(response.Header)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	conn := response.Body.(io.ReadWriter)
	fmt.Fprintln(conn, "hello")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestHandlerRefusesBadConfig(t *testing.T) {
	_, err := tryLoad(t, `{"handler": "isekai_cors", "origins": ["*"], "credentials": true, "max_age": -5}`, errorPage)
	for _, want := range []string{`origins[0]: "*" can't be had with credentials`, "max_age: must be"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if _, err := tryLoad(t, `{"handler": "isekai_cors", "allow": "*"}`, errorPage); err == nil {
		t.Error("an unknown field is accepted")
	}
}
