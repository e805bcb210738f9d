package http1

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// read is what a Reader has made of a connection's bytes.
type read struct {
	Interim []int // the statuses of what came before the answer
	Status  int
	Reason  string
	Minor   int
	Fields  []Field
	Length  int64
	Chunked bool
	Close   bool
	Body    string
	Trailer []Field
	Ended   bool // the body was read to its end
	Used    int  // bytes, up to the answer's end
	Err     string
}

// readAnswer reads one answer. Of its body, part bytes are asked for at once.
func readAnswer(text, method string, part int, wrap func(io.Reader) io.Reader) read {
	src := strings.NewReader(text)
	var (
		r    Reader
		h    Head
		got  read
		err  error
		body strings.Builder
	)
	r.Reset(wrap(src))
	for {
		if err = r.ReadHead(&h); err != nil {
			got.Err = err.Error()
			return got
		}
		if !h.Informational() {
			break
		}
		got.Interim = append(got.Interim, h.Status)
	}
	b := r.Body(&h, method)
	buf := make([]byte, part)
	for {
		var n int
		n, err = b.Read(buf)
		body.Write(buf[:n])
		if err != nil {
			break
		}
	}
	got.Status, got.Reason, got.Minor, got.Fields = h.Status, h.Reason, h.Minor, append([]Field{}, h.Fields...)
	got.Length, got.Chunked, got.Close = h.Length, h.Chunked, h.Close
	got.Body, got.Trailer, got.Ended = body.String(), b.Trailer, b.Ended()
	if !errors.Is(err, io.EOF) {
		got.Err = err.Error()
		return got
	}
	got.Used = len(text) - src.Len() - r.Buffered()
	return got
}

func plain(r io.Reader) io.Reader { return r }

// readers are ways in which the same bytes may come.
var readers = map[string]func(io.Reader) io.Reader{
	"one byte at a time": iotest.OneByteReader,
	"by halves":          iotest.HalfReader,
	"with the end":       iotest.DataErrReader,
	"in odd parts": func(r io.Reader) io.Reader {
		return &oddReader{r, rand.New(rand.NewPCG(1, 2))}
	},
}

// oddReader returns some bytes, and sometimes none.
type oddReader struct {
	io.Reader
	random *rand.Rand
}

func (r *oddReader) Read(p []byte) (int, error) {
	return r.Reader.Read(p[:min(len(p), r.random.IntN(7))])
}

