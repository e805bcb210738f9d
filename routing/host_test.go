package routing_test

import (
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
)

func TestParseHost(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	tests := []struct{ in, want string }{
		{"", ""},
		{"localhost", "localhost"},
		{"API.Example.COM", "api.example.com"},
		{"example.com.", "example.com"},
		{"my_service.internal", "my_service.internal"},
		{"1password.com", "1password.com"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"XN--Bcher-Kva.example", "xn--bcher-kva.example"},
		{"*.example.com", "*.example.com"},
		{"*.Bücher.example", "*.xn--bcher-kva.example"},
		{"*.com", "*.com"},
		{"10.0.0.1", "10.0.0.1"},
		{"::1", "::1"},
		{"[::1]", "::1"},
		{"[2001:DB8:0:0::1]", "2001:db8::1"},
		{label63 + ".com", label63 + ".com"},
	}
	for _, tt := range tests {
		got, err := routing.ParseHost(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
		if again, err := routing.ParseHost(got); err != nil || again != got {
			t.Errorf("ParseHost(%q) = %q, %v", got, again, err)
		}
	}
	for in, want := range map[string]string{
		"*":                                  "leave it empty",
		"*.":                                 "leave it empty",
		".":                                  "leave it empty",
		"https://example.com":                "without a scheme",
		"example.com:8080":                   "without a port",
		"[::1]:80":                           "without a port",
		"example.com/a":                      "only a host",
		"user@example.com":                   "only a host",
		"a b.com":                            "only a host",
		"a..com":                             "empty label",
		".example.com":                       "empty label",
		"*..com":                             "empty label",
		"*.*.com":                            "first label",
		"a.*.com":                            "first label",
		"*a.com":                             "first label",
		"-a.com":                             `begin or end with "-"`,
		"a-.com":                             `begin or end with "-"`,
		"a%41.com":                           "cannot be in a host name",
		"a~.com":                             "cannot be in a host name",
		"{host}":                             "cannot be in a host name",
		"1.2.3":                              "nor a valid IP address",
		"300.0.0.1":                          "nor a valid IP address",
		"*.0.0.1":                            "nor a valid IP address",
		"fe80::1%eth0":                       "no zone",
		"xn--a.example":                      "international",
		label63 + "a.com":                    "longer than 63",
		strings.Repeat(label63+".", 4) + "a": "longer than 253",
	} {
		if got, err := routing.ParseHost(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseHost(%q) = %q, %v; want an error with %q", in, got, err, want)
		}
	}
}

func TestRequestHost(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                      "",
		"example.com":           "example.com",
		"EXAMPLE.com:443":       "example.com",
		"example.com.":          "example.com",
		"Example.com.:8080":     "example.com",
		"example.com..":         "example.com.",
		"example.com:":          "example.com",
		"127.0.0.1:80":          "127.0.0.1",
		"[::1]":                 "::1",
		"[::1]:80":              "::1",
		"[2001:DB8:0::1]:80":    "2001:db8::1",
		"2001:DB8::1":           "2001:db8::1",
		"[NOT:an:address]":      "not:an:address",
		"[":                     "[",
		"[::1]x.example":        "[::1]x.example",
		"[::1].:80":             "[::1].:80",
		"xn--BCHER-kva.EXAMPLE": "xn--bcher-kva.example",
	} {
		if got := routing.RequestHost(in); got != want {
			t.Errorf("RequestHost(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRequestHostAllocations(t *testing.T) {
	for _, in := range []string{"example.com", "example.com.:443", "[2001:db8::1]:80", "127.0.0.1:80"} {
		if n := testing.AllocsPerRun(100, func() { _ = routing.RequestHost(in) }); n != 0 {
			t.Errorf("RequestHost(%q) allocates %v times", in, n)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, s := range []string{"*.example.com", "[::1]", "bücher.example", "a.b:80", "xn--a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := routing.ParseHost(s)
		if err != nil || host == "" {
			return
		}
		if again, err := routing.ParseHost(host); err != nil || again != host {
			t.Fatalf("%q is %q, which is %q, %v", s, host, again, err)
		}
		if !strings.HasPrefix(host, "*.") && routing.RequestHost(host) != host {
			t.Fatalf("%q is %q, but a request's is %q", s, host, routing.RequestHost(host))
		}
	})
}
