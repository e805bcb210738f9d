package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	endian "encoding/binary"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestWebSocketOverHTTP2 opens a WebSocket by an extended CONNECT (RFC 8441). Go's
// server offers it only if asked by GODEBUG.
func TestWebSocketOverHTTP2(t *testing.T) {
	t.Setenv("GODEBUG", "http2xconnect=1")
	g := startGateway(t, settings{sites: tlsSite})
	g.create(route{Path: "/ws/{room}", TargetURL: echoUpstream(t)})
	g.waitCertificate("localhost")
	transport := &http2.Transport{TLSClientConfig: g.trust("localhost")} //nolint:staticcheck // the client of net/http has no extended CONNECT
	t.Cleanup(transport.CloseIdleConnections)                            //nolint:staticcheck // the client of net/http has no extended CONNECT

	closed := make(chan string, 1)
	g.create(route{Path: "/codes", TargetURL: closesUpstream(t, closed)})
	g.create(route{Path: "/half", TargetURL: halfClosingUpstream(t)})
	second := 1
	g.create(route{Path: "/idle", TargetURL: echoUpstream(t), Timeout: &second})
	connect := func(t *testing.T, path string, in io.Reader) *http.Response {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		t.Cleanup(cancel)
		req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://localhost:"+port(g.https)+path, in)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
		resp, err := transport.RoundTrip(req) //nolint:staticcheck // the client of net/http has no extended CONNECT
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("the answer is %s", resp.Status)
		}
		return resp
	}
	in, out := io.Pipe()
	r := bufio.NewReader(connect(t, "/ws/one", in).Body)
	for _, message := range []string{"hello", "", "again"} {
		if _, err := out.Write(masked(opText, []byte(message))); err != nil {
			t.Fatal(err)
		}
		if op, got, err := readMessage(r); err != nil || op != opText || string(got) != message {
			t.Errorf("%q came back as %q of kind %d (%v)", message, got, op, err)
		}
	}
	large := make([]byte, 8<<20)
	_, _ = rand.Read(large)
	go func() { _, _ = out.Write(masked(opBinary, large)) }()
	if op, got, err := readMessage(r); err != nil || op != opBinary || !bytes.Equal(got, large) {
		t.Errorf("a large message came back as %d bytes of kind %d (%v)", len(got), op, err)
	}
	// The upstream closes, as asked, and the stream ends.
	if _, err := out.Write(masked(opText, []byte("close 4321"))); err != nil {
		t.Fatal(err)
	}
	if op, got, err := readMessage(r); err != nil || op != opClose || string(got) != "\x10\xe1as asked" {
		t.Errorf("the connection ends with %d %q (%v)", op, got, err)
	}
	if _, err := out.Write(masked(opClose, []byte{0x10, 0xe1})); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("after the end there comes %q (%v)", rest, err)
	}
	out.Close()

	t.Run("closed by the client", func(t *testing.T) {
		in, out := io.Pipe()
		resp := connect(t, "/codes", in)
		if _, err := out.Write(masked(opClose, []byte("\x0f\xa0bye"))); err != nil {
			t.Fatal(err)
		}
		if got := await(t, closed, "the upstream hears of it"); got != "4000 bye" {
			t.Errorf("the upstream has read %q", got)
		}
		if op, got, err := readMessage(resp.Body); err != nil || op != opClose || !bytes.HasPrefix(got, []byte("\x0f\xa0")) {
			t.Errorf("the answer to that is %d %q (%v)", op, got, err)
		}
	})
	t.Run("left by the client", func(t *testing.T) {
		in, out := io.Pipe()
		resp := connect(t, "/codes", in)
		resp.Body.Close()
		out.Close()
		if got := await(t, closed, "the upstream hears of it"); !strings.HasPrefix(got, "-1 ") {
			t.Errorf("the upstream has read %q", got)
		}
	})
	t.Run("silent", func(t *testing.T) {
		in, out := io.Pipe()
		defer out.Close()
		r := bufio.NewReader(connect(t, "/idle", in).Body)
		for range 25 {
			if _, err := out.Write(masked(opText, []byte("hello"))); err != nil {
				t.Fatal(err)
			}
			if _, got, err := readMessage(r); err != nil || string(got) != "hello" {
				t.Fatalf("a WebSocket in use answers %q (%v)", got, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if op, got, err := readMessage(r); err == nil && op != opClose || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a silent WebSocket ends with %d %q (%v)", op, got, err)
		}
	})
	t.Run("half closed by the client", func(t *testing.T) {
		in, out := io.Pipe()
		resp := connect(t, "/half", in)
		halfClose(t, resp.Body, out, out.Close)
	})
}

// TestWebSocketOverHTTP3 does the same by RFC 9220.
func TestWebSocketOverHTTP3(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	g.create(route{Path: "/ws", TargetURL: echoUpstream(t)})
	g.create(route{Path: "/half", TargetURL: halfClosingUpstream(t)})
	v := g.versions()[2]
	connect := func(path string) (*http.Response, *io.PipeWriter) {
		in, out := io.Pipe()
		req, _ := v.request(t, http.MethodConnect, path)
		req.Proto, req.Body = "websocket", in
		req.Header.Set("Sec-Websocket-Version", "13")
		resp, err := v.client.Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("the answer is %s", resp.Status)
		}
		return resp, out
	}
	resp, out := connect("/ws")
	for _, message := range []string{"hello", "again"} {
		if _, err := out.Write(masked(opText, []byte(message))); err != nil {
			t.Fatal(err)
		}
		if op, got, err := readMessage(resp.Body); err != nil || op != opText || string(got) != message {
			t.Errorf("%q came back as %q of kind %d (%v)", message, got, op, err)
		}
	}
	if _, err := out.Write(masked(opText, []byte("close 4321"))); err != nil {
		t.Fatal(err)
	}
	if op, got, err := readMessage(resp.Body); err != nil || op != opClose || string(got) != "\x10\xe1as asked" {
		t.Errorf("the connection ends with %d %q (%v)", op, got, err)
	}
	resp, out = connect("/half")
	halfClose(t, resp.Body, out, out.Close)
}

// The kinds of WebSocket frames.
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
)

// masked is a message in one frame, as a client sends it (RFC 6455, 5.2), masked
// with zeros.
func masked(op byte, message []byte) []byte {
	frame := []byte{0x80 | op}
	switch n := len(message); {
	case n <= 125:
		frame = append(frame, 0x80|byte(n))
	case n <= math.MaxUint16:
		frame = endian.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	default:
		frame = endian.BigEndian.AppendUint64(append(frame, 0x80|127), uint64(n))
	}
	return append(append(frame, 0, 0, 0, 0), message...)
}

// readMessage reads a message in one or more frames.
func readMessage(r io.Reader) (op byte, message []byte, err error) {
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(r, head); err != nil {
			return 0, nil, err
		}
		n := uint64(head[1])
		if n >= 126 {
			long := make([]byte, 8)
			at := 6
			if n == 127 {
				at = 0
			}
			if _, err := io.ReadFull(r, long[at:]); err != nil {
				return 0, nil, err
			}
			n = endian.BigEndian.Uint64(long)
		}
		part := make([]byte, n)
		if _, err := io.ReadFull(r, part); err != nil {
			return 0, nil, err
		}
		op |= head[0] & 0x0f
		message = append(message, part...)
		if head[0]&0x80 != 0 {
			return op, message, nil
		}
	}
}
