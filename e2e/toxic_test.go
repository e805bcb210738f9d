package e2e_test

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// toxic is a network between two programs, in which poison does what networks do.
type toxic struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newToxic returns a network that leads to a host:port.
func newToxic(t *testing.T, to string) *toxic {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	x := &toxic{t: t, proxy: toxiproxy.NewProxy(server, "network", "127.0.0.1:0", to)}
	if err := x.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.proxy.Stop)
	return x
}

// newToxicDSN is newToxic for a database, and returns the DSN that leads through it.
func newToxicDSN(t *testing.T, dsn string) (*toxic, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	x := newToxic(t, u.Host)
	u.Host = x.proxy.Listen
	return x, u.String()
}

// poison lets something happen to all that goes to the client from now on. The kinds
// are those of toxiproxy.
func (x *toxic) poison(kind string, attributes map[string]int) {
	x.t.Helper()
	text, err := json.Marshal(map[string]any{"name": kind, "type": kind, "attributes": attributes})
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := x.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		x.t.Fatal(err)
	}
}

// heal ends it.
func (x *toxic) heal(kind string) {
	x.t.Helper()
	if err := x.proxy.Toxics.RemoveToxic(context.Background(), kind); err != nil {
		x.t.Fatal(err)
	}
}
