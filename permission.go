package isekai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/isekai-gateway/isekai/ondemand"
)

func init() { caddy.RegisterModule(new(Permission)) }

// Permission allows on-demand certificates only for hosts that an enabled route
// names. It answers from memory and never asks the store. As long as the routes are
// not loaded it allows nothing. A route for any host allows none; one for an IP
// address allows that address.
//
// When the last route of a host is deleted or disabled, no certificate is obtained
// or renewed for it any more, nor loaded from storage. One that is in memory goes on
// being served until it expires or is pushed out.
type Permission struct {
	// Whether wildcard routes, such as those for *.example.com, allow certificates
	// for the names they stand for. Anybody can ask for endless such names, each of
	// which costs an order of the certificate authority, whose limits are low; so
	// they are counted. Default: only exact hosts are allowed.
	Wildcards *WildcardNames `json:"wildcards,omitempty"`

	app       *App
	budget    *ondemand.Budget
	budgetKey string
	cleaned   atomic.Bool
}

// WildcardNames bounds the names of wildcard routes that may have a certificate.
type WildcardNames struct {
	// How many different names each wildcard route may have within a window, on this
	// node, from 1 to 10000. Names whose certificate is in storage but not in memory
	// count as well, so that after a restart no more than these are served at
	// once; names whose certificate is in memory don't. Default: 100.
	Names int `json:"names,omitempty"`

	// The length of the window, from 1m to 30d. Default: 1h.
	Window caddy.Duration `json:"window,omitempty"`
}

// Defaults and bounds of WildcardNames.
const (
	defaultWildcardNames  = 100
	maxWildcardNames      = 10_000
	defaultWildcardWindow = time.Hour
	minWildcardWindow     = time.Minute
	maxWildcardWindow     = 30 * 24 * time.Hour
)

// budgets holds what wildcards were allowed, across configurations, so that a reload
// does not give a flood a new start.
var budgets = caddy.NewUsagePool()

// pooledBudget is a budget in the pool.
type pooledBudget struct{ *ondemand.Budget }

// Destruct implements caddy.Destructor.
func (pooledBudget) Destruct() error { return nil }

// CaddyModule returns the Caddy module information.
func (*Permission) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.permission.isekai", New: func() caddy.Module { return new(Permission) }}
}

// Provision finds the app of the same configuration and keeps its gateway open: the
// tls app may outlive it a little. Loading it here makes no circle, since the app
// never asks for tls.
func (p *Permission) Provision(ctx caddy.Context) error {
	if err := p.validate(); err != nil {
		return err
	}
	app, err := ctx.AppIfConfigured("isekai")
	if err != nil {
		return fmt.Errorf("permission isekai needs the app isekai, that is the global option isekai: %w", err)
	}
	if !app.(*App).acquire() {
		return errNotRunning
	}
	p.app = app.(*App)
	if p.Wildcards != nil {
		settings := p.Wildcards.withDefaults()
		key, err := json.Marshal(settings)
		if err != nil {
			return fmt.Errorf("encoding settings: %w", err)
		}
		pooled, _, err := budgets.LoadOrNew(string(key), func() (caddy.Destructor, error) {
			return pooledBudget{ondemand.NewBudget(settings.Names, time.Duration(settings.Window))}, nil
		})
		if err != nil {
			return err
		}
		p.budget, p.budgetKey = pooled.(pooledBudget).Budget, string(key)
	}
	return nil
}

func (p *Permission) validate() error {
	if p.Wildcards == nil {
		return nil
	}
	w := p.Wildcards.withDefaults()
	if w.Names < 1 || w.Names > maxWildcardNames {
		return fmt.Errorf("wildcards.names must be from 1 to %d", maxWildcardNames)
	}
	if d := time.Duration(w.Window); d < minWildcardWindow || d > maxWildcardWindow {
		return fmt.Errorf("wildcards.window must be from %v to 30d", minWildcardWindow)
	}
	return nil
}

func (w WildcardNames) withDefaults() WildcardNames {
	if w.Names == 0 {
		w.Names = defaultWildcardNames
	}
	if w.Window == 0 {
		w.Window = caddy.Duration(defaultWildcardWindow)
	}
	return w
}

// Validate checks the ranges that the fields name.
func (p *Permission) Validate() error { return p.validate() }

// Cleanup lets go of the app.
func (p *Permission) Cleanup() error {
	if p.app == nil || p.cleaned.Swap(true) {
		return nil
	}
	var err error
	if p.budget != nil {
		_, err = budgets.Delete(p.budgetKey)
	}
	return errors.Join(err, p.app.release())
}

// CertificateAllowed implements caddytls.OnDemandPermission.
func (p *Permission) CertificateAllowed(_ context.Context, name string) error {
	app := p.app
	if p.cleaned.Load() {
		// After a failed reload Caddy's certificate cache may still ask the module of
		// the configuration that never ran. What runs is what counts.
		var err error
		if app, err = activeApp(); err != nil {
			return fmt.Errorf("%s: %w: %w", name, caddytls.ErrPermissionDenied, err)
		}
	}
	if err := ondemand.Check(app.gateway.Table(), p.budget, name); err != nil {
		return fmt.Errorf("%s: %w: %w", name, caddytls.ErrPermissionDenied, err)
	}
	return nil
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	permission isekai {
//		wildcards [<names> [<window>]]
//	}
func (p *Permission) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if d.NextArg() {
		return d.ArgErr()
	}
	return block(d, map[string]func() error{
		"wildcards": func() error {
			w := new(WildcardNames)
			args := d.RemainingArgs()
			if len(args) > 2 {
				return d.ArgErr()
			}
			if len(args) > 0 {
				names, err := strconv.Atoi(args[0])
				if err != nil || names < 1 || names > maxWildcardNames {
					return d.Errf("wildcards takes a number of names from 1 to %d, not %q", maxWildcardNames, args[0])
				}
				w.Names = names
			}
			if len(args) > 1 {
				window, err := caddy.ParseDuration(args[1])
				if err != nil || window < minWildcardWindow || window > maxWildcardWindow {
					return d.Errf("the window of wildcards must be from 1m to 30d, not %q", args[1])
				}
				w.Window = caddy.Duration(window)
			}
			p.Wildcards = w
			return nil
		},
	})
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Permission)(nil)
	_ caddy.Validator             = (*Permission)(nil)
	_ caddy.CleanerUpper          = (*Permission)(nil)
	_ caddyfile.Unmarshaler       = (*Permission)(nil)
	_ caddytls.OnDemandPermission = (*Permission)(nil)
)
