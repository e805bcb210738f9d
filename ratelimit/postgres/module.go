package postgres

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/ratelimit"
)

func init() { caddy.RegisterModule(new(Module)) }

// Module keeps the counters of rate limits in PostgreSQL, in an unlogged table that
// it makes if it is missing.
type Module struct {
	// The database: "postgres://user:password@host/name". Placeholders such as
	// {env.LIMITS_URL} are resolved when the configuration is loaded and never
	// appear in Caddy's /config. Required.
	DSN string `json:"dsn,omitempty"`

	// The most connections, which are kept for the limits alone. Default: 8.
	MaxConns int `json:"max_conns,omitempty"`

	dsn string // resolved
}

// CaddyModule returns the Caddy module information.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: ratelimit.BackendNamespace + ".postgres", New: func() caddy.Module { return new(Module) }}
}

// Provision resolves the DSN's placeholders.
func (m *Module) Provision(caddy.Context) error {
	m.dsn = caddy.NewReplacer().ReplaceKnown(m.DSN, "")
	return nil
}

// Validate checks the ranges that the fields name.
func (m *Module) Validate() error {
	if m.dsn == "" {
		return errors.New("dsn is missing, or empty once its placeholders are resolved")
	}
	if m.MaxConns < 0 {
		return errors.New("max_conns must not be negative")
	}
	return nil
}

// Key implements ratelimit.BackendModule.
func (m *Module) Key() string {
	key, _ := json.Marshal([]any{m.dsn, m.MaxConns}) // of such values it can't fail
	return string(key)
}

// Open implements ratelimit.BackendModule.
func (m *Module) Open(log func() *zap.Logger) (ratelimit.Remote, error) {
	b, err := Open(Options{DSN: m.dsn, MaxConns: m.MaxConns, Log: log})
	if err != nil {
		return nil, err // and no typed nil
	}
	return b, nil
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	postgres <dsn> {
//		max_conns <number>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if !d.AllArgs(&m.DSN) {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if d.Val() != "max_conns" {
			return d.Errf("unrecognized option: %s", d.Val())
		}
		var value string
		if !d.AllArgs(&value) {
			return d.ArgErr()
		}
		if m.MaxConns != 0 {
			return d.Err("option max_conns stands twice")
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return d.Errf("max_conns must be a whole number above 0, not %q", value)
		}
		m.MaxConns = n
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Module)(nil)
	_ caddy.Validator         = (*Module)(nil)
	_ caddyfile.Unmarshaler   = (*Module)(nil)
	_ ratelimit.BackendModule = (*Module)(nil)
)
