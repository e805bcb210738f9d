package proxy

import (
	"context"
	"net"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Dialer returns a dialer that connects only where p allows it. A nil policy
// allows everything.
func (p *Policy) Dialer(timeout time.Duration) *net.Dialer {
	dialer := &net.Dialer{Timeout: timeout}
	if p != nil {
		dialer.Control = p.control
	}
	return dialer
}

type policyKey struct{}

// WithPolicy returns ctx with the policy that modules provisioned with it must
// heed when they connect.
func WithPolicy(ctx caddy.Context, p *Policy) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, policyKey{}, p)
	return ctx
}

// PolicyOf returns the policy of WithPolicy, or nil if the module that is being
// provisioned is not a route's plugin but the operator's own configuration.
func PolicyOf(ctx caddy.Context) *Policy {
	p, _ := ctx.Value(policyKey{}).(*Policy)
	return p
}
