package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// certified is gateways that share their certificates, which an ACME server issues on
// demand for hosts of routes.
type certified struct {
	acme     *acmeServer
	gateways []*gateway
}

func startCertified(t *testing.T, dsn string, n int, set settings) *certified {
	t.Helper()
	c := new(certified)
	for i := range n {
		set.dsn = dsn
		g := newGateway(t, set)
		if i == 0 {
			// Challenges come here, whoever has made the order.
			httpPort, err := strconv.Atoi(port(g.http))
			if err != nil {
				t.Fatal(err)
			}
			c.acme = newACMEServer(t, httpPort)
		}
		set := set
		set.env = []string{"ISEKAI_DATABASE_URL=" + dsn}
		set.global = fmt.Sprintf(`
	storage isekai {
		query_timeout %s
	}
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
	c := startCertified(t, dsn, 3, settings{})
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

// TestCertificatesInAnOutage stops the database: what is in memory is served, and
// nothing is ordered again for want of it.
func TestCertificatesInAnOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	c := startCertified(t, server.DSN(), 2, settings{outage: true})
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
