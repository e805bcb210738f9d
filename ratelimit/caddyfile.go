package ratelimit

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const directive = "isekai_rate_limit"

func init() {
	httpcaddyfile.RegisterHandlerDirective(directive, parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "basic_auth")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if handler.Name == "" {
		unnamed, _ := h.State[directive].(int)
		unnamed++
		h.State[directive] = unnamed
		handler.Name = "limit-" + strconv.Itoa(unnamed)
	}
	return handler, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	isekai_rate_limit [<matcher>] [<limit> <window> [<key>]] {
//		name    <zone>
//		rule    <name> <limit> <window>
//		key     <key>
//		headers ietf|legacy|none
//		dry_run
//		backend  memory|store|postgres <dsn> {...}|redis <addresses...> {...}
//		on_error local|allow|deny
//		timeout  <duration>
//	}
//
// Every request must be within the limit and all rules; at least one of them is
// required, and rule may be repeated. A zone without a name is called limit-1,
// limit-2 and so on in the order of the Caddyfile; name it if its counters are
// to survive a change of that order.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	switch args := d.RemainingArgs(); len(args) {
	case 0:
	case 3:
		h.Key = args[2]
		fallthrough
	case 2:
		var err error
		if h.Limit, h.Window, err = parseLimit(d, args[0], args[1]); err != nil {
			return err
		}
	default:
		return d.ArgErr()
	}

	for d.NextBlock(0) {
		switch option := d.Val(); option {
		case "name":
			if !d.AllArgs(&h.Name) {
				return d.ArgErr()
			}
		case "key":
			if h.Key != "" {
				return d.Err("key is given twice")
			}
			if !d.AllArgs(&h.Key) {
				return d.ArgErr()
			}
		case "headers":
			var style string
			if !d.AllArgs(&style) {
				return d.ArgErr()
			}
			h.Headers = HeaderStyle(style)
			if !h.Headers.Valid() {
				return d.Errf("headers %q: must be ietf, legacy or none", style)
			}
		case "dry_run":
			if d.NextArg() {
				return d.ArgErr()
			}
			h.DryRun = true
		case "rule":
			var name, limit, window string
			if !d.AllArgs(&name, &limit, &window) {
				return d.ArgErr()
			}
			rule := RuleConfig{Name: name}
			var err error
			if rule.Limit, rule.Window, err = parseLimit(d, limit, window); err != nil {
				return err
			}
			h.Rules = append(h.Rules, rule)
		default:
			known, err := h.UnmarshalOption(d)
			if err != nil {
				return err
			}
			if !known {
				return d.Errf("unrecognized option: %s", option)
			}
		}
	}
	if h.Limit == 0 && len(h.Rules) == 0 {
		return d.Err("a limit or a rule is required")
	}
	return nil
}

func parseLimit(d *caddyfile.Dispenser, limit, window string) (int, caddy.Duration, error) {
	n, err := strconv.Atoi(limit)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, 0, d.Errf("limit %q is not a number between 1 and %d", limit, MaxLimit)
	}
	length, err := caddy.ParseDuration(window)
	if err != nil {
		return 0, 0, d.Errf("parsing window %q: %v", window, err)
	}
	return n, caddy.Duration(length), nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
