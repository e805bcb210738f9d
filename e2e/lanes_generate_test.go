package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// exchange is a request and the answer to it.
type exchange struct {
	number  int
	version string // of HTTP, or "trusted"

	method, target, host string
	header               http.Header
	body                 []byte // nil for none
	chunked              bool
	trailer              http.Header

	answer  []byte
	splits  []int // where writes end
	closes  bool
	unknown bool // its length is not said
	untyped bool // nor its type, of a stream: whether that is guessed is a matter of time
	cut     bool // it breaks off
	simple  bool // for the fast lane

	mu  sync.Mutex
	had []asked
}

const exchangeField = "X-Exchange"

func (e *exchange) id() string { return fmt.Sprint(e.number) }

func (e *exchange) requests() []asked {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.had
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// some says yes in one of n cases.
func some(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

// text returns n bytes that are not all alike, and look like text from the first on.
func text(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	return b
}

// size returns a length around those at which something changes.
func size(r *rand.Rand) int {
	return pick(r, 0, 1, 2, 10, 100, 511, 512, 513, 2047, 2048, 2049, 4095, 4096, 5000, 32<<10, 32<<10+1, 64<<10-1, 64<<10, 64<<10+1, 70<<10, r.IntN(9000))
}

// generate makes an exchange by lot.
func generate(r *rand.Rand, n int) *exchange {
	e := &exchange{number: n, header: make(http.Header)}
	e.version = pick(r, "HTTP1", "HTTP1", "HTTP1", "HTTP2", "HTTP2", "HTTP3", "trusted")
	http1 := e.version == "HTTP1" || e.version == "trusted"
	e.method = pick(r, "GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY")
	e.target = "/" + pick(r, "plain", "strip", "host", "ops", "gzip", "idle", "cors", "plain") + "/" +
		pick(r, "", "a", "a/b", "a/", "a%2Fb", "%C3%A4", "a;b=c", "!$&'()*+,;=:@", "a%20b", "~x")
	e.target += pick(r, "", "", "?", "?a=b", "?a=b&a=c;d", "?%zz=%", "?q=%C3%A4&x=+", "?a=[1]|{2}^`\"", "?a?b?c")
	if e.host = "example.test"; some(r, 3) {
		e.host = pick(r, "shop.test", "shop.test:81", "SHOP.test", "192.0.2.1", "[2001:db8::1]:8080", "a_b.test")
	}
	if e.version == "HTTP2" || e.version == "HTTP3" {
		e.host = "localhost"
	}
	e.simple = true
	h := e.header
	h.Set(exchangeField, e.id())
	h.Set("X-Request-Id", "r"+e.id())
	if some(r, 4) {
		h["User-Agent"] = []string{pick(r, "", "x/1", "Mozilla/5.0 (X11; Linux x86_64)")}
	}
	for range r.IntN(5) {
		name := pick(r, "Accept", "Accept-Language", "Cookie", "Cache-Control", "Pragma", "X-Odd_Name", "X-Multi", "X.dots", "Authorization",
			"If-None-Match", "Range", "Origin", "Referer", "Forwarded", "X-Real-Ip", "Via", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host",
			"X-Forwarded-Port", "Early-Data", "Priority", "Sec-Fetch-Mode", "Traceparent", "X-Isekai-Consumer", "Alt-Svc", "Proxy-Authorization", "Keep-Alive")
		for range pick(r, 1, 1, 1, 2, 3) {
			h.Add(name, pick(r, "a", "b, c", "", "\"quoted, text\"", "a=b; c=d", "\xe4\xc3\xa4", "a\tb", "https://a.test", "192.0.2.7", "1.1 other", strings.Repeat("x", 500)))
		}
	}
	if some(r, 4) {
		h.Set("Accept-Encoding", pick(r, "gzip", "identity", "br;q=0.5", "gzip, br"))
	}
	if http1 {
		delete(h, "Keep-Alive") // net/http's client has its own mind about these
		if some(r, 8) {
			h.Set("Connection", pick(r, "X-Multi", "x-named, keep-alive", "keep-alive", "Authorization, X-Forwarded-For"))
			h.Set("X-Named", "by Connection")
		}
		if some(r, 20) {
			h.Set("Te", pick(r, "trailers", "gzip"))
			e.simple = false
		}
	}
	if some(r, 3) && e.method != "HEAD" || e.method == "POST" {
		e.body = text(r, size(r))
		e.chunked = some(r, 4)
		if e.chunked && some(r, 2) {
			e.trailer = http.Header{"X-Sum": {"asked"}}
		}
		if http1 && some(r, 8) && len(e.body) > 0 {
			h.Set("Expect", "100-continue")
			e.simple = false
		}
	}
	if e.chunked || len(e.body) > 64<<10 {
		e.simple = false
	}
	e.reply(r)
	if e.unknown || isStream(e.answer[:min(len(e.answer), 4096)]) {
		// Whether a stream is encoded depends on what is flushed first.
		e.target = strings.Replace(e.target, "/gzip/", "/plain/", 1)
	}
	return e
}

// isStream says whether the head of an answer has the gateway pass on each part at once.
func isStream(head []byte) bool {
	head = bytes.ToLower(head)
	return bytes.Contains(head, []byte("incremental")) || bytes.Contains(head, []byte("event-stream"))
}

// reply makes the answer.
func (e *exchange) reply(r *rand.Rand) {
	var b bytes.Buffer
	for range pick(r, 0, 0, 0, 0, 0, 1, 2) {
		b.WriteString(pick(r, "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\nConnection: x-c\r\nX-C: d\r\n\r\n"))
	}
	status := pick(r, "200 OK", "200 OK", "200 OK", "200 OK", "201 Created", "204 No Content", "206 Partial Content", "304 Not Modified", "302 Found", "401 Unauthorized",
		"404 Not Found", "500 Oops", "503 Service Unavailable", "299 x", "418", "999 Whatever", "200 \xe4")
	version := "HTTP/1.1 "
	if some(r, 12) {
		version, e.closes = "HTTP/1.0 ", true
	}
	b.WriteString(version + status + "\r\n")
	for range r.IntN(6) {
		name := pick(r, "Set-Cookie", "Set-Cookie", "X-Multi", "x-lower", "Vary", "Server", "Via", "Date", "Etag", "Cache-Control", "Location", "Link", "Alt-Svc", "Keep-Alive",
			"Proxy-Authenticate", "Upgrade", "WWW-Authenticate", "Strict-Transport-Security", "X-Request-Id", "Access-Control-Allow-Origin", "Te", "Pragma", "X_Odd", "Content-Language", "Incremental")
		fmt.Fprintf(&b, "%s:%s%s\r\n", name, pick(r, " ", "", "  ", "\t"), pick(r, "a", "b=c; Path=/; HttpOnly", "", "d, e", "\"x\"", "\xe4", "?1", strings.Repeat("y", 300)))
	}
	// It is true to its word. And it does not close and name fields at once: net/http would
	// have reverse_proxy forward those, while the fast lane does not.
	if some(r, 6) && !e.closes {
		b.WriteString("Connection: " + pick(r, "X-Named", "keep-alive", "x-multi, X-Named", "keep-alive, Etag") + "\r\nX-Named: by Connection\r\n")
	} else if some(r, 8) && !e.closes {
		b.WriteString("Connection: close\r\n")
		e.closes = true
	}
	if !some(r, 3) {
		b.WriteString("Content-Type: " + pick(r, "text/plain", "text/html; charset=utf-8", "application/json", "text/event-stream", "image/png", "TEXT/EVENT-STREAM;a=b") + "\r\n")
	}
	body := append([]byte(pick(r, "", "<html>", "%PDF-1.4 ", "{\"a\": 1}", "\x89PNG\r\n\x1a\n", "\x00\x01\x02")), text(r, size(r))...)
	if some(r, 20) {
		body = append(body, text(r, pick(r, 200<<10, 1<<20))...)
	}
	none := e.method == "HEAD" || strings.HasPrefix(status, "204") || strings.HasPrefix(status, "304")
	start := 0
	switch framing := pick(r, "length", "length", "chunked", "chunked", "close"); {
	case framing == "length" || strings.HasPrefix(status, "204"):
		if !strings.HasPrefix(status, "204") {
			fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
			if some(r, 10) {
				fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
			}
		}
		b.WriteString("\r\n")
		start = b.Len()
		if !none {
			b.Write(body)
		}
	case framing == "chunked" && version == "HTTP/1.1 ":
		e.unknown = true
		b.WriteString("Transfer-Encoding: " + pick(r, "chunked", "Chunked") + "\r\n")
		trailer := some(r, 3)
		if trailer && some(r, 2) {
			b.WriteString("Trailer: " + pick(r, "X-Sum", "x-sum, X-Late", "X-Never") + "\r\n")
		}
		b.WriteString("\r\n")
		start = b.Len()
		if !none {
			for len(body) > 0 {
				n := min(len(body), 1+r.IntN(9000))
				fmt.Fprintf(&b, "%x%s\r\n%s\r\n", n, pick(r, "", "", ";a=b"), body[:n])
				body = body[n:]
			}
			b.WriteString("0\r\n")
			if trailer {
				b.WriteString("X-Sum: 1\r\nX-Late: 2\r\n" + pick(r, "", "x-sum: 3\r\n"))
			}
			b.WriteString("\r\n")
		}
	default:
		e.unknown = true
		b.WriteString("\r\n")
		start = b.Len()
		if !none {
			e.closes = true
			b.Write(body)
		}
	}
	e.answer = b.Bytes()
	if start == b.Len() && isStream(e.answer) {
		// The header of a stream is flushed by reverse_proxy's timer. Where there is no
		// body, HTTP/3's server gives the answer a length if that comes too late.
		e.unknown = true
	}
	e.untyped = (e.unknown || bytes.Contains(e.answer[:start], []byte("Incremental"))) && !bytes.Contains(e.answer[:start], []byte("\r\nContent-Type"))
	if !none && some(r, 12) && b.Len() > start+20 {
		// It breaks off: even what is read until the connection closes, if it is in chunks.
		e.answer, e.closes, e.cut = e.answer[:start+20+r.IntN(b.Len()-start-20)], true, true
	}
	// What the type is guessed by comes at once.
	for at := start + 20; at < len(e.answer) && len(e.splits) < 5; at += 1 + r.IntN(len(e.answer)) {
		e.splits = append(e.splits, at)
	}
}

// laneUpstream answers each request with the answer of its exchange.
type laneUpstream struct {
	url       string
	exchanges sync.Map // by number
}

func newLaneUpstream(t *testing.T) *laneUpstream {
	u := new(laneUpstream)
	u.url = "http://" + rawUpstream(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for u.serve(t, conn, r) {
		}
	})
	return u
}

// serve says whether the connection goes on.
func (u *laneUpstream) serve(t *testing.T, conn net.Conn, r *bufio.Reader) bool {
	if _, err := r.Peek(1); err != nil {
		return false
	}
	req, err := http.ReadRequest(r)
	if err != nil {
		t.Errorf("the upstream was sent what is no request: %v", err)
		return false
	}
	value, ok := u.exchanges.Load(req.Header.Get(exchangeField))
	if !ok {
		t.Errorf("the upstream was sent a request of nobody: %s %s %v", req.Method, req.URL, req.Header)
		return false
	}
	e := value.(*exchange)
	if req.Header.Get("Expect") != "" {
		say("HTTP/1.1 100 Continue\r\n\r\n")(conn)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Errorf("exchange %s: the upstream was sent a part of a body: %v", e.id(), err)
		return false
	}
	e.mu.Lock()
	e.had = append(e.had, asked{req.Method + " " + req.RequestURI + " " + req.Proto, req.Host, lines(req.Header), string(body), req.ContentLength, req.Trailer})
	e.mu.Unlock()
	at := 0
	for _, end := range append(e.splits, len(e.answer)) {
		if _, err := conn.Write(e.answer[at:end]); err != nil {
			return false
		}
		at = end
	}
	return !e.closes
}
