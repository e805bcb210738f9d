package e2e_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// used returns what the client at 127.0.0.1 has used of a route's limits.
func (g *gateway) used(id int64) map[string]int {
	g.t.Helper()
	var states struct {
		Items []struct {
			Rule string
			Used int
		}
	}
	query := url.Values{"key": {"127.0.0.1"}, "route": {fmt.Sprint(id)}}
	g.call(http.MethodGet, "/api/ratelimits?"+query.Encode(), nil).decode(g.t, &states)
	used := make(map[string]int)
	for _, s := range states.Items {
		used[s.Rule] = s.Used
	}
	return used
}

// TestResetStreamsCount opens HTTP/2 streams and resets each at once, which costs the
// client next to nothing (CVE-2023-44487). The rate limit counts them all the same.
func TestResetStreamsCount(t *testing.T) {
	t.Parallel()
	const streams, limit = 20, 25
	g := startGateway(t, settings{sites: tlsSite})
	r := g.create(route{Path: "/limited", TargetURL: textUpstream(t, "ok"), RateLimit: limit, Limits: map[string]any{"window": 86_400}})
	g.waitCertificate("localhost")
	config := g.trust("localhost")
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", g.https, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(rawTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	open := func(stream uint32) {
		t.Helper()
		head.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost:" + port(g.https)}, {":path", "/limited"}} {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				t.Fatal(err)
			}
		}
		err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint32(streams) {
		open(2*i + 1)
		if err := framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, callTimeout, "all reset streams are counted", func() error {
		if got := g.used(r.ID)["route"]; got != streams {
			return fmt.Errorf("%d of %d are", got, streams)
		}
		return nil
	})
	for i := range limit - streams {
		if a := g.send(http.MethodGet, "/limited"); a.status != http.StatusOK {
			t.Fatalf("request %d after the resets is answered %s", i+1, a)
		}
	}
	wantProblem(t, g.send(http.MethodGet, "/limited"), http.StatusTooManyRequests)

	// The key can be given its limit back.
	g.call(http.MethodDelete, "/api/ratelimits?key=127.0.0.1", nil)
	if got := g.used(r.ID)["route"]; got != 0 {
		t.Errorf("%d are used after a reset of the counters", got)
	}
	if a := g.send(http.MethodGet, "/limited"); a.status != http.StatusOK {
		t.Errorf("the answer after it is %s", a)
	}
}
