package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
)

// seen is a request as an upstream has received it.
type seen struct {
	method, uri, host, body string
	header, trailer         http.Header
}

// recorder is an upstream that remembers what it has received.
type recorder struct {
	url string
	mu  sync.Mutex
	got []seen
}

func newRecorder(t testing.TB) *recorder {
	rec := new(recorder)
	rec.url = newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path != "/all/probe" {
			rec.mu.Lock()
			rec.got = append(rec.got, seen{r.Method, r.RequestURI, r.Host, string(body), r.Header.Clone(), r.Trailer.Clone()})
			rec.mu.Unlock()
		}
		_, _ = io.WriteString(w, "recorded")
	}).URL
	return rec
}

// take returns what was received since it was last called.
func (rec *recorder) take() []seen {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	got := rec.got
	rec.got = nil
	return got
}

// rawAttack is a sequence of bytes that a client should not send, or may send
// and must not gain anything by.
type rawAttack struct {
	name   string
	raw    string // what is sent; see line
	status []int  // the answers that are right; cut for a closed connection
	uri    string // what the upstream must see if the answer is 200; else, or if empty, nothing
	body   string // of the request that the upstream sees
	half   bool   // whether the client ends its side after raw
	rest   bool   // whether a rest of raw may be refused as a request of its own
	check  func(seen) error
}

// cut stands for a connection that is closed without an answer.
const cut = 0

// line makes a whole request of a request line and header lines.
func line(lines ...string) string {
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// get is a GET of a target with further header lines.
func get(target string, lines ...string) string {
	return line(append([]string{"GET " + target + " HTTP/1.1", "Host: x"}, lines...)...)
}

// post is a POST with a body as it is framed by the lines.
func post(body string, lines ...string) string {
	return line(append([]string{"POST /all/x HTTP/1.1", "Host: x"}, lines...)...) + body
}

func TestRawAttacks(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	rec, secret := newRecorder(t), newRecorder(t)
	g.create(route{Path: "/all/*", Method: "*", TargetURL: rec.url})
	g.create(route{Path: "/set/*", Method: "*", TargetURL: rec.url, Plugins: []json.RawMessage{
		json.RawMessage(`{"handler":"headers","request":{"set":{"X-User":["alice"]}}}`),
	}})
	g.create(route{Path: "/secret", Host: "inside.test", Method: "*", TargetURL: secret.url})

	attacks := slices.Concat(pathAttacks, framingAttacks, syntaxAttacks, hostAttacks, methodAttacks, headerAttacks)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			status := a.run(t, g.http)
			got := rec.take()
			switch {
			case (status != http.StatusOK || a.uri == "") && len(got) > 0:
				t.Errorf("the upstream has seen %+v", got)
			case status != http.StatusOK || a.uri == "":
			case len(got) != 1:
				t.Errorf("the upstream has seen %d requests, want one: %+v", len(got), got)
			case got[0].uri != a.uri || got[0].body != a.body:
				t.Errorf("the upstream has seen %s with the body %q, want %s with %q", got[0].uri, got[0].body, a.uri, a.body)
			case a.check != nil:
				if err := a.check(got[0]); err != nil {
					t.Errorf("%v, in %+v", err, got[0])
				}
			}
			if got := secret.take(); len(got) > 0 {
				t.Errorf("a route of another host has seen %+v", got)
			}
		})
	}
	if status, _, err := g.health(); err != nil || status != http.StatusOK {
		t.Errorf("after all this /health says %d (%v)", status, err)
	}
}

// run sends the attack and, if the connection stays open, an honest request
// after it, which must get the next answer. It returns the status.
func (a *rawAttack) run(t *testing.T, address string) int {
	conn := dialRaw(t, address)
	defer conn.Close()
	if _, err := io.WriteString(conn, a.raw); err != nil {
		t.Fatal(err)
	}
	if a.half {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: strings.Fields(a.raw + " x")[0]})
	if err != nil {
		if isTimeout(err) {
			t.Error("the connection hangs")
		} else if !slices.Contains(a.status, cut) {
			t.Errorf("the connection was closed without an answer (%v), want %v", err, a.status)
		}
		return cut
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil && !resp.Close {
		// What closes a connection on which more has come resets it.
		t.Errorf("reading the answer: %v", err)
	}
	if !slices.Contains(a.status, resp.StatusCode) {
		t.Errorf("the answer is %d %.300s, want %v", resp.StatusCode, body, a.status)
	}
	if resp.StatusCode >= 400 && resp.StatusCode != 499 && resp.Header.Get("X-Request-Id") != "" && resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the gateway's own answer is of type %q", resp.Header.Get("Content-Type"))
	}
	if resp.Close || a.half {
		if rest, err := io.ReadAll(r); len(rest) > 0 || isTimeout(err) {
			t.Errorf("after the last answer there comes %.200q (%v)", rest, err)
		}
		return resp.StatusCode
	}
	const probe = "GET /all/probe HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-probe\r\n\r\n"
	if _, err := io.WriteString(conn, probe); err != nil {
		return resp.StatusCode // closed in the meantime
	}
	next, err := http.ReadResponse(r, nil)
	refused := err == nil && next.StatusCode == http.StatusBadRequest && next.Close
	if err == nil && (!a.rest || !refused) && next.Header.Get("X-Request-Id") != "the-probe" {
		t.Errorf("the next answer is of another request: %s %v", next.Status, next.Header)
	}
	if isTimeout(err) {
		t.Error("the next request hangs")
	}
	return resp.StatusCode
}

// wantHeader checks a field that the upstream has seen, none if there are no values.
func wantHeader(name string, values ...string) func(seen) error {
	return func(s seen) error {
		if got := s.header[textproto.CanonicalMIMEHeaderKey(name)]; !slices.Equal(got, values) {
			return fmt.Errorf("%s is %q at the upstream, want %q", name, got, values)
		}
		return nil
	}
}

// checks joins several.
func checks(all ...func(seen) error) func(seen) error {
	return func(s seen) error {
		var errs []error
		for _, check := range all {
			errs = append(errs, check(s))
		}
		return errors.Join(errs...)
	}
}

var errMissingID = errors.New("the upstream has seen no X-Request-Id of the gateway's own")
