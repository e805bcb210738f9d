package isekai_test

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// TestAdminEndpointIsNoTarget has the admin endpoint listen at addresses that are
// written in unusual ways.
func TestAdminEndpointIsNoTarget(t *testing.T) {
	for _, tt := range []struct {
		name    string
		listen  string // of the admin endpoint, with %d for its port
		target  string // the same for the route's target
		site    string // the host of the site
		sockets bool   // whether it takes to look at the sockets
	}{
		{name: "as usual", listen: "127.0.0.1:%d", target: "127.0.0.1:%d"},
		{name: "with its network", listen: "tcp/127.0.0.1:%d", target: "127.0.0.1:%d"},
		{name: "IPv4 alone", listen: "tcp4/127.0.0.1:%d", target: "127.0.0.1:%d"},
		{name: "IPv6 alone", listen: "tcp6/[::1]:%d", target: "[::1]:%d"},
		{name: "IPv6 at length", listen: "[0:0:0:0:0:0:0:1]:%d", target: "[::1]:%d", sockets: true},
		{name: "a site with the same port", listen: "127.0.0.1:%d", target: "127.0.0.1:%d", site: "127.0.0.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port := freePort(t)
			target := fmt.Sprintf(tt.target, port)
			if tt.sockets && runtime.GOOS != "linux" {
				t.Skip("only on Linux")
			}
			host, _, _ := net.SplitHostPort(target)
			for _, needed := range []string{host, tt.site} {
				ln, err := net.Listen("tcp", net.JoinHostPort(needed, "0"))
				if err != nil {
					t.Skip(err)
				}
				ln.Close()
			}
			s := start(t, nil)
			s.admin = "http://" + target
			err := s.load(func(cfg map[string]any) {
				cfg["admin"].(map[string]any)["listen"] = fmt.Sprintf(tt.listen, port)
				if tt.site != "" {
					s.site = fmt.Sprintf("http://%s:%d", tt.site, port)
					siteOf(cfg)["listen"] = []string{fmt.Sprintf("%s:%d", tt.site, port)}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			res := s.write("POST", "/api/routes", route{"path": "/config/", "target_url": s.admin})
			if res.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(res.body, "internal listener") {
				t.Errorf("the route: %d %s", res.StatusCode, res.body)
			}
			if res := s.get("/config/"); res.StatusCode != http.StatusNotFound {
				t.Errorf("the answer: %d %s", res.StatusCode, res.body)
			}
		})
	}
}
