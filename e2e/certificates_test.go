package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// quarter is how long certificates are usually valid.
const quarter = 90 * 24 * time.Hour

// certified is gateways that share their certificates, which an ACME server issues on
// demand for hosts of routes.
type certified struct {
	acme     *acmeServer
	gateways []*gateway
}

// startCertified starts gateways whose certificates are in one database, and their
// routes too unless the settings name another.
func startCertified(t *testing.T, dsn string, n int, validity time.Duration, set settings) *certified {
	t.Helper()
	c := new(certified)
	if set.dsn == "" {
		set.dsn = dsn
	}
	for i := range n {
		g := newGateway(t, set)
		if i == 0 {
			// Challenges come here, whoever has made the order.
			httpPort, err := strconv.Atoi(port(g.http))
			if err != nil {
				t.Fatal(err)
			}
			c.acme = newACMEServer(t, httpPort, validity)
		}
		set := set
		set.env = []string{"ISEKAI_DATABASE_URL=" + dsn}
		set.global = fmt.Sprintf(`
	storage isekai {
		query_timeout %s
		local_copies copies
	}
	# Closer to the end than five of these, certmagic renews whatever is stored.
	renew_interval 1s
	cert_issuer acme {
		dir %s
		trusted_roots %s
		disable_tlsalpn_challenge
	}
	on_demand_tls {
		permission isekai {
			wildcards 2
		}
	}
`, map[bool]string{true: "2s", false: "30s"}[set.outage], c.acme.directory, c.acme.trustFile)
		set.sites = "https:// {\n\tbind 127.0.0.1\n\ttls {\n\t\ton_demand\n\t}\n\tisekai\n}\n"
		g.configure(set)
		g.start()
		c.gateways = append(c.gateways, g)
	}
	for _, g := range c.gateways {
		g.waitReady()
	}
	return c
}

// handshake returns the certificate that a gateway serves for a host, after a check
// of its chain and name.
func (c *certified) handshake(g *gateway, host string, patience time.Duration) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: c.acme.roots}}
	conn, err := dialer.DialContext(ctx, "tcp", g.https)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// want checks that all gateways serve the same certificate for a host, all asked at
