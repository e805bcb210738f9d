package auth

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/isekai-gateway/isekai/store"
)

// App is what sites use of the isekai app.
type App interface {
	// AuthCredentials looks up API keys.
	AuthCredentials() Credentials

	// AuthVerifier is made of the app's own configuration.
	AuthVerifier() *Verifier
}

// Site is the settings of the handler isekai_auth and of the provider isekai.
type Site struct {
	store.Auth

	// By what means requests can say who makes them. Default: those of the isekai app.
	// Keys are looked up in that app's store in any case.
	Config

	policy *Policy
	own    *Verifier // to close
}

// Provision compiles the policy.
func (s *Site) Provision(ctx caddy.Context) error {
	var app App
	found, err := ctx.AppIfConfigured("isekai")
	switch {
	case err == nil:
		app, _ = found.(App)
	case !errors.Is(err, caddy.ErrNotConfigured):
		return fmt.Errorf("getting isekai app: %w", err)
	}
	verifier, err := s.verifier(ctx, app)
	if err != nil {
		return err
	}
	s.policy, err = verifier.Policy(&s.Auth)
	return err
}

func (s *Site) verifier(ctx caddy.Context, app App) (*Verifier, error) {
	if app == nil {
		if slices.Contains(s.Any, MethodAPIKey) {
			return nil, errors.New("api_key needs the isekai app, whose store has the keys (in a Caddyfile, the global option isekai)")
		}
	}
	if reflect.ValueOf(s.Config).IsZero() && app != nil {
		return app.AuthVerifier(), nil
	}
	options := Options{Logger: ctx.Logger()}
	if app != nil {
		options.Credentials = app.AuthCredentials()
	}
	var err error
	s.own, err = New(s.Config, options)
	return s.own, err
}

// Validate implements caddy.Validator; Provision has checked everything.
func (s *Site) Validate() error { return nil }

// Cleanup implements caddy.CleanerUpper.
func (s *Site) Cleanup() error {
	if s.own != nil {
		s.own.Close()
	}
	return nil
}

// UnmarshalCaddyfile sets up a site's policy from Caddyfile tokens. Syntax:
//
//	isekai_auth [<matcher>] [<methods...>] {
//		any    <methods...>
//		groups <groups...>
//		anonymous
//		<options of auth...>
//	}
func (s *Site) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	s.Any = d.RemainingArgs()
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "any":
			if err := list(d, &s.Any); err != nil {
				return err
			}
		case "groups":
			if err := list(d, &s.Groups); err != nil {
				return err
			}
		case "anonymous":
			s.Anonymous = true
			if err := noArgs(d); err != nil {
				return err
			}
		default:
			known, err := s.option(d)
			if err != nil {
				return err
			}
			if !known {
				return d.Errf("unrecognized option: %s", d.Val())
			}
		}
	}
	if err := s.Config.check(d); err != nil {
		return err
	}
	// Which methods the app has configured is seen when it runs.
	if err := Check(&s.Auth, Methods()); err != nil {
		return d.Errf("isekai_auth: %v", err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Site)(nil)
	_ caddy.Validator       = (*Site)(nil)
	_ caddy.CleanerUpper    = (*Site)(nil)
	_ caddyfile.Unmarshaler = (*Site)(nil)
)
