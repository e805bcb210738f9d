package e2e_test

import (
	"strings"
)

// bad and good are the answers of most attacks.
var (
	bad  = []int{400}
	good = []int{200}
)

// pathAttacks try to make the gateway match another path than the upstream
// serves.
var pathAttacks = []rawAttack{
	{name: "dot segment", raw: get("/all/./x"), status: bad},
	{name: "dot-dot segment", raw: get("/all/../x"), status: bad},
	{name: "dot-dot at the end", raw: get("/all/.."), status: bad},
	{name: "encoded dot-dot", raw: get("/all/%2e%2e/x"), status: bad},
	{name: "half encoded dot-dot", raw: get("/all/.%2E/x"), status: bad},
	{name: "encoded dot", raw: get("/all/%2e/x"), status: bad},
	{name: "dot-dot with encoded slash", raw: get("/all/..%2fx"), status: bad},
	{name: "all encoded", raw: get("/all%2f%2e%2e%2fx"), status: bad},
	{name: "dot-dot with parameter", raw: get("/all/..;/x"), status: bad},
	{name: "dot-dot with named parameter", raw: get("/all/..;a=b/x"), status: bad},
	{name: "dot-dot with encoded parameter", raw: get("/all/..%3b/x"), status: bad},
	{name: "doubly encoded dots", raw: get("/all/%252e%252e/x"), status: bad},
	{name: "doubly encoded slash", raw: get("/all/..%252fx"), status: bad},
	{name: "backslash", raw: get(`/all/..\x`), status: bad},
	{name: "encoded backslash", raw: get("/all/..%5cx"), status: bad},
	{name: "doubly encoded backslash", raw: get("/all/..%255cx"), status: bad},
	{name: "NUL", raw: get("/all/x%00.html"), status: bad},
	{name: "encoded line end", raw: get("/all/x%0d%0aX-Evil:%201"), status: bad},
	{name: "encoded control character", raw: get("/all/%01"), status: bad},
	{name: "encoded DEL", raw: get("/all/%7f"), status: bad},
	{name: "raw control character", raw: get("/all/\x01"), status: bad},
	{name: "invalid percent-encoding", raw: get("/all/%zz"), status: bad},
	{name: "cut percent-encoding", raw: get("/all/%2"), status: bad},
	{name: "IIS percent-encoding", raw: get("/all/%u002e%u002e/x"), status: bad},
	{name: "double slash", raw: get("/all//x"), status: bad},
	{name: "double slash in front", raw: get("//all/x"), status: []int{400, 404}},
	{name: "no slash in front", raw: get("all/x"), status: bad},
	{name: "encoded slash stays", raw: get("/all/a%2fb"), status: good, uri: "/all/a%2Fb"},
	{name: "encoded letters are decoded", raw: get("/%61ll/%7e%41"), status: good, uri: "/all/~A"},
	{name: "case counts", raw: get("/ALL/x"), status: []int{404}},
	{name: "parameter", raw: get("/all/x;v=1"), status: good, uri: "/all/x;v=1"},
	{name: "query is left alone", raw: get("/all/x?a=../..&b=%2e%2E&c=%00"), status: good, uri: "/all/x?a=../..&b=%2e%2E&c=%00"},
	{name: "query with semicolons", raw: get("/all/x?a=1;b=2"), status: good, uri: "/all/x?a=1;b=2"},
	{name: "empty query", raw: get("/all/x?"), status: good, uri: "/all/x?"},
	{name: "second question mark", raw: get("/all/x?a?b"), status: good, uri: "/all/x?a?b"},
	{name: "fragment", raw: get("/all/x#/../y"), status: bad},
}

