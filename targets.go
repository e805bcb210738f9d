package isekai

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/proxy"
)

// policy returns the target policy that the settings describe.
func (t TargetsConfig) policy() (*proxy.Policy, error) {
	policy := &proxy.Policy{Internal: new(internalListeners).contain}
	for _, list := range []struct {
		name string
		from []string
		to   *[]netip.Prefix
	}{{"targets.allow", t.Allow, &policy.Allow}, {"targets.deny", t.Deny, &policy.Deny}} {
		for _, text := range list.from {
			prefix, err := proxy.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list.name, err)
			}
			*list.to = append(*list.to, prefix)
		}
	}
	return policy, nil
}

// internalListeners tells which addresses are listeners of this process other than
// those of its sites: the admin endpoint, local or remote, which would hand out the
// whole configuration to whoever may call the route.
//
// A module can't read where the admin endpoint listens. But Caddy counts its listeners
// by the address as it was configured, and what is not one of the http app's is
// internal. An address can be written in ways that can't be guessed, such as by a name;
// so on Linux the sockets themselves are looked at too. It is safe for concurrent use.
type internalListeners struct {
	mu      sync.Mutex // held by who reads them
	sockets atomic.Pointer[ownSockets]
}

// ownSockets are the sockets on which Caddy listens.
type ownSockets struct {
	read time.Time
	at   []netip.AddrPort
}

// socketsTTL is how long they are taken for what is there. They change with the
// configuration, but the endpoint for remote administration is opened a little later.
const socketsTTL = time.Second

// contain reports whether addr is one of them.
func (l *internalListeners) contain(addr netip.AddrPort) bool {
	sites, isSitePort := siteListeners(addr.Port())
	// A port that a site has too is told apart only by how the addresses are written.
	if !countsListener(addr, sites) && (isSitePort || !l.haveSocket(addr)) {
		return false
	}
	return isOwnAddress(addr.Addr())
}

// countsListener reports whether Caddy counts a listener for addr that is none of sites.
func countsListener(addr netip.AddrPort, sites []string) bool {
	port := strconv.Itoa(int(addr.Port()))
	hosts := []string{addr.Addr().String(), "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	for _, network := range []string{"tcp", "tcp4", "tcp6"} {
		for _, host := range hosts {
			at := net.JoinHostPort(host, port)
			if caddy.ListenerUsage(network, at) > 0 && !slices.Contains(sites, network+"/"+at) {
				return true
			}
		}
	}
	return false
}

// haveSocket reports whether Caddy listens on a socket that a connection to addr
// comes to.
func (l *internalListeners) haveSocket(addr netip.AddrPort) bool {
	for _, at := range l.current().at {
		if at.Port() == addr.Port() && (at.Addr() == addr.Addr() || at.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

// current returns the sockets, which others may be reading anew meanwhile.
func (l *internalListeners) current() *ownSockets {
	known := l.sockets.Load()
	switch {
	case known != nil && time.Since(known.read) < socketsTTL:
		return known
	case known != nil && !l.mu.TryLock():
		return known
	case known == nil:
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	known = &ownSockets{time.Now(), caddySockets()}
	l.sockets.Store(known)
	return known
}

// isOwnAddress reports whether a connection to addr ends at this machine.
func isOwnAddress(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true // rather refuse than hand out the configuration
	}
	for _, a := range own {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// siteListeners returns where the servers of the running configuration's http app
// listen, of those with this port, as network/host:port; and whether there are any.
func siteListeners(port uint16) (sites []string, found bool) {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return nil, false
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		for _, listen := range server.Listen {
			address, err := caddy.ParseNetworkAddress(listen)
			if err == nil && uint(port) >= address.StartPort && uint(port) <= address.EndPort {
				sites = append(sites, address.Network+"/"+net.JoinHostPort(address.Host, strconv.Itoa(int(port))))
			}
		}
	}
	return sites, len(sites) > 0
}
