package http1

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// seed adds all answers of the tables.
func seed(f *testing.F) {
	f.Helper()
	for _, c := range good {
		if len(c.text) < 10_000 {
			f.Add(c.text, c.method == http.MethodHead)
		}
	}
	for name, text := range bad {
		if strings.HasSuffix(name, "|") {
			text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + text
		}
		if len(text) < 10_000 {
			f.Add(text, false)
		}
	}
}

func methodOf(head bool) string {
	if head {
		return http.MethodHead
	}
	return http.MethodGet
}

// FuzzParts reads the same bytes in several ways, which must not make a difference, and
// once more with others behind the answer's end, which must not be looked at.
func FuzzParts(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string, head bool) {
		method := methodOf(head)
		whole := readAnswer(text, method, 4096, plain)
		for name, wrap := range readers {
			if diff := cmp.Diff(whole, readAnswer(text, method, 1+len(text)%13, wrap)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if whole.Err != "" || !whole.Chunked && whole.Length < 0 && whole.Close {
			return
		}
		for _, next := range []string{"", "\r\n", "next", "HTTP/1.1 200 OK\r\n\r\n"} {
			if diff := cmp.Diff(whole, readAnswer(text[:whole.Used]+next, method, 4096, plain)); diff != "" {
				t.Errorf("with %q behind it: %s", next, diff)
			}
		}
	})
}

// FuzzLikeNetHTTP demands of every answer that is accepted that net/http accepts it,
// too, and sees the same in it: nobody behind the gateway may see another answer in
// the same bytes. The other way round there are answers that only net/http accepts.
// These differences are known:
//
//   - net/http drops the fields Transfer-Encoding, Trailer and Connection: close, and
//     removes equal lengths but one.
//   - net/http makes "Pragma: no-cache" a Cache-Control, if there is none.
//   - net/http refuses trailers of more than its buffer.
func FuzzLikeNetHTTP(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, text string, head bool) {
		got := readAnswer(text, methodOf(head), 4096, plain)
		if got.Err != "" {
			return
		}
		src := strings.NewReader(text)
		r := bufio.NewReaderSize(iotest.HalfReader(src), 512<<10)
		req := &http.Request{Method: methodOf(head)}
		resp, err := http.ReadResponse(r, req)
		for range got.Interim {
			if err != nil {
				break
			}
			resp, err = http.ReadResponse(r, req)
		}
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", text, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("net/http refuses the body of %q: %v", text, err)
		}
		if resp.StatusCode != got.Status || resp.ProtoMajor != 1 || resp.ProtoMinor != got.Minor || string(body) != got.Body {
			t.Errorf("net/http sees %s %s %q", resp.Proto, resp.Status, body)
		}
		if used := len(text) - src.Len() - r.Buffered(); used != got.Used {
			t.Errorf("net/http has read %d bytes, want %d", used, got.Used)
		}
		if resp.Close && !got.Close {
			t.Error("net/http would close the connection")
		}
		if diff := cmp.Diff(headerOf(resp.Header), fieldsOf(got.Fields)); diff != "" {
			t.Errorf("the header: %s", diff)
		}
		if len(got.Trailer) > 0 || !head {
			for name := range resp.Trailer {
				if resp.Trailer[name] == nil { // announced only
					delete(resp.Trailer, name)
				}
			}
			if diff := cmp.Diff(headerOf(resp.Trailer), fieldsOf(got.Trailer)); diff != "" {
				t.Errorf("the trailer: %s", diff)
			}
		}
	})
}

// ignored are fields that net/http may have dropped.
var ignored = []string{"Transfer-Encoding", "Trailer", "Connection", "Cache-Control", "Pragma"}

func headerOf(h http.Header) map[string][]string {
	m := make(map[string][]string)
	for name, values := range h {
		if !slices.Contains(ignored, name) && len(values) > 0 {
			m[name] = values
		}
	}
	return m
}

func fieldsOf(fields []Field) map[string][]string {
	m := make(map[string][]string)
	for _, f := range fields {
		if !slices.Contains(ignored, f.Name) && (f.Name != "Content-Length" || m[f.Name] == nil) {
			m[f.Name] = append(m[f.Name], f.Value)
		}
	}
	return m
}
