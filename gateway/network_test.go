package gateway_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
)

// network is a TCP proxy between gateways and a database, which can be made to fail as
// networks do.
type network struct {
	ln net.Listener
	to string

	mu      sync.Mutex
	refused bool
	deaf    bool // LISTEN does not arrive
	links   map[*link]struct{}
	done    sync.WaitGroup
}

// link is one connection through it.
type link struct {
	client, server net.Conn
	listener       bool          // the gateway's, on which it hears of changes
	open           chan struct{} // closed while it carries data
}

// newNetwork returns a network and the DSN of the database at its other end.
func newNetwork(t *testing.T, dsn string) (*network, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{ln: ln, to: u.Host, links: make(map[*link]struct{})}
	n.done.Go(n.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		n.cut()
		n.done.Wait()
	})
	u.Host = ln.Addr().String()
	return n, u.String()
}

func (n *network) accept() {
	for {
		client, err := n.ln.Accept()
		if err != nil {
			return
		}
		n.done.Go(func() { n.connect(client) })
	}
}

func (n *network) connect(client net.Conn) {
	// The first message has the name of the application.
	first := make([]byte, 4096)
	size, err := client.Read(first)
	if err != nil {
		_ = client.Close()
		return
	}
	server, err := net.Dial("tcp", n.to)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server, open: make(chan struct{}), listener: bytes.Contains(first, []byte("isekai-listener"))}
	close(l.open)
	n.mu.Lock()
	if n.refused {
		n.mu.Unlock()
		l.close()
		return
	}
	n.links[l] = struct{}{}
	n.mu.Unlock()
	if _, err := server.Write(first[:size]); err == nil {
		n.done.Go(func() { n.carry(l, server, client) })
		n.carry(l, client, server)
	}
	l.close()
	n.mu.Lock()
	delete(n.links, l)
	n.mu.Unlock()
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func (n *network) carry(l *link, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		size, err := from.Read(buffer)
		if err != nil {
			l.close()
			return
		}
		n.mu.Lock()
		open, deaf := l.open, n.deaf
		n.mu.Unlock()
		<-open
		data := buffer[:size]
		if deaf {
			const listen, nothing = "LISTEN isekai_routes", "SELECT 1 /* none */ "
			data = bytes.Replace(data, []byte(listen), []byte(nothing), 1)
		}
		if _, err := to.Write(data); err != nil {
			l.close()
			return
		}
	}
}

// freeze lets the connections that there are, or only the listeners, carry nothing more:
// no data, no end. New ones are not affected.
func (n *network) freeze(listenersOnly bool) (frozen int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		if l.listener || !listenersOnly {
			l.open = make(chan struct{})
			frozen++
		}
	}
	return frozen
}

// thaw ends freeze. What was held back arrives.
func (n *network) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused = false
	for l := range n.links {
		l.release()
	}
}

func (l *link) release() {
	select {
	case <-l.open:
	default:
		close(l.open)
	}
}

// cut ends all connections.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		l.close()
		l.release()
	}
}

// deafen takes LISTEN away, as a pooler does that hands connections to others between
// transactions.
func (n *network) deafen() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deaf = true
}

// refuse ends all connections and lets no new ones be made until thaw.
func (n *network) refuse() {
	n.mu.Lock()
	n.refused = true
	n.mu.Unlock()
	n.cut()
}
