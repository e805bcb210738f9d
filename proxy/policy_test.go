package proxy_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/isekai-gateway/isekai/proxy"
)

func prefixes(t *testing.T, texts ...string) []netip.Prefix {
	t.Helper()
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = proxy.ParsePrefix(text); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	admin := func(a netip.AddrPort) bool { return a.Addr().IsLoopback() && a.Port() == 2019 }
	tests := []struct {
		name, addr  string
		allow, deny []string
		refused     bool
	}{
		{name: "private", addr: "10.0.0.5:80"},
		{name: "loopback", addr: "127.0.0.1:9000"},
		{name: "public", addr: "93.184.216.34:443"},
		{name: "IPv6 loopback", addr: "[::1]:9000"},
		{name: "unique local", addr: "[fd12::1]:80"},
		{name: "metadata", addr: "169.254.169.254:80", refused: true},
		{name: "metadata, mapped", addr: "[::ffff:169.254.169.254]:80", refused: true},
		{name: "metadata, NAT64", addr: "[64:ff9b::a9fe:a9fe]:80", refused: true},
		{name: "metadata, compatible", addr: "[::169.254.169.254]:80", refused: true},
		{name: "metadata of AWS over IPv6", addr: "[fd00:ec2::254]:80", refused: true},
		{name: "metadata of Alibaba", addr: "100.100.100.200:80", refused: true},
		{name: "link-local", addr: "[fe80::1]:80", refused: true},
		{name: "link-local with zone", addr: "[fe80::1%eth0]:80", refused: true},
		{name: "unspecified", addr: "0.0.0.0:80", refused: true},
		{name: "unspecified IPv6", addr: "[::]:80", refused: true},
		{name: "multicast", addr: "224.0.0.1:80", refused: true},
		{name: "broadcast", addr: "255.255.255.255:80", refused: true},
		{name: "admin", addr: "127.0.0.1:2019", refused: true},
		{name: "admin, mapped", addr: "[::ffff:127.0.0.1]:2019", refused: true},
		{name: "admin, IPv6", addr: "[::1]:2019", refused: true},
		{name: "admin though allowed", addr: "127.0.0.1:2019", allow: []string{"127.0.0.0/8"}, refused: true},
		{name: "denied", addr: "10.1.2.3:80", deny: []string{"10.1.0.0/16"}, refused: true},
		{name: "beside denied", addr: "10.2.2.3:80", deny: []string{"10.1.0.0/16"}},
		{name: "allowed", addr: "10.1.2.3:80", allow: []string{"10.0.0.0/8"}},
		{name: "not allowed", addr: "11.1.2.3:80", allow: []string{"10.0.0.0/8"}, refused: true},
		{name: "allowed single", addr: "[2001:db8::1]:80", allow: []string{"2001:db8::1"}},
		{name: "denied beats allowed", addr: "10.1.2.3:80", allow: []string{"10.0.0.0/8"}, deny: []string{"10.1.2.3"}, refused: true},
		{name: "allowed link-local", addr: "169.254.1.1:80", allow: []string{"169.254.1.0/24"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := proxy.Policy{Allow: prefixes(t, tt.allow...), Deny: prefixes(t, tt.deny...), Internal: admin}
			err := p.Check(netip.MustParseAddrPort(tt.addr))
			if refused := errors.Is(err, proxy.ErrTargetRefused); refused != tt.refused {
				t.Errorf("Check(%s) = %v", tt.addr, err)
			}
		})
	}
}

func TestPolicyCheckTarget(t *testing.T) {
	t.Parallel()
	p := proxy.Policy{Internal: func(a netip.AddrPort) bool { return a.Addr().IsLoopback() && a.Port() == 2019 }}
	tests := map[string]bool{
		"http://localhost:2019":           true,
		"http://LOCALHOST.:2019/config":   true,
		"http://admin.localhost:2019":     true,
		"http://127.0.0.1:2019":           true,
		"http://[::ffff:127.0.0.1]:2019":  true,
		"http://[::1]:2019":               true,
		"http://localhost:9000":           false,
		"http://name.example:2019":        false, // known only when it is dialled
		"http://169.254.169.254/latest":   true,
		"http://[::ffff:a9fe:a9fe]/":      true,
		"http://127.0.0.1:9000/127.0.0.1": false,
	}
	for url, refused := range tests {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			target, err := proxy.ParseTarget(url, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.CheckTarget(target); errors.Is(err, proxy.ErrTargetRefused) != refused {
				t.Errorf("CheckTarget = %v, want refused %v", err, refused)
			}
		})
	}
}

func TestParsePrefixRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "10.0.0.0/33", "example.com", "10.0.0.0-10.0.0.9"} {
		if got, err := proxy.ParsePrefix(text); err == nil {
			t.Errorf("ParsePrefix(%q) = %v", text, got)
		}
	}
}
