package isekai_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai"
)

func TestCaddyfilePermission(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		block string
		want  any
		fault string
	}{
		"plain":           {"permission isekai", map[string]any{"module": "isekai"}, ""},
		"wildcards":       {"permission isekai {\nwildcards\n}", map[string]any{"module": "isekai", "wildcards": map[string]any{}}, ""},
		"number":          {"permission isekai {\nwildcards 20\n}", map[string]any{"module": "isekai", "wildcards": map[string]any{"names": 20.0}}, ""},
		"number, window":  {"permission isekai {\nwildcards 20 1d\n}", map[string]any{"module": "isekai", "wildcards": map[string]any{"names": 20.0, "window": 86400e9}}, ""},
		"argument":        {"permission isekai x", nil, "wrong argument count"},
		"option":          {"permission isekai {\nwild\n}", nil, "unrecognized option: wild, at Caddyfile:4"},
		"no number":       {"permission isekai {\nwildcards all\n}", nil, `not "all", at Caddyfile:4`},
		"too many":        {"permission isekai {\nwildcards 10001\n}", nil, "from 1 to 10000"},
		"short window":    {"permission isekai {\nwildcards 1 1s\n}", nil, "from 1m to 30d"},
		"three arguments": {"permission isekai {\nwildcards 1 1h x\n}", nil, "wrong argument count"},
		"twice":           {"permission isekai {\nwildcards\nwildcards\n}", nil, "stands twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := adapt(t, "{\non_demand_tls {\n"+test.block+"\n}\n}\nhttps:// {\ntls {\non_demand\n}\n}\n")
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("error %v, want %q", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			automation := cfg["apps"].(map[string]any)["tls"].(map[string]any)["automation"].(map[string]any)
			got := automation["on_demand"].(map[string]any)["permission"]
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// withPermission has the site use TLS with certificates that Caddy's own authority
// issues on demand, if the permission allows them.
func withPermission(settings map[string]any) func(map[string]any) {
	return func(cfg map[string]any) {
		permission := map[string]any{"module": "isekai"}
		maps.Copy(permission, settings)
		apps := cfg["apps"].(map[string]any)
		apps["tls"] = map[string]any{"automation": map[string]any{
			"policies":  []any{map[string]any{"on_demand": true, "issuers": []any{map[string]any{"module": "internal"}}}},
			"on_demand": map[string]any{"permission": permission},
		}}
		apps["pki"] = map[string]any{"certificate_authorities": map[string]any{"local": map[string]any{"install_trust": false}}}
		siteOf(cfg)["tls_connection_policies"] = []any{map[string]any{}}
	}
}

// handshake returns the names of the certificate that a client gets who asks for name.
func (s *server) handshake(name string) ([]string, error) {
	s.t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(s.site, "http://"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames, nil
}

// allows checks which of the names get certificates.
func (s *server) allows(want bool, names ...string) {
	s.t.Helper()
	for _, name := range names {
		got, err := s.handshake(name)
		if want && (err != nil || !slices.Equal(got, []string{strings.ToLower(name)})) {
			s.t.Errorf("%s gets a certificate for %v, %v", name, got, err)
		}
		if !want && err == nil {
			s.t.Errorf("%s gets a certificate", name)
		}
	}
}

func TestPermission(t *testing.T) {
	edit := withPermission(map[string]any{"wildcards": map[string]any{"names": 2}})
	s := start(t, edit)
	s.allows(false, "api.perm.test", "x.wild.perm.test")
	s.create(route{"host": "api.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	s.create(route{"host": "*.wild.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	s.create(route{"path": "/any", "target_url": "http://127.0.0.1:1"})
	off := s.create(route{"host": "off.perm.test", "path": "/", "target_url": "http://127.0.0.1:1", "enabled": false})
	s.allows(true, "api.perm.test", "API.perm.TEST", "a.wild.perm.test", "b.wild.perm.test", "a.wild.perm.test")
	s.allows(false, "other.perm.test", "off.perm.test", "c.wild.perm.test", "x.api.perm.test")

	// Neither a reload, nor one that fails, gives wildcards new places or loses the table.
	if err := s.load(edit); err != nil {
		t.Fatal(err)
	}
	s.allows(false, "d.wild.perm.test")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = s.load(func(cfg map[string]any) {
		edit(cfg)
		siteOf(cfg)["listen"] = []string{strings.TrimPrefix(s.site, "http://"), taken.Addr().String()}
	})
	if err == nil {
		t.Fatal("a configuration with an address in use was loaded")
	}
	s.create(route{"host": "after.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	s.allows(true, "after.perm.test")
	s.allows(false, "e.wild.perm.test", "off.perm.test")

	s.write("PATCH", fmt.Sprintf("/api/routes/%d", off), route{"enabled": true})
	s.allows(true, "off.perm.test")
}

func TestHostsShowCertificates(t *testing.T) {
	s := start(t, withPermission(nil))
	s.create(route{"host": "Shown.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	s.create(route{"host": "shown.perm.test", "path": "/b", "target_url": "http://127.0.0.1:1"})
	s.create(route{"host": "unasked.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	s.allows(true, "shown.perm.test")
	var page struct {
		Items []struct {
			Host         string
			Routes       int
			Certificates []struct {
				Names     []string
				Issuer    string
				NotBefore time.Time `json:"not_before"`
				NotAfter  time.Time `json:"not_after"`
			}
			LastError *struct{ Message string } `json:"last_error"`
		}
	}
	res := s.do("GET", s.admin+"/api/hosts", "")
	if err := json.Unmarshal([]byte(res.body), &page); err != nil || len(page.Items) != 2 {
		t.Fatalf("%s, %v", res.body, err)
	}
	shown, unasked := page.Items[0], page.Items[1]
	if shown.Host != "shown.perm.test" || shown.Routes != 2 || len(shown.Certificates) != 1 || shown.LastError != nil {
		t.Fatalf("%+v", shown)
	}
	if c := shown.Certificates[0]; !slices.Equal(c.Names, []string{"shown.perm.test"}) || !strings.Contains(c.Issuer, "Caddy Local Authority") ||
		c.NotBefore.After(time.Now()) || c.NotAfter.Before(time.Now()) {
		t.Errorf("%+v", c)
	}
	if unasked.Host != "unasked.perm.test" || unasked.Routes != 1 || len(unasked.Certificates) != 0 {
		t.Errorf("%+v", unasked)
	}

	families := s.families()
	for name, want := range map[string]time.Time{
		"isekai_certificate_not_before_timestamp_seconds": shown.Certificates[0].NotBefore,
		"isekai_certificate_not_after_timestamp_seconds":  shown.Certificates[0].NotAfter,
	} {
		f := families[name]
		if m := metric(f, "shown.perm.test"); m == nil || int64(m.Gauge.GetValue()) != want.Unix() || len(f.Metric) != 1 {
			t.Errorf("%v, want one of %v", f, want)
		}
	}
	if m := metric(families["isekai_certificate_failing_hosts"]); m == nil || m.Gauge.GetValue() != 0 {
		t.Errorf("%v", families["isekai_certificate_failing_hosts"])
	}
}

// TestHostsWithoutTLS asks a configuration in which Caddy has no certificates at all.
func TestHostsWithoutTLS(t *testing.T) {
	s := start(t, func(cfg map[string]any) { delete(cfg["apps"].(map[string]any), "http") })
	s.create(route{"host": "plain.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	res := s.do("GET", s.admin+"/api/hosts", "")
	if want := `{"items":[{"host":"plain.perm.test","routes":1,"certificates":[]}]}`; strings.TrimSpace(res.body) != want {
		t.Errorf("%d %s", res.StatusCode, res.body)
	}
}

func TestPermissionNeedsTheApp(t *testing.T) {
	s := start(t, nil)
	err := s.load(func(cfg map[string]any) {
		withPermission(nil)(cfg)
		delete(cfg["apps"].(map[string]any), "isekai")
		siteOf(cfg)["routes"] = []any{}
	})
	if err == nil || !strings.Contains(err.Error(), "permission isekai needs the app isekai") {
		t.Errorf("without the app: %v", err)
	}
	for fault, settings := range map[string]map[string]any{
		"wildcards.names":  {"names": 10_001},
		"wildcards.window": {"window": "1s"},
	} {
		err := s.load(withPermission(map[string]any{"wildcards": settings}))
		if err == nil || !strings.Contains(err.Error(), fault+" must be from") {
			t.Errorf("%s: %v", fault, err)
		}
	}
}

// TestPermissionOutlivesReloads checks what a module says that was cleaned up.
func TestPermissionOutlivesReloads(t *testing.T) {
	s := start(t, nil)
	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	loaded, err := ctx.LoadModuleByID("tls.permission.isekai", json.RawMessage(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	p := loaded.(*isekai.Permission)
	s.create(route{"host": "host.perm.test", "path": "/", "target_url": "http://127.0.0.1:1"})
	check := func(name string, want bool) {
		t.Helper()
		err := p.CertificateAllowed(t.Context(), name)
		if want != (err == nil) || err != nil && !errors.Is(err, caddytls.ErrPermissionDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("host.perm.test", true)
	check("other.perm.test", false)
	cancel()
	check("host.perm.test", true)
	check("other.perm.test", false)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	check("host.perm.test", false)
}

// TestReadmeTLS adapts the configuration that the README shows.
func TestReadmeTLS(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## TLS\n")
	_, block, _ := strings.Cut(section, "```caddyfile\n")
	block, _, _ = strings.Cut(block, "```")
	cfg, err := adapt(t, block)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"module": "isekai", "dsn": "{env.ISEKAI_DATABASE_URL}", "encryption_keys": []any{"{env.ISEKAI_CERTIFICATES_KEY}"}, "local_copies": "/var/lib/isekai"}
	if diff := cmp.Diff(want, cfg["storage"]); diff != "" {
		t.Error(diff)
	}
	automation := cfg["apps"].(map[string]any)["tls"].(map[string]any)["automation"].(map[string]any)
	if diff := cmp.Diff(map[string]any{"permission": map[string]any{"module": "isekai"}}, automation["on_demand"]); diff != "" {
		t.Error(diff)
	}
}