// once, and that it was ordered once. It returns the certificate.
func (c *certified) want(t *testing.T, host string) *x509.Certificate {
	t.Helper()
	got := make([]*x509.Certificate, len(c.gateways))
	var wg sync.WaitGroup
	for i, g := range c.gateways {
		wg.Go(func() {
			var err error
			if got[i], err = c.handshake(g, host, time.Minute); err != nil {
				t.Errorf("gateway %d, %s: %v", i, host, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i := range got {
		if got[i].SerialNumber.Cmp(got[0].SerialNumber) != 0 {
			t.Errorf("gateways 0 and %d serve different certificates for %s", i, host)
		}
	}
	if n := c.acme.ordered(host); n != 1 {
		t.Errorf("%s was ordered %d times", host, n)
	}
	return got[0]
}

// wantNone checks that no gateway serves a certificate for a host or orders one.
func (c *certified) wantNone(t *testing.T, host string, gateways ...*gateway) {
	t.Helper()
	before := c.acme.ordered("")
	for _, g := range gateways {
		if cert, err := c.handshake(g, host, time.Minute); err == nil {
			t.Errorf("%s gets a certificate for %v", host, cert.DNSNames)
		}
	}
	if n := c.acme.ordered("") - before; n != 0 {
		t.Errorf("%d orders were made for %s", n, host)
	}
}

// create adds a route for a host, and waits until all gateways have it.
func (c *certified) create(t *testing.T, host, target string) route {
	t.Helper()
	r := c.gateways[0].create(route{Host: host, Path: "/", TargetURL: target})
	c.waitHost(t, host, true)
	return r
}

func (c *certified) waitHost(t *testing.T, host string, named bool) {
	t.Helper()
	for _, g := range c.gateways {
		eventually(t, servedWithin, "all gateways know of "+host, func() error {
			if page := g.hosts(host); (len(page.Items) > 0) != named {
				return fmt.Errorf("it knows %+v", page)
			}
			return nil
		})
	}
}

type hostsPage struct {
	Items []struct {
		Host         string
		Routes       int
		Certificates []struct {
			Names    []string
			Issuer   string
			Serial   string
			NotAfter time.Time `json:"not_after"`
		}
		LastError *struct {
			Message string
			Renewal bool
		} `json:"last_error"`
	}
}

func (g *gateway) hosts(host string) (page hostsPage) {
	g.t.Helper()
	a := g.call(http.MethodGet, "/api/hosts?host="+host, nil)
	if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
		g.t.Fatalf("the hosts are %s, %v", a, err)
	}
	return page
}

// TestCertificatesFollowRoutes has three replicas obtain certificates from a real
// ACME server.
func TestCertificatesFollowRoutes(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t)
	target := textUpstream(t, "over TLS")
	c := startCertified(t, dsn, 3, quarter, settings{})
	c.wantNone(t, "nobody.test", c.gateways...)
	c.gateways[0].create(route{Path: "/", TargetURL: target}) // for any host, and so for no certificate
	c.wantNone(t, "nobody.test", c.gateways...)
	c.wantNone(t, "", c.gateways[0])
	c.wantNone(t, "127.0.0.1", c.gateways[0])

	shop := c.create(t, "Shop.test", target)
	cert := c.want(t, "shop.test")
	for i, g := range c.gateways {
		client := newClient()
		client.Transport = &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: c.acme.roots},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", g.https)
			},
			DisableKeepAlives: true,
		}
		res, err := client.Get("https://shop.test/")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "over TLS" {
			t.Errorf("gateway %d answers %d %s, %v", i, res.StatusCode, body, err)
		}
		page := g.hosts("shop.test")
		if len(page.Items) != 1 || page.Items[0].Routes != 1 || len(page.Items[0].Certificates) != 1 || page.Items[0].LastError != nil {
			t.Fatalf("gateway %d shows %+v", i, page)
		}
		if got := page.Items[0].Certificates[0]; got.Serial != cert.SerialNumber.Text(16) || !got.NotAfter.Equal(cert.NotAfter) ||
			!strings.Contains(got.Issuer, "Pebble Intermediate CA") || len(got.Names) != 1 || got.Names[0] != "shop.test" {
			t.Errorf("gateway %d shows %+v", i, got)
		}
	}

	// Names of a wildcard route, as many as are allowed.
	c.create(t, "*.wild.test", target)
	c.want(t, "a.wild.test")
	c.want(t, "b.wild.test")
	c.want(t, "a.wild.test")
	c.wantNone(t, "c.wild.test", c.gateways...)

	// What the authority refuses is told where it was asked.
	c.create(t, "refused.test", target)
	c.acme.refuse("refused.test")
	asking, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		dialer := tls.Dialer{Config: &tls.Config{ServerName: "refused.test", RootCAs: c.acme.roots}}
		if conn, err := dialer.DialContext(asking, "tcp", c.gateways[1].https); err == nil {
			conn.Close()
			t.Error("there is a certificate that was refused")
		}
	})
	eventually(t, startTimeout, "the error is shown", func() error {
		page := c.gateways[1].hosts("refused.test")
		if e := page.Items[0].LastError; e == nil || e.Renewal || !strings.Contains(e.Message, "policy forbids issuing for this name") {
			return fmt.Errorf("shown is %+v", page)
		}
		return nil
	})
	stop()
	wg.Wait()

	// A route that is gone before anybody has asked.
	gone := c.create(t, "gone.test", target)
	c.gateways[0].call(http.MethodDelete, fmt.Sprintf("/api/routes/%d", gone.ID), nil)
	c.waitHost(t, "gone.test", false)
	c.wantNone(t, "gone.test", c.gateways...)

	// A replica that starts anew finds the certificate, and one whose route is gone
	// does not serve it.
	c.gateways[2].stop()
	c.gateways[2].start()
	c.gateways[2].waitReady()
	if again := c.want(t, "shop.test"); again.SerialNumber.Cmp(cert.SerialNumber) != 0 {
		t.Error("after a restart there is another certificate")
	}
	c.gateways[0].call(http.MethodDelete, fmt.Sprintf("/api/routes/%d", shop.ID), nil)
	c.waitHost(t, "shop.test", false)
	c.gateways[2].stop()
	c.gateways[2].start()
	c.gateways[2].waitReady()
	c.wantNone(t, "shop.test", c.gateways[2])

	db := openSQL(t, dsn)
	var keys, locks int
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM certificates_storage WHERE key LIKE 'certificates/%.key'),
		(SELECT count(*) FROM storage_locks WHERE name LIKE '%.test' AND name NOT LIKE '%refused.test')`).Scan(&keys, &locks); err != nil {
		t.Fatal(err)
	}
	if keys != 3 || locks != 0 {
		t.Errorf("the database has %d private keys and %d locks", keys, locks)
	}
}

// TestCertificatesAreRenewedOnce has certificates that must be renewed after two thirds
// of a short life.
func TestCertificatesAreRenewedOnce(t *testing.T) {
	t.Parallel()
	c := startCertified(t, pgtest.New(t), 3, 45*time.Second, settings{})
	target := textUpstream(t, "x")
	c.create(t, "kept.test", target)
	dropped := c.create(t, "dropped.test", target)
	first := c.want(t, "kept.test")
	c.want(t, "dropped.test")
	c.gateways[0].call(http.MethodDelete, fmt.Sprintf("/api/routes/%d", dropped.ID), nil)
	c.waitHost(t, "dropped.test", false)

	var renewed *x509.Certificate
	eventually(t, 2*startTimeout, "all gateways serve another certificate", func() error {
		for i, g := range c.gateways {
			// Handshakes trigger renewals.
			if _, err := c.handshake(g, "dropped.test", time.Minute); err != nil && c.acme.ordered("kept.test") == 1 {
				return fmt.Errorf("what was in memory is served no more: %w", err)
			}
			got, err := c.handshake(g, "kept.test", time.Minute)
			if err != nil {
				t.Fatalf("while the certificate is renewed: %v", err)
			}
			if got.SerialNumber.Cmp(first.SerialNumber) == 0 {
				return fmt.Errorf("gateway %d serves the first one", i)
			}
			renewed = got
		}
		return nil
	})
	if n := c.acme.ordered("kept.test"); n != 2 {
		t.Errorf("a certificate that was obtained and renewed was ordered %d times", n)
	}
	if n := c.acme.ordered("dropped.test"); n != 1 {
		t.Errorf("a certificate without a route was ordered %d times", n)
	}
	for i, g := range c.gateways {
		if page := g.hosts("kept.test"); len(page.Items[0].Certificates) == 0 || page.Items[0].Certificates[0].Serial != renewed.SerialNumber.Text(16) {
			t.Errorf("gateway %d shows %+v", i, page)
		}
	}
}

// TestStorageCanBeMoved moves certificates from files to the database and back, by
// Caddy's own commands.
func TestStorageCanBeMoved(t *testing.T) {
	t.Parallel()
	dir, dsn := t.TempDir(), pgtest.New(t)
	files := &certmagic.FileStorage{Path: filepath.Join(dir, "before")}
	assets := map[string]string{
		"certificates/ca/a.test/a.test.crt": "certificate", "certificates/ca/a.test/a.test.key": "key", "acme/ca/users/x/x.json": "account",
		"pki/authorities/local/root.crt": "root", "pki/authorities/local/root.key": "root key", "last_clean.json": "{}",
	}
	for key, value := range assets {
		if err := files.Store(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	caddy := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), binary(t), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "ISEKAI_DATABASE_URL="+dsn, "ISEKAI_CERTIFICATES_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)),
			"XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("caddy %v: %v\n%s", args, err, out)
		}
	}
	writeFile(t, filepath.Join(dir, "Caddyfile.before"), "{\n\tstorage file_system before\n}\n")
	writeFile(t, filepath.Join(dir, "Caddyfile.shared"), "{\n\tstorage isekai {\n\t\tencryption_key {env.ISEKAI_CERTIFICATES_KEY}\n\t}\n}\n")
	writeFile(t, filepath.Join(dir, "Caddyfile.after"), "{\n\tstorage file_system after\n}\n")
	for _, move := range [][2]string{{"before", "shared"}, {"shared", "after"}} {
		caddy("storage", "export", "--config", "Caddyfile."+move[0], "--output", "assets.tar")
		caddy("storage", "import", "--config", "Caddyfile."+move[1], "--input", "assets.tar")
	}
	after := &certmagic.FileStorage{Path: filepath.Join(dir, "after")}
	for key, value := range assets {
		if got, err := after.Load(t.Context(), key); err != nil || string(got) != value {
			t.Errorf("%s has become %q, %v", key, got, err)
		}
	}
	var sealed, locks int
	if err := openSQL(t, dsn).QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM certificates_storage WHERE sealed IS NOT NULL),
		(SELECT count(*) FROM storage_locks)`).Scan(&sealed, &locks); err != nil {
		t.Fatal(err)
	}
	if sealed != len(assets) || locks != 0 {
		t.Errorf("the database has %d sealed values and %d locks", sealed, locks)
	}
}

