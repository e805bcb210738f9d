package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echoUpstream answers every WebSocket message with the same. A text "close N"
// makes it close with the code N.
func echoUpstream(t testing.TB) string {
	return newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(64 << 20)
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			var code int
			if _, err := fmt.Sscanf(string(message), "close %d", &code); err == nil {
				_ = conn.Close(websocket.StatusCode(code), "as asked")
				return
			}
			if conn.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}).URL
}

// dialWebSocket opens a WebSocket through the plain site.
func (g *gateway) dialWebSocket(path string) *websocket.Conn {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://"+g.http+path, &websocket.DialOptions{Subprotocols: []string{"echo"}})
	if err != nil {
		g.t.Fatalf("opening a WebSocket: %v (%v)", err, resp)
	}
	g.t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(64 << 20)
	return conn
}

// echo sends a message and checks that it comes back.
func echo(conn *websocket.Conn, kind websocket.MessageType, message []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := conn.Write(ctx, kind, message); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	gotKind, got, err := conn.Read(ctx)
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if gotKind != kind || !bytes.Equal(got, message) {
		return fmt.Errorf("%d bytes of kind %v came back as %d bytes of kind %v", len(message), kind, len(got), gotKind)
	}
	return nil
}

// echoText is echo with a short text.
func echoText(conn *websocket.Conn) error {
	return echo(conn, websocket.MessageText, []byte("hello"))
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	g.create(route{Path: "/ws", TargetURL: echoUpstream(t)})

	large := make([]byte, 8<<20)
	_, _ = rand.Read(large)
	conn := g.dialWebSocket("/ws")
	if got := conn.Subprotocol(); got != "echo" {
		t.Errorf("the subprotocol is %q", got)
	}
	for name, m := range map[string]struct {
		kind    websocket.MessageType
		message []byte
	}{
		"text":        {websocket.MessageText, []byte("grüße")},
		"empty text":  {websocket.MessageText, nil},
		"binary":      {websocket.MessageBinary, []byte{0, 1, 2, 255}},
		"large":       {websocket.MessageBinary, large},
		"larger text": {websocket.MessageText, []byte(strings.Repeat("ä", 100_000))},
	} {
		if err := echo(conn, m.kind, m.message); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, code := range []websocket.StatusCode{1000, 1001, 1003, 1011, 3000, 4999} {
		t.Run(fmt.Sprint("closed by the upstream with ", int(code)), func(t *testing.T) {
			t.Parallel()
			conn := g.dialWebSocket("/ws")
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			defer cancel()
			if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "close %d", code)); err != nil {
				t.Fatal(err)
			}
			_, _, err := conn.Read(ctx)
			var closed websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != code || closed.Reason != "as asked" {
				t.Errorf("the connection ended with %v", err)
			}
		})
	}
	t.Run("a plain request", func(t *testing.T) {
		t.Parallel()
		if a := g.send(http.MethodGet, "/ws"); a.status != http.StatusUpgradeRequired {
			t.Errorf("the answer is %s", a)
		}
	})
}

// TestWebSocketIdleTime shows that a route's timeout counts a WebSocket's
// silence and not its life.
func TestWebSocketIdleTime(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	second := 1
	g.create(route{Path: "/ws", TargetURL: echoUpstream(t), Timeout: &second})
	conn := g.dialWebSocket("/ws")
	for began := time.Now(); time.Since(began) < 3*time.Second; time.Sleep(100 * time.Millisecond) {
		if err := echoText(conn); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, _, err := conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a silent WebSocket ended with %v", err)
	}
}

// closesUpstream reads WebSockets to their end and tells with which code and reason
// they were closed, -1 for none.
func closesUpstream(t *testing.T, closed chan<- string) string {
	return newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for err == nil {
			_, _, err = conn.Read(r.Context())
		}
		var with websocket.CloseError
		errors.As(err, &with)
		closed <- fmt.Sprint(int(websocket.CloseStatus(err)), " ", with.Reason)
	}).URL
}

