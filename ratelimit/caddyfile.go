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
//		rule    <name> <limit> <window> [<key>] {
//			key  <key>
//			cost <units>
//		}
//		key     <key>
//		cost    <units>
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
			if err := parseKey(d, &h.Key); err != nil {
				return err
			}
		case "cost":
			if err := parseCost(d, &h.Cost); err != nil {
				return err
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
			rule, err := parseRule(d)
			if err != nil {
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

func parseRule(d *caddyfile.Dispenser) (RuleConfig, error) {
	args := d.RemainingArgs()
	if len(args) != 3 && len(args) != 4 {
		return RuleConfig{}, d.ArgErr()
	}
	rule := RuleConfig{Name: args[0]}
	if len(args) == 4 {
		rule.Key = args[3]
	}
	var err error
	if rule.Limit, rule.Window, err = parseLimit(d, args[1], args[2]); err != nil {
		return RuleConfig{}, err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "key":
			err = parseKey(d, &rule.Key)
		case "cost":
			err = parseCost(d, &rule.Cost)
		default:
			err = d.Errf("unrecognized option of a rule: %s", option)
		}
		if err != nil {
			return RuleConfig{}, err
		}
	}
	return rule, nil
}

func parseKey(d *caddyfile.Dispenser, to *string) error {
	if *to != "" {
		return d.Err("key is given twice")
	}
	if !d.AllArgs(to) {
		return d.ArgErr()
	}
	return nil
}

func parseCost(d *caddyfile.Dispenser, to *int) error {
	if *to != 0 {
		return d.Err("cost is given twice")
	}
	var cost string
	if !d.AllArgs(&cost) {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(cost)
	if err != nil || n < 1 || n > MaxCost {
		return d.Errf("cost %q is not a number between 1 and %d", cost, MaxCost)
	}
	*to = n
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
