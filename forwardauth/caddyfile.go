package forwardauth

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const directive = "isekai_forward_auth"

func init() {
	httpcaddyfile.RegisterHandlerDirective(directive, parseCaddyfile)
	// Where Caddy's own stands: after rewrites, so that what is asked about is
	// what is served, and after limits, so that a flood does not reach the service.
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.After, "forward_auth")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	isekai_forward_auth [<matcher>] <url> {
//		copy_headers <fields...>
//		timeout      <duration>
//		on_error     deny|allow
//	}
//
// copy_headers may be repeated and adds up; a field may be of the form From>To.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if !d.AllArgs(&h.URL) {
		return d.ArgErr()
	}
	if err := h.check(d, "url"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		if seen[option] && option != "copy_headers" {
			return d.Errf("option %s stands twice", option)
		}
		seen[option] = true
		switch option {
		case "copy_headers":
			args := d.RemainingArgs()
			if len(args) == 0 {
				return d.ArgErr()
			}
			h.CopyHeaders = append(h.CopyHeaders, args...)
		case "timeout":
			var text string
			if !d.AllArgs(&text) {
				return d.ArgErr()
			}
			timeout, err := caddy.ParseDuration(text)
			if err != nil || timeout <= 0 {
				return d.Errf("timeout must be a duration such as 5s, not %q", text)
			}
			h.Timeout = caddy.Duration(timeout)
		case "on_error":
			if !d.AllArgs(&h.OnError) {
				return d.ArgErr()
			}
		default:
			return d.Errf("unrecognized option: %s", option)
		}
		if err := h.check(d, option); err != nil {
			return err
		}
	}
	return nil
}

// check reports on the line that is being read what is wrong with the settings.
func (h *Handler) check(d *caddyfile.Dispenser, option string) error {
	for _, p := range h.Check(nil) {
		return d.Errf("%s: %v", option, p.Err)
	}
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
