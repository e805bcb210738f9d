package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

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

	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	in, out := io.Pipe()
	connect := func(path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://localhost:"+port(g.https)+path, in)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
		return transport.RoundTrip(req) //nolint:staticcheck // the client of net/http has no extended CONNECT
	}
	resp, err := connect("/ws/one")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the answer is %s", resp.Status)
	}
	r := bufio.NewReader(resp.Body)
	for _, message := range []string{"hello", "", "again"} {
		if _, err := out.Write(maskedText(message)); err != nil {
			t.Fatal(err)
		}
		if got, err := readText(r); err != nil || got != message {
			t.Errorf("%q came back as %q (%v)", message, got, err)
		}
	}
	out.Close()
}

// maskedText is a text message in one frame, as a client sends it (RFC 6455, 5.2),
// masked with zeros.
func maskedText(text string) []byte {
	frame := []byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}
	return append(frame, text...)
}

// readText reads a short text message in one frame.
func readText(r io.Reader) (string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	if head[0] != 0x81 || head[1] > 125 {
		return "", fmt.Errorf("the frame begins with %#x", head)
	}
	text := make([]byte, head[1])
	_, err := io.ReadFull(r, text)
	return string(text), err
}
