package isekai

import (
	"net/netip"
	"os"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/sys/unix"
)

// caddySockets returns the addresses of the TCP sockets that Caddy listens on in this
// process: Caddy marks those that it opens with SO_REUSEPORT, and counts those that it
// was given. Without /proc it returns none.
func caddySockets() []netip.AddrPort {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var list []netip.AddrPort
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || !isSet(fd, unix.SO_ACCEPTCONN) {
			continue
		}
		if !isSet(fd, unix.SO_REUSEPORT) && caddy.ListenerUsage("fd", name) == 0 {
			continue
		}
		// Whoever closes it meanwhile only makes this fail.
		at, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		switch at := at.(type) {
		case *unix.SockaddrInet4:
			list = append(list, netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)))
		case *unix.SockaddrInet6:
			list = append(list, netip.AddrPortFrom(netip.AddrFrom16(at.Addr).Unmap(), uint16(at.Port)))
		}
	}
	return list
}

// isSet reports whether fd is a socket with this option.
func isSet(fd, option int) bool {
	value, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return err == nil && value != 0
}
