//go:build !linux

package isekai

import "net/netip"

// caddySockets returns none: here the addresses that Caddy counts have to do.
func caddySockets() []netip.AddrPort { return nil }
