package ratelimit_test

import (
	"testing"

	"github.com/isekai-gateway/isekai/ratelimit"
)

func TestClientKey(t *testing.T) {
	t.Parallel()
	tests := []struct{ addr, want string }{
		{"192.0.2.1", "192.0.2.1"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"},
		{"2001:db8:1:3::1", "2001:db8:1:3::/64"},
		{"::1", "::/64"},
		{"fe80::1%eth0", "fe80::/64"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"", ""},
		{"@", "@"},
		{"not:an:address", "not:an:address"},
		{"2001:db8::1]", "2001:db8::1]"},
	}
	for _, test := range tests {
		if got := ratelimit.ClientKey(test.addr); got != test.want {
			t.Errorf("%q: %q, want %q", test.addr, got, test.want)
		}
	}
}

func FuzzClientKey(f *testing.F) {
	for _, seed := range []string{"192.0.2.1", "::1", "fe80::1%eth0", "::ffff:1.2.3.4", "x:y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		if key := ratelimit.ClientKey(addr); key == "" && addr != "" {
			t.Errorf("%q has no key", addr)
		}
	})
}
