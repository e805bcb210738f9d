package isekai

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/isekai-gateway/isekai/ondemand"
	"github.com/isekai-gateway/isekai/routing"
)

// certificateEvents remembers why certificates could not be obtained, as Caddy's
// events tell.
type certificateEvents struct{ failures *ondemand.Failures }

// follow subscribes to the events of this configuration.
func (c certificateEvents) follow(app any) error {
	events, ok := app.(*caddyevents.App)
	if !ok {
		return fmt.Errorf("the events app is a %T", app)
	}
	return events.Subscribe(&caddyevents.Subscription{
		Events:   []string{"cert_failed", "cert_obtained", "cached_managed_cert"},
		Handlers: []caddyevents.Handler{c},
	})
}

// Handle implements caddyevents.Handler.
func (c certificateEvents) Handle(_ context.Context, e caddy.Event) error {
	// A certificate that is in memory now may have been obtained by another replica.
	names, _ := e.Data["sans"].([]string)
	if name, ok := e.Data["identifier"].(string); ok {
		names = []string{name}
	}
	for _, name := range names {
		host, err := routing.ParseHost(name)
		if err != nil {
			continue // no route has such a name
		}
		if e.Name() == "cert_failed" {
			c.failures.Add(host, failureOf(e))
		} else {
			c.failures.Forget(host)
		}
	}
	return nil
}

func failureOf(e caddy.Event) ondemand.Failure {
	failure := ondemand.Failure{Message: "unknown", Time: e.Timestamp().UTC()}
	if cause, ok := e.Data["error"].(error); ok {
		failure.Message = cause.Error()
	}
	failure.Renewal, _ = e.Data["renewal"].(bool)
	return failure
}

// certificates returns the certificates in memory that can be served for a host, the
// one that is valid longest first.
func certificates(host string) (found []ondemand.Certificate) {
	// The cache is Caddy's, and only there while a tls app runs; without one, asking
	// it panics.
	if _, err := caddy.ActiveContext().AppIfConfigured("tls"); err != nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			found = nil // it has just stopped
		}
	}()
	seen := make(map[string]bool)
	for _, cert := range caddytls.AllMatchingCertificates(host) {
		if cert.Leaf != nil && !seen[cert.Hash()] {
			seen[cert.Hash()] = true
			found = append(found, ondemand.NewCertificate(cert.Leaf))
		}
	}
	slices.SortFunc(found, func(a, b ondemand.Certificate) int {
		return cmp.Or(b.NotAfter.Compare(a.NotAfter), time.Time.Compare(a.NotBefore, b.NotBefore), cmp.Compare(a.Serial, b.Serial))
	})
	return found
}

// Interface guards
var (
	_ caddyevents.Handler = certificateEvents{}
)
