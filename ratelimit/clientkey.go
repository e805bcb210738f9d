package ratelimit

import (
	"net/netip"
	"strings"
)

// ClientKey returns the key under which a client address is counted: an IPv4
// address as it is, an IPv6 address by its /64 (one host commonly has that many
// addresses to choose from), an IPv4-mapped IPv6 address as IPv4 and without
// its zone. What is no address, e.g. the empty text or "@" of a Unix socket,
// stays as it is. IPv4 takes no memory.
func ClientKey(addr string) string {
	if strings.IndexByte(addr, ':') < 0 {
		return addr
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}