func TestWebSocketClosedByTheClient(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	closed := make(chan string, 1)
	g.create(route{Path: "/ws", TargetURL: closesUpstream(t, closed)})
	for _, code := range []websocket.StatusCode{1000, 1001, 1008, 4999} {
		if err := g.dialWebSocket("/ws").Close(code, "bye"); err != nil {
			t.Errorf("closing with %d: %v", code, err)
		}
		if got, want := await(t, closed, "the upstream hears of it"), fmt.Sprint(int(code), " bye"); got != want {
			t.Errorf("the upstream has read %q, want %q", got, want)
		}
	}
	if err := g.dialWebSocket("/ws").CloseNow(); err != nil {
		t.Error(err)
	}
	if got := await(t, closed, "the upstream hears of it"); got != "-1 " {
		t.Errorf("after a connection that was cut the upstream has read %q", got)
	}
}

// halfClosingUpstream switches protocols, reads to the end of what the client sends
// and only then answers with that, in capital letters.
func halfClosingUpstream(t *testing.T) string {
	return "http://" + rawUpstream(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		if _, err := readHead(r); err != nil {
			return
		}
		say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nready\n")(conn)
		text, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("the upstream has read %q, and not the end: %v", text, err)
		}
		say(strings.ToUpper(string(text)))(conn)
	})
}

// halfClose sends to a halfClosingUpstream, and closes one way.
func halfClose(t *testing.T, r io.Reader, w io.Writer, closeWrite func() error) {
	t.Helper()
	reader := bufio.NewReader(r)
	if line, err := reader.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the upstream begins with %q (%v)", line, err)
	}
	if _, err := io.WriteString(w, "the last words"); err != nil {
		t.Fatal(err)
	}
	if err := closeWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(reader); err != nil || string(rest) != "THE LAST WORDS" {
		t.Errorf("after that the upstream answers %q (%v)", rest, err)
	}
}

// TestHalfClose closes one way of an upgraded connection; the other stays open.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	g.waitCertificate("localhost")
	const upgrade = "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	type halfConn interface {
		net.Conn
		CloseWrite() error
	}
	secure := func(t *testing.T) halfConn {
		conn := tls.Client(dialRaw(t, g.https), g.trust("localhost"))
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	plain := func(t *testing.T) halfConn { return dialRaw(t, g.http).(*net.TCPConn) }

	g.create(route{Path: "/client", TargetURL: halfClosingUpstream(t)})
	heard := make(chan string, 1)
	g.create(route{Path: "/upstream", TargetURL: "http://" + rawUpstream(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		if _, err := readHead(r); err != nil {
			return
		}
		say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nthe last words")(conn)
		_ = conn.(*net.TCPConn).CloseWrite()
		text, err := io.ReadAll(r)
		heard <- fmt.Sprint(string(text), " ", err)
	})})
	for host, dial := range map[string]func(*testing.T) halfConn{"plain.test": plain, "localhost": secure} {
		t.Run("by the client of "+host, func(t *testing.T) {
			conn := dial(t)
			fmt.Fprintf(conn, upgrade, "/client", host)
			r := bufio.NewReader(conn)
			if head, err := readHead(r); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
				t.Fatalf("the answer is %q (%v)", head, err)
			}
			halfClose(t, r, conn, conn.CloseWrite)
		})
		t.Run("by the upstream of "+host, func(t *testing.T) {
			conn := dial(t)
			fmt.Fprintf(conn, upgrade, "/upstream", host)
			r := bufio.NewReader(conn)
			if head, err := readHead(r); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101 ") {
				t.Fatalf("the answer is %q (%v)", head, err)
			}
			if text, err := io.ReadAll(r); err != nil || string(text) != "the last words" {
				t.Errorf("the upstream has said %q (%v)", text, err)
			}
			fmt.Fprint(conn, "and a reply")
			_ = conn.CloseWrite()
			if got := await(t, heard, "the upstream hears the reply"); got != "and a reply <nil>" {
				t.Errorf("the upstream has heard %q", got)
			}
		})
	}
}