// framingAttacks try to make the gateway and the upstream disagree about where
// a request ends.
var framingAttacks = []rawAttack{
	{name: "length and chunked", raw: post("5\r\nhello\r\n0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked"), status: []int{200, 400}, uri: "/all/x", body: "hello", check: wantHeader("Content-Length")},
	{name: "length twice, equal", raw: post("hello", "Content-Length: 5", "Content-Length: 5"), status: good, uri: "/all/x", body: "hello"},
	{name: "length twice, unequal", raw: post("hello", "Content-Length: 5", "Content-Length: 6"), status: bad},
	{name: "length as list", raw: post("hello", "Content-Length: 5, 5"), status: bad},
	{name: "length with plus", raw: post("hello", "Content-Length: +5"), status: bad},
	{name: "negative length", raw: post("hello", "Content-Length: -5"), status: bad},
	{name: "hexadecimal length", raw: post("hello", "Content-Length: 0x5"), status: bad},
	{name: "length with underscore", raw: post("hello", "Content-Length: 1_0"), status: bad},
	{name: "empty length", raw: post("", "Content-Length:"), status: []int{400}},
	{name: "length beyond numbers", raw: post("hello", "Content-Length: 99999999999999999999"), status: bad},
	{name: "length with space before the colon", raw: post("hello", "Content-Length : 5"), status: bad},
	{name: "length with spaces", raw: post("hello", "Content-Length: \t 5 "), status: good, uri: "/all/x", body: "hello"},
	{name: "unknown coding", raw: post("hello", "Transfer-Encoding: xchunked"), status: []int{400, 501}},
	{name: "coding beside chunked", raw: post("0\r\n\r\n", "Transfer-Encoding: gzip, chunked"), status: []int{400, 501}},
	{name: "chunked twice in one field", raw: post("0\r\n\r\n", "Transfer-Encoding: chunked, chunked"), status: []int{400, 501}},
	{name: "chunked in two fields", raw: post("0\r\n\r\n", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), status: []int{400, 501}},
	{name: "chunked and identity", raw: post("0\r\n\r\n", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), status: []int{400, 501}},
	{name: "identity with length", raw: post("hello", "Transfer-Encoding: identity", "Content-Length: 5"), status: []int{400, 501}},
	{name: "chunked with vertical tab", raw: post("0\r\n\r\n", "Transfer-Encoding: \vchunked"), status: []int{400, 501}},
	{name: "chunked with space before the colon", raw: post("0\r\n\r\n", "Transfer-Encoding : chunked"), status: bad},
	{name: "chunked in quotes", raw: post("0\r\n\r\n", `Transfer-Encoding: "chunked"`), status: []int{400, 501}},
	{name: "chunked folded", raw: post("0\r\n\r\n", "Transfer-Encoding:\r\n chunked"), status: []int{200, 400, 501}, uri: "/all/x"},
	{name: "chunked in capitals", raw: post("5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: CHUNKED"), status: good, uri: "/all/x", body: "hello"},
	{name: "chunked in HTTP/1.0", raw: line("POST /all/x HTTP/1.0", "Host: x", "Transfer-Encoding: chunked", "Connection: keep-alive") + "5\r\nhello\r\n0\r\n\r\n", status: []int{200, 400, 501}, uri: "/all/x", rest: true},
	{name: "chunk size with plus", raw: post("+5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk size with 0x", raw: post("0x5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "negative chunk size", raw: post("-1\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "empty chunk size", raw: post("\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk size beyond numbers", raw: post("fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk with extension", raw: post("5;a=b\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: good, uri: "/all/x", body: "hello"},
	{name: "chunk with line end in extension", raw: post("5;a\nb\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk extension without end", raw: post("5;"+strings.Repeat("a", 20_000)+"\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk longer than its size", raw: post("4\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk without line end", raw: post("5\r\nhello0\r\n\r\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "chunk with bare line feeds", raw: post("5\nhello\n0\n\n", "Transfer-Encoding: chunked"), status: bad},
	{name: "trailers", raw: post("5\r\nhello\r\n0\r\nContent-Length: 99\r\nX-After: y\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: X-After"), status: []int{200, 400}, uri: "/all/x", body: "hello"},
	{name: "cut body", raw: post("hel", "Content-Length: 5"), status: []int{400, 499, cut}, half: true},
	{name: "cut chunks", raw: post("5\r\nhel", "Transfer-Encoding: chunked"), status: []int{400, 499, cut}, half: true},
	{name: "body of a GET", raw: get("/all/x", "Content-Length: 5") + "hello", status: good, uri: "/all/x", body: "hello"},
	{name: "request in the body of a GET", raw: get("/all/x", "Content-Length: 33") + hidden, status: good, uri: "/all/x", body: hidden},
	{name: "length that Connection names", raw: post("hello", "Content-Length: 5", "Connection: Content-Length"), status: good, uri: "/all/x", body: "hello"},
	{name: "chunked that Connection names", raw: post("5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "Connection: Transfer-Encoding"), status: good, uri: "/all/x", body: "hello"},
}

// syntaxAttacks are malformed or oversized.
var syntaxAttacks = []rawAttack{
	{name: "folded field", raw: get("/all/x", "X-A: one\r\n two"), status: []int{200, 400}, uri: "/all/x", check: wantHeader("X-A", "one two")},
	{name: "folded first field", raw: line("GET /all/x HTTP/1.1", " X-A: one", "Host: x"), status: bad},
	{name: "bare line feeds", raw: "GET /all/x HTTP/1.1\nHost: x\n\n", status: []int{200, 400}, uri: "/all/x"},
	{name: "bare carriage return in a value", raw: get("/all/x", "X-A: one\rX-B: two"), status: bad},
	{name: "NUL in a value", raw: get("/all/x", "X-A: one\x00two"), status: bad},
	{name: "NUL in a name", raw: get("/all/x", "X\x00A: one"), status: bad},
	{name: "field without colon", raw: get("/all/x", "X-A"), status: bad},
	{name: "field without name", raw: get("/all/x", ": one"), status: bad},
	{name: "space in a name", raw: get("/all/x", "X A: one"), status: bad},
	{name: "space before the colon", raw: get("/all/x", "X-A : one"), status: bad},
	{name: "high bytes in a name", raw: get("/all/x", "X-\xc3\xa4: one"), status: bad},
	{name: "high bytes in a value", raw: get("/all/x", "X-A: \xc3\xa4"), status: good, uri: "/all/x", check: wantHeader("X-A", "\xc3\xa4")},
	{name: "oversized field", raw: get("/all/x", "X-A: "+strings.Repeat("a", 1<<20+8192)), status: []int{431, cut}},
	{name: "oversized header", raw: get("/all/x", strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 1100)+"X-B: c"), status: []int{431, cut}},
	{name: "oversized path", raw: get("/all/" + strings.Repeat("a", 1<<20+8192)), status: []int{414, 431, cut}},
	{name: "no version", raw: "GET /all/x\r\nHost: x\r\n\r\n", status: bad},
	{name: "unknown version", raw: line("GET /all/x HTTP/3.7", "Host: x"), status: []int{400, 505}},
	{name: "version in lower case", raw: line("GET /all/x http/1.1", "Host: x"), status: bad},
	{name: "version without minor", raw: line("GET /all/x HTTP/1", "Host: x"), status: bad},
	{name: "HTTP/2 preface", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status: []int{400, 404, 405, 505, cut}},
	{name: "spaces in the request line", raw: line("GET /all/x /y HTTP/1.1", "Host: x"), status: bad},
	{name: "tab in the request line", raw: line("GET\t/all/x\tHTTP/1.1", "Host: x"), status: bad},
	{name: "empty lines in front", raw: "\r\n\r\n" + get("/all/x"), status: []int{200, 400}},
	{name: "TLS to a plain port", raw: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", status: []int{400, cut}},
	{name: "garbage", raw: "\x00\xff\xfe" + strings.Repeat("x", 32) + "\r\n\r\n", status: []int{400, cut}},
	{name: "nothing", raw: "", status: []int{cut}, half: true},
	{name: "half a header", raw: "GET /all/x HTTP/1.1\r\nHo", status: []int{400, cut}, half: true},
}

// hostAttacks try to reach a route of another host, or to confuse about it.
var hostAttacks = []rawAttack{
	{name: "no host", raw: line("GET /all/x HTTP/1.1"), status: bad},
	{name: "two hosts", raw: line("GET /all/x HTTP/1.1", "Host: x", "Host: inside.test"), status: bad},
	{name: "host as list", raw: line("GET /secret HTTP/1.1", "Host: x, inside.test"), status: bad},
	{name: "host with space", raw: line("GET /secret HTTP/1.1", "Host: x inside.test"), status: bad},
	{name: "host with path", raw: line("GET /secret HTTP/1.1", "Host: inside.test/x"), status: []int{400, 404}},
	{name: "host with user", raw: line("GET /secret HTTP/1.1", "Host: x@inside.test"), status: []int{400, 404}},
	{name: "host with NUL", raw: line("GET /secret HTTP/1.1", "Host: inside.test\x00x"), status: bad},
	{name: "host with bad port", raw: line("GET /secret HTTP/1.1", "Host: x:inside.test"), status: []int{400, 404}},
	{name: "empty host", raw: line("GET /all/x HTTP/1.1", "Host:"), status: []int{200, 400}, uri: "/all/x"},
	{name: "forwarded host", raw: get("/secret", "X-Forwarded-Host: inside.test"), status: []int{404}},
	{name: "host of Forwarded", raw: get("/secret", "Forwarded: host=inside.test"), status: []int{404}},
	{name: "X-Host", raw: get("/secret", "X-Host: inside.test"), status: []int{404}},
	{name: "original URL", raw: get("/all/x", "X-Original-Url: /secret", "X-Rewrite-Url: /secret"), status: good, uri: "/all/x",
		check: checks(wantHeader("X-Original-Url"), wantHeader("X-Rewrite-Url"))},
	{name: "absolute form", raw: get("http://x/all/x?y"), status: good, uri: "/all/x?y"},
	{name: "absolute form with user", raw: get("http://user:password@x/all/x"), status: []int{200, 400}, uri: "/all/x"},
	{name: "absolute form without path", raw: get("http://x"), status: []int{400, 404}},
	{name: "absolute form of another scheme", raw: get("ftp://x/nothing"), status: []int{400, 404}},
	{name: "absolute form with dot-dot", raw: get("http://x/all/../secret"), status: bad},
	{name: "authority form", raw: get("x:80"), status: bad},
	{name: "opaque form", raw: get("x:http://inside.test/secret"), status: bad},
	{name: "opaque form of http", raw: get("http:secret"), status: bad},
}

// methodAttacks use methods as they are not meant.
var methodAttacks = []rawAttack{
	{name: "TRACE", raw: line("TRACE /all/x HTTP/1.1", "Host: x"), status: []int{405, 501}},
	{name: "CONNECT to a host", raw: line("CONNECT example.com:443 HTTP/1.1", "Host: example.com:443"), status: []int{400, 404, 405}},
	{name: "CONNECT to a path", raw: line("CONNECT /all/x HTTP/1.1", "Host: x"), status: []int{400, 405}},
	{name: "CONNECT with protocol", raw: line("CONNECT /all/x HTTP/1.1", "Host: x", "Protocol: websocket"), status: []int{400, 405}},
	{name: "OPTIONS of everything", raw: line("OPTIONS * HTTP/1.1", "Host: x"), status: []int{200, 204, 400, 404}},
	{name: "GET of everything", raw: line("GET * HTTP/1.1", "Host: x"), status: []int{400, 404}},
	{name: "method in lower case", raw: line("get /all/x HTTP/1.1", "Host: x"), status: []int{200, 400, 405}, uri: "/all/x"},
	{name: "method with slash", raw: line("G/T /all/x HTTP/1.1", "Host: x"), status: bad},
	{name: "method with high bytes", raw: line("G\xc3\xa4T /all/x HTTP/1.1", "Host: x"), status: bad},
	{name: "no method", raw: line(" /all/x HTTP/1.1", "Host: x"), status: bad},
	{name: "method override", raw: line("GET /all/x HTTP/1.1", "Host: x", "X-HTTP-Method-Override: TRACE"), status: good, uri: "/all/x", check: func(s seen) error {
		return wantHeader("X-Http-Method-Override", "TRACE")(s)
	}},
	{name: "unknown expectation", raw: post("hello", "Content-Length: 5", "Expect: miracles"), status: []int{400, 417}},
}

// headerAttacks pretend to be somebody else, or take fields away.
var headerAttacks = []rawAttack{
	{name: "spoofed addresses", raw: get("/all/x", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "Forwarded: for=1.2.3.4",
		"X-Real-IP: 1.2.3.4", "True-Client-IP: 1.2.3.4", "CF-Connecting-IP: 1.2.3.4", "X-Client-IP: 1.2.3.4", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /x"),
		status: good, uri: "/all/x",
		check: checks(wantHeader("X-Forwarded-For", "127.0.0.1"), wantHeader("X-Forwarded-Proto", "http"), wantHeader("X-Forwarded-Host", "x"), wantHeader("Forwarded"),
			wantHeader("X-Real-Ip"), wantHeader("True-Client-Ip"), wantHeader("Cf-Connecting-Ip"), wantHeader("X-Client-Ip"), wantHeader("X-Forwarded-Port"), wantHeader("X-Forwarded-Prefix"))},
	{name: "twins with underscore and dot", raw: get("/all/x", "X_Forwarded_For: 1.2.3.4", "X-Forwarded_For: 1.2.3.4", "X.User: evil", "X_User: evil"), status: good, uri: "/all/x",
		check: func(s seen) error {
			return checks(wantHeader("X_forwarded_for"), wantHeader("X-Forwarded_for"), wantHeader("X.user"), wantHeader("X_user"))(s)
		}},
	{name: "field set by a plugin", raw: get("/set/x", "X-User: evil"), status: good, uri: "/set/x", check: wantHeader("X-User", "alice")},
	{name: "Connection names a plugin's field", raw: get("/set/x", "Connection: close, X-User"), status: good, uri: "/set/x", check: wantHeader("X-User", "alice")},
	{name: "Connection names it in two lines", raw: get("/set/x", "Connection: keep-alive", "Connection: x-user"), status: good, uri: "/set/x", check: wantHeader("X-User", "alice")},
	{name: "Connection names the address", raw: get("/all/x", "Connection: X-Forwarded-For, X-Request-Id, Host"), status: good, uri: "/all/x",
		check: func(s seen) error {
			return checks(wantHeader("X-Forwarded-For", "127.0.0.1"), func(s seen) error {
				if len(s.header["X-Request-Id"]) != 1 {
					return errMissingID
				}
				return nil
			})(s)
		}},
	{name: "Connection names a client's field", raw: get("/all/x", "Connection: X-Mine", "X-Mine: 1"), status: good, uri: "/all/x", check: wantHeader("X-Mine")},
	{name: "hop-by-hop fields", raw: get("/all/x", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5", "TE: gzip"), status: good, uri: "/all/x",
		check: checks(wantHeader("Keep-Alive"), wantHeader("Proxy-Connection"), wantHeader("Proxy-Authorization"), wantHeader("Te"))},
	{name: "upgrade to HTTP/2", raw: get("/all/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), status: good, uri: "/all/x",
		check: checks(wantHeader("Upgrade"), wantHeader("Http2-Settings"), wantHeader("Connection"))},
	{name: "upgrade without Connection", raw: get("/all/x", "Upgrade: websocket"), status: good, uri: "/all/x", check: wantHeader("Upgrade")},
	{name: "malformed request id", raw: get("/all/x", "X-Request-Id: evil id"), status: good, uri: "/all/x", check: freshRequestID("evil id")},
	{name: "long request id", raw: get("/all/x", "X-Request-Id: "+strings.Repeat("a", 1000)), status: good, uri: "/all/x", check: freshRequestID(strings.Repeat("a", 1000))},
	{name: "two request ids", raw: get("/all/x", "X-Request-Id: a", "X-Request-Id: b"), status: good, uri: "/all/x", check: freshRequestID("a")},
	{name: "well-formed request id", raw: get("/all/x", "X-Request-Id: my-id.1"), status: good, uri: "/all/x", check: wantHeader("X-Request-Id", "my-id.1")},
}

// freshRequestID checks that the gateway has replaced the client's id.
func freshRequestID(given string) func(seen) error {
	return func(s seen) error {
		if got := s.header["X-Request-Id"]; len(got) != 1 || got[0] == given || got[0] == "" {
			return errMissingID
		}
		return nil
	}
}
