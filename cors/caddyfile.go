package cors

import (
	"errors"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/store"
)

const directive = "isekai_cors"

func init() {
	httpcaddyfile.RegisterHandlerDirective(directive, parseCaddyfile)
	// A preflight must be neither redirected nor rewritten nor asked for
	// credentials, and redirects need the fields too. Other plugins' directives,
	// such as isekai_rate_limit before basic_auth, stay behind this place in
	// whatever order they are registered.
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "redir")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	isekai_cors [<matcher>] [<origins...>] {
//		origins        <origins...>
//		methods        <methods...>
//		headers        <names...>
//		expose_headers <names...>
//		credentials
//		max_age        <duration>|off
//		private_network
//	}
//
// Lists may be repeated and add up. Of several isekai_cors the one with the
// longest path matcher comes first and has the last word.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	h.Origins = d.RemainingArgs()
	if err := h.check(d, "origins"); err != nil {
		return err
	}
	for d.NextBlock(0) {
		option := d.Val()
		args := d.RemainingArgs()
		switch option {
		case "origins", "methods", "headers", "expose_headers":
			if len(args) == 0 {
				return d.ArgErr()
			}
			list := h.list(option)
			*list = append(*list, args...)
		case "credentials", "private_network":
			if len(args) > 0 {
				return d.ArgErr()
			}
			if option == "credentials" {
				h.Credentials = true
			} else {
				h.PrivateNetwork = true
			}
		case "max_age":
			if len(args) != 1 {
				return d.ArgErr()
			}
			seconds, err := parseMaxAge(args[0])
			if err != nil {
				return d.Errf("max_age %q: %v", args[0], err)
			}
			h.MaxAge = seconds
		default:
			return d.Errf("unrecognized option: %s", option)
		}
		if err := h.check(d, option); err != nil {
			return err
		}
	}
	if err := h.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (h *Handler) list(option string) *[]string {
	switch option {
	case "methods":
		return &h.Methods
	case "headers":
		return &h.Headers
	case "expose_headers":
		return &h.ExposeHeaders
	}
	return &h.Origins
}

// check reports what is wrong with the items of an option so far, at its line.
// What else is wrong may be put right by options that follow.
func (h *Handler) check(d *caddyfile.Dispenser, option string) error {
	var errs store.FieldErrors
	errors.As(h.Validate(), &errs)
	for _, err := range errs {
		if strings.HasPrefix(err.Field, option+"[") {
			return d.WrapErr(err)
		}
	}
	return nil
}

func parseMaxAge(s string) (int, error) {
	if s == "off" {
		return -1, nil
	}
	age, err := caddy.ParseDuration(s)
	if err != nil {
		return 0, err
	}
	if age < time.Second || age > MaxMaxAge*time.Second || age%time.Second != 0 {
		return 0, errors.New("must be in whole seconds between 1s and 24h, or off")
	}
	return int(age / time.Second), nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
