package isekai

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/proxy"
)

// policy returns the target policy that the settings describe.
func (t TargetsConfig) policy() (*proxy.Policy, error) {
	policy := &proxy.Policy{Internal: isInternalListener}
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

// isInternalListener reports whether addr is a listener of this process other
// than those of its sites: the admin endpoint, local or remote, which would hand
// out the whole configuration to whoever may call the route.
//
// A module can't read where the admin endpoint listens. But Caddy counts its
// listeners by the address they were opened with, and what is not one of the
// http app's is internal.
func isInternalListener(addr netip.AddrPort) bool {
	port := strconv.Itoa(int(addr.Port()))
	hosts := []string{addr.Addr().String(), "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	listening := false
	for _, host := range hosts {
		if caddy.ListenerUsage("tcp", net.JoinHostPort(host, port)) > 0 {
			listening = true
			break
		}
	}
	return listening && isOwnAddress(addr.Addr()) && !isSitePort(addr.Port())
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

// isSitePort reports whether a server of the running configuration's http app
// listens on port.
func isSitePort(port uint16) bool {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return false
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		for _, listen := range server.Listen {
			address, err := caddy.ParseNetworkAddress(listen)
			if err == nil && uint(port) >= address.StartPort && uint(port) <= address.EndPort {
				return true
			}
		}
	}
	return false
}
