package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
)

// configSecrets are texts that only Caddy's admin endpoint would answer with.
var configSecrets = []string{`"apps"`, `"listen"`, "poll_interval"}

func TestRefusedTargets(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{})
	admin := port(g.admin)
	targets := []string{
		// Metadata services and other link-local addresses.
		"http://169.254.169.254/latest/meta-data", "http://169.254.1.1", "http://100.100.100.200", "http://[fd00:ec2::254]", "http://[fe80::1]",
		"http://[fe80::1%25lo]", "http://[::ffff:169.254.169.254]", "http://[::ffff:a9fe:a9fe]", "http://[64:ff9b::a9fe:a9fe]",
		"http://2852039166", "http://0xa9fea9fe", "http://0251.0376.0251.0376", "http://169.254.43518", "http://169.254.169.254.",
		// Other schemes, users, and what is no URL.
		"ftp://10.0.0.1", "file:///etc/passwd", "unix:///run/app.sock", "unix//run/app.sock", "gopher://10.0.0.1", "javascript:alert(1)", "//10.0.0.1", "10.0.0.1:80", "",
		"http://user:password@10.0.0.1", "http://user@10.0.0.1", "http://", "http://:80", "http://10.0.0.1:0", "http://10.0.0.1:65536", "http://10.0.0.1:x",
		"http://a b", "http://a\x00b", "http://a\r\nb", "http://{http.request.host}", "http://{host}:80", "http://10.0.0.1:{port}", "http://10.0.0.1/{env.HOME}",
		"http://10.0.0.1/../x", "http://10.0.0.1/%2e%2e/x", "http://10.0.0.1/x?y=1", "http://10.0.0.1/x#y",
	}
	for _, host := range adminSpellings(t) {
		targets = append(targets, "http://"+host+":"+admin+"/config/", "https://"+host+":"+admin, "h2c://"+host+":"+admin)
	}
	for _, target := range targets {
		p := g.refused(route{Path: "/refused", TargetURL: target}, http.StatusUnprocessableEntity)
		if len(p.Errors) == 0 || p.Errors[0].Location != "body.target_url" {
			t.Errorf("%q: the errors are %+v, want one of body.target_url", target, p.Errors)
		}
	}
	if left := g.list(""); len(left) > 0 {
		t.Errorf("after all refusals there are routes: %+v", left)
	}
}

// adminSpellings are hosts by which the admin endpoint might be reached.
func adminSpellings(t *testing.T) []string {
	hosts := []string{
		"127.0.0.1", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "127.0.1",
		"localhost", "LOCALHOST", "LocalHost.", "admin.localhost", "0.0.0.0", "0", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
		"[::127.0.0.1]", "[64:ff9b::7f00:1]", "[::ffff:0.0.0.0]", "①②⑦.0.0.1", "127。0。0。1", "127.0.0.1%00",
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil {
			hosts = append(hosts, ip.IP.String())
		}
	}
	return hosts
}

// TestAdminEndpointIsRefusedAtDial comes to the admin endpoint by ways that
// could not be known when the route was written.
func TestAdminEndpointIsRefusedAtDial(t *testing.T) {
	t.Parallel()
	t.Run("a name that resolves to it", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, settings{})
		g.create(route{Path: "/*", TargetURL: "http://" + loopbackName(t) + ":" + port(g.admin)})
		wantProblem(t, g.send(http.MethodGet, "/config/"), http.StatusBadGateway, configSecrets...)
	})
	t.Run("an address that became it", func(t *testing.T) {
		t.Parallel()
		g := startGateway(t, settings{})
		next := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		g.create(route{Path: "/*", TargetURL: "http://" + next})
		wantProblem(t, g.send(http.MethodGet, "/config/"), http.StatusBadGateway)
		was := g.admin
		g.admin = next
		g.configure(g.set)
		g.admin = was
		if err := g.reload(); err != nil {
			t.Fatal(err)
		}
		g.admin = next
		g.waitReady()
		eventually(t, startTimeout, "the old admin endpoint is gone", func() error {
			conn, err := net.Dial("tcp", was)
			if err == nil {
				conn.Close()
				return fmt.Errorf("%s still answers", was)
			}
			return nil
		})
		a := g.send(http.MethodGet, "/config/")
		if a.status != http.StatusBadGateway && a.status != http.StatusServiceUnavailable {
			t.Errorf("the answer is %s", a)
		}
		wantProblem(t, a, a.status, configSecrets...)
	})
	t.Run("a row written by hand", func(t *testing.T) {
		t.Parallel()
		eachStore(t, func(t *testing.T, dsn string) {
			g := startGateway(t, settings{dsn: dsn})
			db := openSQL(t, dsn)
			execSQL(t, db, `INSERT INTO routes (path, target_url) VALUES ('/config/', 'http://`+g.admin+`')`)
			good := textUpstream(t, "good")
			execSQL(t, db, `INSERT INTO routes (path, target_url) VALUES ('/good', '`+good+`')`)
			g.waitBody("/good", "good")
			a := g.send(http.MethodGet, "/config/")
			if a.status != http.StatusBadGateway && a.status != http.StatusServiceUnavailable {
				t.Errorf("the answer is %s", a)
			}
			wantProblem(t, a, a.status, configSecrets...)
		})
	})
}

// loopbackName returns a name, other than localhost, that the machine resolves
// to its loopback address.
func loopbackName(t *testing.T) string {
	t.Helper()
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{hostname, "localhost.localdomain", "localhost4", "ip6-localhost", "localhost6"} {
		addrs, err := net.LookupHost(name)
		if err == nil && strings.Contains(strings.Join(addrs, " "), "127.0.0.1") {
			return name
		}
	}
	t.Skip("this machine's hosts file has no name for 127.0.0.1 but localhost")
	return ""
}