// good are answers, each with what is read of it for a GET unless another method is
// named. What follows an answer is "next".
var good = []struct {
	name, method, text string
	body               string
	trailer            []Field
	closes             bool
	surplus            int
}{
	{name: "a length", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellonext", body: "hello", surplus: 4},
	{name: "length 0", text: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nnext", surplus: 4},
	{name: "the same length twice", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", body: "hello"},
	{name: "no reason", text: "HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", body: "a"},
	{name: "an empty reason", text: "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\na", body: "a"},
	{name: "letters beyond ASCII", text: "HTTP/1.1 200 \xe4\xc3\xa4\r\nX-\x61: \xe4\xc3\xa4\r\nContent-Length: 1\r\n\r\na", body: "a"},
	{name: "blanks around a value", text: "HTTP/1.1 200 OK\r\nContent-Length: \t 1 \t\r\nX-Empty:\r\nX-Blank: \t \r\nX-Inner: a \t b\r\n\r\na", body: "a"},
	{name: "until it closes", text: "HTTP/1.1 200 OK\r\n\r\nall of it", body: "all of it", closes: true},
	{name: "nothing until it closes", text: "HTTP/1.1 200 OK\r\n\r\n", closes: true},
	{name: "HTTP/1.0", text: "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na", body: "a", closes: true},
	{name: "Connection: close", text: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\na", body: "a", closes: true},
	{name: "chunks", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n006\r\n world\r\n0\r\n\r\nnext", body: "hello world", surplus: 4},
	{name: "no chunk", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nnext", surplus: 4},
	{name: "hexadecimal sizes", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\naB\r\n" + strings.Repeat("x", 0xab) + "\r\n000\r\n\r\n", body: strings.Repeat("x", 0xab)},
	{name: "extensions", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n1; c=\"d;e\"\r\nb\r\n0;last\r\n\r\n", body: "ab"},
	{name: "blanks behind a size", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 \t\r\na\r\n0  \r\n\r\n", body: "a"},
	{name: "a trailer", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\nX-Late: 2\r\nx-sum: 3\r\n\r\nnext", body: "a",
		trailer: []Field{{"X-Sum", "1"}, {"X-Late", "2"}, {"X-Sum", "3"}}, surplus: 4},
	{name: "HEAD", method: "HEAD", text: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnext", surplus: 4},
	{name: "HEAD, chunked", method: "HEAD", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnext", surplus: 4},
	{name: "HEAD, nothing said", method: "HEAD", text: "HTTP/1.1 200 OK\r\n\r\nnext", surplus: 4},
	{name: "204", text: "HTTP/1.1 204 No Content\r\n\r\nnext", surplus: 4},
	{name: "204 that announces a body", text: "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody", surplus: 4, closes: true},
	{name: "304", text: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nnext", surplus: 4},
	{name: "a strange status", text: "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n"},
	{name: "interim answers", text: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", body: "a"},
	{name: "a long body", text: "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("0123456789", 10_000) + "next", body: strings.Repeat("0123456789", 10_000), surplus: 4},
	{name: "long chunks", text: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1f40\r\n"+strings.Repeat("x", 8000)+"\r\n", 10) + "0\r\n\r\nnext", body: strings.Repeat("x", 80_000), surplus: 4},
	{name: "a long header", text: "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 250<<10) + "\r\nContent-Length: 1\r\n\r\na", body: "a"},
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range good {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			whole := readAnswer(c.text, c.method, 4096, plain)
			if whole.Err != "" || whole.Body != c.body || !whole.Ended || whole.Used != len(c.text)-c.surplus || whole.Close != c.closes {
				t.Errorf("read %.300q", fmt.Sprintf("%+v", whole))
			}
			if diff := cmp.Diff(c.trailer, whole.Trailer); diff != "" {
				t.Errorf("the trailer: %s", diff)
			}
			for name, wrap := range readers {
				for _, part := range []int{7, 100_000} {
					if diff := cmp.Diff(whole, readAnswer(c.text, c.method, part, wrap)); diff != "" {
						t.Errorf("%s, %d bytes asked for: %.1000s", name, part, diff)
					}
				}
			}
		})
	}
}

// TestTruncation ends the connection behind every byte: before the answer's end that is
// an error, and what came of the body is a beginning of it.
func TestTruncation(t *testing.T) {
	t.Parallel()
	for _, c := range good {
		if len(c.text) > 10_000 || strings.Contains(c.name, "until it closes") {
			continue
		}
		end := len(c.text) - c.surplus
		for i := range end {
			for _, wrap := range []func(io.Reader) io.Reader{plain, iotest.OneByteReader, iotest.DataErrReader} {
				got := readAnswer(c.text[:i], c.method, 100, wrap)
				want := io.ErrUnexpectedEOF.Error()
				if i == 0 || got.Status == 0 && strings.HasSuffix(c.text[:i], "\r\n\r\n") {
					want = io.EOF.Error()
				}
				if got.Err != want || got.Ended || !strings.HasPrefix(c.body, got.Body) {
					t.Errorf("%s: of %q there is read %+v", c.name, c.text[:i], got)
				}
			}
		}
	}
}

// bad are answers that are refused. What is before the bar is read before it comes to
// that.
var bad = map[string]string{
	"another version":               "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
	"HTTP/2":                        "HTTP/2.0 200 OK\r\n\r\n",
	"HTTP/0.9":                      "<html>",
	"lower case":                    "http/1.1 200 OK\r\n\r\n",
	"SSH":                           "SSH-2.0-OpenSSH_9.9\r\n",
	"TLS":                           "\x15\x03\x01\x00\x02\x02\x46",
	"an empty line first":           "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	"no status":                     "HTTP/1.1\r\n\r\n",
	"two digits":                    "HTTP/1.1 20 OK\r\n\r\n",
	"four digits":                   "HTTP/1.1 2000 OK\r\n\r\n",
	"a signed status":               "HTTP/1.1 +20 OK\r\n\r\n",
	"status 099":                    "HTTP/1.1 099 OK\r\n\r\n",
	"two blanks":                    "HTTP/1.1  200 OK\r\n\r\n",
	"NUL in the reason":             "HTTP/1.1 200 O\x00K\r\n\r\n",
	"bare CR in the reason":         "HTTP/1.1 200 O\rK\r\n\r\n",
	"bare LF":                       "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
	"bare LF behind a field":        "HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 0\r\n\r\n",
	"bare CR in a value":            "HTTP/1.1 200 OK\r\nX-A: b\rContent-Length: 0\r\n\r\n",
	"bare CR behind a value":        "HTTP/1.1 200 OK\r\nX-A: b\r\r\nContent-Length: 0\r\n\r\n",
	"bare CR for a value":           "HTTP/1.1 200 OK\r\nX-A:\r\r\nContent-Length: 0\r\n\r\n",
	"CR CR LF":                      "HTTP/1.1 200 OK\r\r\nContent-Length: 0\r\n\r\n",
	"NUL in a value":                "HTTP/1.1 200 OK\r\nX-A: b\x00\r\nContent-Length: 0\r\n\r\n",
	"DEL in a value":                "HTTP/1.1 200 OK\r\nX-A: b\x7f\r\nContent-Length: 0\r\n\r\n",
	"NUL in a name":                 "HTTP/1.1 200 OK\r\nX\x00A: b\r\nContent-Length: 0\r\n\r\n",
	"a blank before the colon":      "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
	"a name beyond ASCII":           "HTTP/1.1 200 OK\r\nX-\xc3\xa4: b\r\nContent-Length: 0\r\n\r\n",
	"no name":                       "HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
	"no colon":                      "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
	"obs-fold":                      "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
	"obs-fold by a tab":             "HTTP/1.1 200 OK\r\nX-A: b\r\n\tc\r\nContent-Length: 0\r\n\r\n",
	"obs-fold at once":              "HTTP/1.1 200 OK\r\n X-A: b\r\nContent-Length: 0\r\n\r\n",
	"two lengths":                   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	"two lengths in one field":      "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
	"a signed length":               "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
	"a negative length":             "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
	"a hexadecimal length":          "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\na",
	"an empty length":               "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
	"a huge length":                 "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
	"both":                          "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
	"both, the other way":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n",
	"another coding":                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
	"two codings":                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"chunked twice":                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"identity":                      "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na",
	"chunked by HTTP/1.0":           "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"a trailer that has a length":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A, content-length\r\n\r\n0\r\n\r\n",
	"a header over the bound":       "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 300<<10) + "\r\nContent-Length: 0\r\n\r\n",
	"many fields over the bound":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 40_000) + "Content-Length: 0\r\n\r\n",
	"an endless status line":        "HTTP/1.1 200 " + strings.Repeat("O", 300<<10),
	"no size|":                      "\r\na\r\n0\r\n\r\n",
	"an empty size|":                ";x\r\na\r\n0\r\n\r\n",
	"a size that is none|":          "1\r\na\r\nxyz\r\n",
	"a size by 0x|":                 "0x1\r\na\r\n0\r\n\r\n",
	"a signed size|":                "+1\r\na\r\n0\r\n\r\n",
	"a blank before the size|":      " 1\r\na\r\n0\r\n\r\n",
	"a huge size|":                  "ffffffffffffffffff\r\na",
	"a chunk too long|":             "1\r\nab\r\n0\r\n\r\n",
	"a chunk too short|":            "3\r\na\r\n0\r\n\r\n",
	"bare LF behind the size|":      "1\na\r\n0\r\n\r\n",
	"bare LF behind the chunk|":     "1\r\na\n0\r\n\r\n",
	"bare LF in an extension|":      "1;a\nb\r\na\r\n0\r\n\r\n",
	"bare CR in an extension|":      "1;a\rb\r\na\r\n0\r\n\r\n",
	"NUL in an extension|":          "1;a\x00\r\na\r\n0\r\n\r\n",
	"a blank before an extension|":  "1 ;a\r\na\r\n0\r\n\r\n",
	"words behind a size|":          "1 a\r\na\r\n0\r\n\r\n",
	"a long extension|":             "1;" + strings.Repeat("a", 5000+8192) + "\r\na\r\n0\r\n\r\n",
	"more extensions than data|":    strings.Repeat("1;"+strings.Repeat("a", 2000)+"\r\na\r\n", 20) + "0\r\n\r\n",
	"a length in the trailer|":      "0\r\nContent-Length: 1\r\n\r\n",
	"a coding in the trailer|":      "0\r\nTransfer-Encoding: chunked\r\n\r\n",
	"obs-fold in the trailer|":      "0\r\nX-A: b\r\n c\r\n\r\n",
	"bare LF in the trailer|":       "0\r\nX-A: b\n\r\n",
	"a trailer without colon|":      "0\r\nno colon\r\n\r\n",
	"an endless trailer|":           "0\r\n" + strings.Repeat("X-A: b\r\n", 40_000) + "\r\n",
	"an endless line in a trailer|": "0\r\nX-A: " + strings.Repeat("b", 300<<10) + "\r\n\r\n",
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, text := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if strings.HasSuffix(name, "|") {
				text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + text
			}
			whole := readAnswer(text, "GET", 4096, plain)
			if !strings.HasPrefix(whole.Err, ErrMalformed.Error()) || whole.Ended {
				t.Errorf("read %.300q", fmt.Sprintf("%+v", whole))
			}
			for name, wrap := range readers {
				for _, part := range []int{3, 100_000} {
					if diff := cmp.Diff(whole, readAnswer(text, "GET", part, wrap)); diff != "" {
						t.Errorf("%s, %d bytes asked for: %.1000s", name, part, diff)
					}
				}
			}
		})
	}
}

// TestReaderGoesOn looks at a Reader that serves several answers.
func TestReaderGoesOn(t *testing.T) {
	t.Parallel()
	const text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"
	var (
		r Reader
		h Head
	)
	for range 2 {
		r.Reset(iotest.HalfReader(strings.NewReader(text)))
		for _, want := range []string{"200 one", "404 two"} {
			if err := r.ReadHead(&h); err != nil {
				t.Fatal(err)
			}
			b := r.Body(&h, "GET")
			if body, err := io.ReadAll(&b); err != nil || fmt.Sprintf("%d %s", h.Status, body) != want {
				t.Errorf("read %d %q (%v), want %s", h.Status, body, err, want)
			}
		}
		if err := r.ReadHead(&h); !errors.Is(err, io.EOF) {
			t.Errorf("at the end there comes %v", err)
		}
	}
}

func TestHopByHop(t *testing.T) {
	t.Parallel()
	var (
		r Reader
		h Head
	)
	r.Reset(strings.NewReader("HTTP/1.1 200 OK\r\nConnection: x-a , close\r\nConnection: X-B,,keep-alive\r\n\r\n"))
	if err := r.ReadHead(&h); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"X-A": true, "X-B": true, "X-C": false, "Connection": true, "Te": true, "Upgrade": true, "Content-Length": false, "Close": false} {
		if got := h.HopByHop(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestBuffered looks at what is there without waiting.
func TestBuffered(t *testing.T) {
	t.Parallel()
	var (
		r Reader
		h Head
	)
	r.Reset(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nonetwo2!next"))
	if err := r.ReadHead(&h); err != nil {
		t.Fatal(err)
	}
	b := r.Body(&h, "GET")
	if got := string(b.Buffered()); got != "onetwo2!" || b.Left() != 8 || !b.Ready() {
		t.Errorf("%q is there of %d", got, b.Left())
	}
	b.Discard(3)
	if got := string(b.Buffered()); got != "two2!" || b.Left() != 5 {
		t.Errorf("%q is there of %d", got, b.Left())
	}
	b.Discard(5)
	if !b.Ended() || len(b.Buffered()) != 0 || r.Buffered() != 4 {
		t.Errorf("ended: %v, %d bytes follow", b.Ended(), r.Buffered())
	}
}

// TestBufferedLong has a body that is longer than an int of 32 bits can say.
func TestBufferedLong(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"2147483648", "3000000000", "4294967296", "999999999999999"} {
		var (
			r Reader
			h Head
		)
		r.Reset(strings.NewReader("HTTP/1.1 200 OK\r\nContent-Length: " + length + "\r\n\r\nsome of it"))
		if err := r.ReadHead(&h); err != nil {
			t.Fatal(err)
		}
		b := r.Body(&h, "GET")
		if got := string(b.Buffered()); got != "some of it" || strconv.FormatInt(b.Left(), 10) != length {
			t.Errorf("of %s, %q is there of %d", length, got, b.Left())
		}
	}
}