// TestCertificatesInAnOutage stops the database: what is in memory is served, and
// nothing is ordered again for want of it.
func TestCertificatesInAnOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	c := startCertified(t, server.DSN(), 2, quarter, settings{outage: true})
	target := textUpstream(t, "x")
	c.create(t, "served.test", target)
	c.create(t, "stored.test", target)
	c.create(t, "new.test", target)
	served := c.want(t, "served.test")
	if _, err := c.handshake(c.gateways[0], "stored.test", time.Minute); err != nil {
		t.Fatal(err)
	}

	server.Stop(t)
	if got := c.want(t, "served.test"); got.SerialNumber.Cmp(served.SerialNumber) != 0 {
		t.Error("in the outage there is another certificate")
	}
	c.wantNone(t, "stored.test", c.gateways[1]) // it has never loaded it
	c.wantNone(t, "new.test", c.gateways...)

	c.wantNone(t, "stored.test", c.gateways[1]) // also now that the outage is known

	server.Start(t)
	for _, host := range []string{"served.test", "stored.test", "new.test"} {
		eventually(t, startTimeout, host+" is served after the outage", func() error {
			for _, g := range c.gateways {
				if _, err := c.handshake(g, host, time.Minute); err != nil {
					return err
				}
			}
			return nil
		})
		c.want(t, host)
	}
}

// TestCertificatesAfterAColdStart starts a gateway while the certificates' database is
// down.
func TestCertificatesAfterAColdStart(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	c := startCertified(t, server.DSN(), 1, quarter, settings{dsn: "sqlite://" + filepath.Join(t.TempDir(), "routes.db"), outage: true})
	target := textUpstream(t, "x")
	c.create(t, "served.test", target)
	c.create(t, "new.test", target)
	before := c.want(t, "served.test")
	g := c.gateways[0]
	g.stop()
	server.Stop(t)
	g.start()
	g.waitReady()
	if after := c.want(t, "served.test"); after.SerialNumber.Cmp(before.SerialNumber) != 0 {
		t.Error("after the start there is another certificate")
	}
	c.wantNone(t, "new.test", g)
	server.Start(t)
	eventually(t, startTimeout, "a new certificate is served after the outage", func() error {
		_, err := c.handshake(g, "new.test", time.Minute)
		return err
	})
}
