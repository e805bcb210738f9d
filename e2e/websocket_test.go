package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
