package e2e_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	pebbledb "github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"golang.org/x/net/dns/dnsmessage"
)

// acmeServer is Let's Encrypt's test server, which asks every host at one address of
// this machine whether an order is its own. It counts the orders that it accepts.
type acmeServer struct {
	directory string
	trustFile string         // the server's own certificate, as PEM
	roots     *x509.CertPool // of the certificates that it issues

	mu      sync.Mutex
	orders  map[string]int  // by host
	refused map[string]bool // hosts of which orders are refused
}

// newACMEServer starts one that proves hosts by a request to this port. Certificates
// are valid for so long, and the server leaves it to its clients when to renew them.
func newACMEServer(t *testing.T, httpPort int, validity time.Duration) *acmeServer {
	t.Helper()
	// Read by the server when it is made. It would sleep for seconds.
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", "PEBBLE_AUTHZREUSE": "0"} {
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	a := &acmeServer{orders: make(map[string]int), refused: make(map[string]bool), roots: x509.NewCertPool()}
	logger := log.New(io.Discard, "", 0)
	db := pebbledb.NewMemoryStore()
	authority := ca.New(logger, db, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default", ValidityPeriod: uint64(validity.Seconds())}})
	validation := va.New(logger, httpPort, 0, false, localDNS(t), db)
	front := wfe.New(logger, db, validation, authority, []string{"pebble.test"}, false, false, 1, 1)
	handler := front.Handler()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/order-plz":
			a.order(w, r, handler)
		case "/dir":
			serveDirectory(w, r, handler)
		default:
			handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	a.directory = server.URL + "/dir"
	a.trustFile = t.TempDir() + "/acme.pem"
	writeFile(t, a.trustFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	a.roots.AppendCertsFromPEM(authority.GetRootCert(0).PEM())
	return a
}

// order counts an order if the server accepts it. One with a stale nonce is none yet.
func (a *acmeServer) order(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var envelope struct{ Payload string }
	var order struct{ Identifiers []struct{ Value string } }
	if json.Unmarshal(body, &envelope) == nil {
		if payload, err := base64.RawURLEncoding.DecodeString(envelope.Payload); err == nil {
			_ = json.Unmarshal(payload, &order) // the server says what is wrong with it
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range order.Identifiers {
		if a.refused[id.Value] {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"type": "urn:ietf:params:acme:error:rejectedIdentifier", "status": 403, "detail": "policy forbids issuing for this name"}`)
			return
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	recorded := httptest.NewRecorder()
	next.ServeHTTP(recorded, r)
	if recorded.Code == http.StatusCreated {
		for _, id := range order.Identifiers {
			a.orders[id.Value]++
		}
	}
	maps.Copy(w.Header(), recorded.Header())
	w.WriteHeader(recorded.Code)
	_, _ = w.Write(recorded.Body.Bytes())
}

// serveDirectory leaves out the server's advice when to renew, which has random times.
func serveDirectory(w http.ResponseWriter, r *http.Request, next http.Handler) {
	recorded := httptest.NewRecorder()
	next.ServeHTTP(recorded, r)
	var directory map[string]any
	if err := json.Unmarshal(recorded.Body.Bytes(), &directory); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	delete(directory, "renewalInfo")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(directory)
}

// ordered returns how many orders there were for a host, or for all.
func (a *acmeServer) ordered(host string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if host != "" {
		return a.orders[host]
	}
	all := 0
	for _, n := range a.orders {
		all += n
	}
	return all
}

func (a *acmeServer) refuse(host string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refused[host] = true
}

// localDNS returns the address of a name server, over TCP as the ACME server asks it,
// for which every name is this machine.
func localDNS(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(callTimeout))
				for answerDNS(conn) == nil {
				}
			})
		}
	})
	return listener.Addr().String()
}

func answerDNS(conn net.Conn) error {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return err
	}
	query := make([]byte, int(length[0])<<8|int(length[1]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return err
	}
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
	return err
}
