package mirror_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/mirror"
)

// Tests that load a config share the process's one Caddy and don't run in parallel.

// load runs a site, reached at addr, until the test ends. It may be called again
// for a reload.
func load(t *testing.T, addr, global, site string) error {
	t.Helper()
	config, err := adapt(fmt.Sprintf(`{
		admin off
		persist_config off
		auto_https off
		log {
			output discard
		}
		%s
	}
	http://%s {
		%s
	}`, global, addr, site))
	if err != nil {
		t.Fatal(err)
	}
	return caddy.Load(config, true)
}

func loadSite(t *testing.T, global, site string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = ln.Addr().String()
	ln.Close()
	if err := load(t, addr, global, site); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return addr
}

// TestCopiesAreLikeWhatReverseProxySends compares what an upstream and a mirror get
// of the same requests.
func TestCopiesAreLikeWhatReverseProxySends(t *testing.T) {
	upstream, original := newReceiver(t)
	url, copied := newReceiver(t)
	directives := fmt.Sprintf("isekai_mirror %s\nrequest_header X-Set yes\nreverse_proxy %s", url, upstream)
	set := func(fields ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(fields); i += 2 {
				r.Header.Add(fields[i], fields[i+1])
			}
		}
	}
	for name, global := range map[string]string{
		"untrusted": "", "trusted": "servers {\ntrusted_proxies static 127.0.0.1/32\n}",
	} {
		t.Run(name, func(t *testing.T) {
			site := "http://" + loadSite(t, global, directives)
			for _, request := range []struct {
				method, path, body string
				change             func(*http.Request)
			}{
				{"GET", "/a%2Fb?c=d%20e&f", "", set()},
				{"POST", "/", "hello", set("Content-Type", "text/plain", "Cookie", "a=b", "Cookie", "c=d")},
				{"GET", "/", "", set("X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "192.0.2.2", "X-Forwarded-Proto", "https", "X-Forwarded-Proto", "wss", "X-Forwarded-Host", "example.org")},
				{"GET", "/", "", set("X-Forwarded-For", "", "X-Forwarded-Proto", "", "X-Forwarded-Host", "")},
				{"GET", "/", "", set("Connection", "keep-alive, X-Gone", "X-Gone", "1", "Keep-Alive", "5", "Proxy-Authorization", "x", "Proxy-Connection", "x", "Via", "1.0 other")},
				{"GET", "/", "", set("Te", "trailers", "User-Agent", "")},
				{"GET", "/", "", set("Te", "trailers", "Connection", "te")},
				{"PUT", "/", "chunked", func(r *http.Request) { r.ContentLength = -1 }},
				{"PUT", "/", "trailers", func(r *http.Request) { r.ContentLength, r.Trailer = -1, http.Header{"X-Sum": {"1"}} }},
			} {
				send(t, request.method, site+request.path, io.NopCloser(strings.NewReader(request.body)), func(r *http.Request) {
					if request.body == "" {
						r.Body = http.NoBody
					} else {
						r.ContentLength = int64(len(request.body))
					}
					r.Header.Set("Accept-Encoding", "identity") // else the transport of reverse_proxy adds its own
					request.change(r)
				})
				want, got := await(t, original, "the request"), await(t, copied, "the copy")
				if got.header.Get(mirror.Marker) == "" {
					t.Errorf("no marker: %v", got.header)
				}
				got.header.Del(mirror.Marker)
				// reverse_proxy keeps the client's Host unless it is told otherwise.
				want.host = strings.TrimPrefix(url, "http://")
				if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); diff != "" {
					t.Errorf("%s %s %v (-upstream +mirror):\n%s", request.method, request.path, slices.Sorted(maps.Keys(want.header)), diff)
				}
			}
		})
	}
}

