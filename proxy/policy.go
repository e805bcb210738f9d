package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// ErrTargetRefused says that the target policy forbids an address.
var ErrTargetRefused = errors.New("target address is not allowed")

// Policy decides which addresses routes may forward to. A route is checked when
// it is written, as far as its target is an IP address, and always when a
// connection is made, so that a name which resolves anew can't get past it.
//
// Refused by default are addresses that no upstream has but an attacker wants:
// link-local ones with the clouds' metadata services, unspecified, multicast
// and reserved ones. Private ranges and loopback are allowed, since that is
// where upstreams live.
type Policy struct {
	// If not empty, only these ranges are allowed, also those refused by default.
	Allow []netip.Prefix

	// Ranges that are refused, also if Allow has them.
	Deny []netip.Prefix

	// Reports whether an address is a listener of this process that must not be
	// reachable through a route, such as Caddy's admin endpoint. Optional.
	Internal func(netip.AddrPort) bool
}

// refusedByDefault are ranges without honest upstreams.
var refusedByDefault = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),          // "this network", RFC 1122; 0.0.0.0 connects to the host itself
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local, RFC 3927; metadata of AWS, GCP, Azure
	netip.MustParsePrefix("100.100.100.200/32"), // metadata of Alibaba Cloud
	netip.MustParsePrefix("192.0.0.192/32"),     // metadata of Oracle Cloud
	netip.MustParsePrefix("224.0.0.0/4"),        // multicast, RFC 5771
	netip.MustParsePrefix("240.0.0.0/4"),        // reserved and broadcast, RFC 1112
	netip.MustParsePrefix("::/128"),             // unspecified, RFC 4291
	netip.MustParsePrefix("fe80::/10"),          // link-local, RFC 4291
	netip.MustParsePrefix("fd00:ec2::/32"),      // metadata of AWS
	netip.MustParsePrefix("fd20:ce::/32"),       // metadata of GCP
	netip.MustParsePrefix("ff00::/8"),           // multicast, RFC 4291
}

// embedding are IPv6 ranges whose last 32 bits are an IPv4 address.
var embedding = []netip.Prefix{
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64, RFC 6052
	netip.MustParsePrefix("::/96"),        // IPv4-compatible, RFC 4291
}

// Check returns an error that matches ErrTargetRefused if addr must not be
// connected to.
func (p *Policy) Check(addr netip.AddrPort) error {
	ip := addr.Addr().Unmap().WithZone("")
	for _, prefix := range embedding {
		if prefix.Contains(ip) && ip != netip.IPv6Loopback() && ip != netip.IPv6Unspecified() {
			b := ip.As16()
			ip = netip.AddrFrom4([4]byte(b[12:]))
		}
	}
	if p.Internal != nil && p.Internal(netip.AddrPortFrom(ip, addr.Port())) {
		return fmt.Errorf("%w: %s is an internal listener of this process", ErrTargetRefused, addr)
	}
	if prefix, ok := containing(p.Deny, ip); ok {
		return fmt.Errorf("%w: %s is in the denied range %s", ErrTargetRefused, addr, prefix)
	}
	if len(p.Allow) > 0 {
		if _, ok := containing(p.Allow, ip); !ok {
			return fmt.Errorf("%w: %s is in no allowed range", ErrTargetRefused, addr)
		}
		return nil
	}
	if prefix, ok := containing(refusedByDefault, ip); ok {
		return fmt.Errorf("%w: %s is in %s, which is refused by default", ErrTargetRefused, addr, prefix)
	}
	return nil
}

// CheckTarget checks what can be known of t without resolving names.
func (p *Policy) CheckTarget(t *Target) error {
	host, portText, err := net.SplitHostPort(t.Address)
	if err != nil {
		return fmt.Errorf("splitting address: %w", err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return fmt.Errorf("parsing port: %w", err)
	}
	name := strings.TrimSuffix(host, ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		// RFC 6761 makes these loopback addresses.
		return errors.Join(
			p.Check(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))),
			p.Check(netip.AddrPortFrom(netip.IPv6Loopback(), uint16(port))))
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return p.Check(netip.AddrPortFrom(ip, uint16(port)))
	}
	return nil
}

// control is a net.Dialer's hook: it sees the address after resolution and
// before the connection is made.
func (p *Policy) control(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q is no IP address", ErrTargetRefused, address)
	}
	return p.Check(addr)
}

func containing(prefixes []netip.Prefix, ip netip.Addr) (netip.Prefix, bool) {
	for _, prefix := range prefixes {
		if prefix.Contains(ip) {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}

// ParsePrefix reads a range in CIDR form or a single address.
func ParsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a range such as 10.0.0.0/8", s)
	}
	return prefix.Masked(), nil
}