// TestSite has the directive before other ways to answer than reverse_proxy.
func TestSite(t *testing.T) {
	url, copied := newReceiver(t)
	site := "http://" + loadSite(t, "", fmt.Sprintf(`
		basic_auth /secret {
			bob $2a$04$4oDF/yfJWVpkYNsQAz9jmeFL3ygRsRpSAKgLKLyhNNhkCBtm22EFS
		}
		rewrite /old /new
		isekai_mirror %s/base
		handle {
			respond "{http.request.body}{http.request.header.X-Isekai-Mirror}"
		}`, url))
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	post := func(path string) (int, string) {
		t.Helper()
		r, err := http.NewRequest("POST", site+path, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(mirror.Marker, "1")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, _ := post("/secret"); status != http.StatusUnauthorized {
		t.Errorf("status %d", status)
	}
	// Caddy's placeholder takes the body from the request, past any wrapper but ours.
	if status, body := post("/old"); status != http.StatusOK || body != "hello" {
		t.Errorf("got %d %q", status, body)
	}
	if c := await(t, copied, "the copy"); c.uri != "/base/new" || c.body != "hello" {
		t.Errorf("the mirror got %+v", c)
	}
}

// TestReloadOfASite keeps the counters, and drops what waits.
func TestReloadOfASite(t *testing.T) {
	url, arrived, _ := newHanging(t)
	directives := fmt.Sprintf("isekai_mirror %s {\nqueue 2\nconcurrency 1\n}\nrespond ok", url)
	before := mirror.SiteStats()
	if before != (mirror.Stats{}) {
		t.Errorf("without a handler the counts are %+v", before)
	}
	addr := loadSite(t, "", directives)
	for i := range 5 {
		send(t, "GET", "http://"+addr, nil)
		if i == 0 {
			await(t, arrived, "the copy")
		}
	}
	if got, want := mirror.SiteStats(), (mirror.Stats{Waiting: 2, Dropped: mirror.Dropped{QueueFull: 2}}); got != want {
		t.Errorf("the counts are %+v, want %+v", got, want)
	}
	if err := load(t, addr, "", directives); err != nil {
		t.Fatal(err)
	}
	if got, want := mirror.SiteStats(), (mirror.Stats{Dropped: mirror.Dropped{QueueFull: 2, Shutdown: 3}}); got != want {
		t.Errorf("after the reload the counts are %+v, want %+v", got, want)
	}
	if err := load(t, addr, "", "isekai_mirror http://10.0.0.9\n@bad expression nonsense(\nrespond @bad no"); err == nil {
		t.Error("a bad configuration was loaded")
	}
	for range 2 {
		send(t, "GET", "http://"+addr, nil)
	}
	await(t, arrived, "a copy after a reload that failed")
}

func TestBadHandlers(t *testing.T) {
	for _, handler := range []string{
		`{}`, `{"target_url": "http://[::1"}`, `{"target_url": "http://10.0.0.9", "sample": 0}`, `{"target_url": "http://10.0.0.9", "body_max": -1}`,
		`{"target_url": "http://10.0.0.9", "queue": -1}`, `{"target_url": "http://10.0.0.9", "concurrency": 1000}`, `{"target_url": "http://10.0.0.9", "timeout": "2m"}`,
	} {
		err := caddy.Validate(mustConfig(t, handler))
		if err == nil {
			t.Errorf("%s is valid", handler)
		}
	}
	if err := caddy.Validate(mustConfig(t, `{"target_url": "http://10.0.0.9"}`)); err != nil {
		t.Error(err)
	}
	if got := mirror.SiteStats(); got != (mirror.Stats{}) {
		t.Errorf("after all is gone the counts are %+v", got)
	}
}

func mustConfig(t *testing.T, handler string) *caddy.Config {
	t.Helper()
	text := fmt.Sprintf(`{"apps": {"http": {"servers": {"s": {"listen": ["127.0.0.1:0"], "routes": [{"handle": [%s]}]}}}}}`,
		strings.Replace(handler, "{", `{"handler": "isekai_mirror" `+comma(handler), 1))
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	return &config
}

func comma(handler string) string {
	if handler == "{}" {
		return ""
	}
	return ","
}
