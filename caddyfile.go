package isekai

import (
	"math"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("isekai", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("isekai", parseDirective)
	// "respond" comes early in Caddy's order: an isekai placed after it would
	// never see a request on a site that also has a catch-all respond.
	httpcaddyfile.RegisterDirectiveOrder("isekai", httpcaddyfile.Before, "respond")
}

// parseGlobalOption sets up the app from the global option isekai.
func parseGlobalOption(d *caddyfile.Dispenser, earlier any) (any, error) {
	if earlier != nil {
		d.Next()
		return nil, d.Err("the global option isekai can stand only once")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "isekai", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens. Syntax:
//
//	isekai {
//		store <dsn> {
//			listen_dsn      <dsn>
//			max_conns       <number>
//			connect_timeout <duration>
//			query_timeout   <duration>
//			poll_interval   <duration>
//		}
//		seed     <file>
//		snapshot <file>|off
//		snapshot_key <key>
//		cache {
//			ttl              <duration>
//			cleanup_interval <duration>
//			max_size         <number>
//		}
//		request_log off | {
//			sample         <part>
//			retention      <duration>
//			queue          <number>
//			batch          <number>
//			flush_interval <duration>
//		}
//		plugins <handlers...>
//		rate_limit {
//			backend  memory|store|postgres <dsn> {...}|redis <addresses...> {...}
//			on_error local|allow|deny
//			timeout  <duration>
//			headers  ietf|legacy|none
//		}
//		targets {
//			allow <ranges...>
//			deny  <ranges...>
//		}
//		auth {
//			... see auth.Config
//		}
//		history_retention <duration>|0
//		health_interval <duration>
//		stats_interval  <duration>
//		drain_timeout   <duration>
//		max_concurrent  <number>
//		body_max        <size>
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return block(d, map[string]func() error{
		"store": func() error {
			if !d.NextArg() {
				return d.ArgErr()
			}
			a.Store.DSN = d.Val()
			if d.NextArg() {
				return d.ArgErr()
			}
			return block(d, map[string]func() error{
				"listen_dsn":      text(d, &a.Store.ListenDSN),
				"max_conns":       number(d, &a.Store.MaxConns),
				"connect_timeout": duration(d, &a.Store.ConnectTimeout),
				"query_timeout":   duration(d, &a.Store.QueryTimeout),
				"poll_interval":   duration(d, &a.Store.PollInterval),
			})
		},
		"seed":         text(d, &a.Seed),
		"snapshot":     text(d, &a.Snapshot),
		"snapshot_key": text(d, &a.SnapshotKey),
		"cache": func() error {
			if d.NextArg() {
				return d.ArgErr()
			}
			return block(d, map[string]func() error{
				"ttl":              duration(d, &a.Cache.TTL),
				"cleanup_interval": duration(d, &a.Cache.CleanupInterval),
				"max_size":         number(d, &a.Cache.MaxSize),
			})
		},
		"request_log": func() error { return a.RequestLog.unmarshalCaddyfile(d) },
		"plugins":     list(d, &a.Plugins),
		"rate_limit":  func() error { return a.RateLimit.unmarshalCaddyfile(d) },
		"targets": func() error {
			if d.NextArg() {
				return d.ArgErr()
			}
			return block(d, map[string]func() error{
				"allow": list(d, &a.Targets.Allow),
				"deny":  list(d, &a.Targets.Deny),
			})
		},
		"auth": func() error { return a.Auth.UnmarshalCaddyfile(d) },
		"history_retention": func() error {
			value, err := one(d)
			if err != nil {
				return err
			}
			keep, err := caddy.ParseDuration(value)
			if value == "0" {
				keep, err = 0, nil
			}
			if err != nil || keep < 0 {
				return d.Errf("history_retention must be a duration such as 90d, or 0 to keep all, not %q", value)
			}
			a.HistoryRetention = (*caddy.Duration)(&keep)
			return nil
		},
		"health_interval": duration(d, &a.HealthInterval),
		"stats_interval":  duration(d, &a.StatsInterval),
		"drain_timeout":   duration(d, &a.DrainTimeout),
		"max_series":      number(d, &a.MaxSeries),
		"max_concurrent":  number(d, &a.MaxConcurrent),
		"body_max":        size(d, &a.BodyMax),
		"fast_lane": func() error {
			value, err := one(d)
			if err != nil {
				return err
			}
			if value != "on" && value != "off" {
				return d.Errf("fast_lane must be on or off, not %q", value)
			}
			on := value == "on"
			a.FastLane = &on
			return nil
		},
		"gc_headroom": func() error {
			a.GCHeadroom = new(int64)
			if d.CountRemainingArgs() == 1 && d.NextArg() {
				if d.Val() == "off" {
					return nil
				}
				d.Prev()
			}
			return size(d, a.GCHeadroom)()
		},
	})
}

func (c *RequestLogConfig) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		if d.Val() != "off" || d.NextArg() {
			return d.Err("request_log takes off, or a block")
		}
		c.Off = true
		return nil
	}
	return block(d, map[string]func() error{
		"sample": func() error {
			value, err := one(d)
			if err != nil {
				return err
			}
			sample, err := strconv.ParseFloat(value, 64)
			if err != nil || !(sample > 0 && sample <= 1) {
				return d.Errf("sample must be a number above 0 and at most 1, not %q", value)
			}
			c.Sample = &sample
			return nil
		},
		"retention":      duration(d, &c.Retention),
		"queue":          number(d, &c.Queue),
		"batch":          number(d, &c.Batch),
		"flush_interval": duration(d, &c.FlushInterval),
		"redact_headers": list(d, &c.RedactHeaders),
		"redact_query":   list(d, &c.RedactQuery),
	})
}

// parseDirective sets up the handler from the directive isekai.
func parseDirective(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	isekai [<matcher>] {
//		pass_thru
//		health_path <path>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return block(d, map[string]func() error{
		"pass_thru": func() error {
			h.PassThru = true
			if d.NextArg() {
				return d.ArgErr()
			}
			return nil
		},
		"health_path": text(d, &h.HealthPath),
	})
}

// block reads the options of a block, each at most once.
func block(d *caddyfile.Dispenser, options map[string]func() error) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := options[name]
		if !ok {
			return d.Errf("unrecognized option: %s", name)
		}
		if seen[name] {
			return d.Errf("option %s stands twice", name)
		}
		seen[name] = true
		if err := parse(); err != nil {
			return err
		}
	}
	return nil
}

// one reads the only argument of an option.
func one(d *caddyfile.Dispenser) (string, error) {
	var value string
	if !d.AllArgs(&value) {
		return "", d.ArgErr()
	}
	return value, nil
}

func text(d *caddyfile.Dispenser, to *string) func() error {
	return func() (err error) {
		*to, err = one(d)
		return err
	}
}

func number(d *caddyfile.Dispenser, to *int) func() error {
	return func() error {
		name := d.Val()
		value, err := one(d)
		if err != nil {
			return err
		}
		if *to, err = strconv.Atoi(value); err != nil || *to < 0 {
			return d.Errf("%s must be a whole number, not %q", name, value)
		}
		return nil
	}
}

func duration(d *caddyfile.Dispenser, to *caddy.Duration) func() error {
	return func() error {
		name := d.Val()
		value, err := one(d)
		if err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(value)
		if err != nil || parsed <= 0 {
			return d.Errf("%s must be a duration such as 30s, not %q", name, value)
		}
		*to = caddy.Duration(parsed)
		return nil
	}
}

func size(d *caddyfile.Dispenser, to *int64) func() error {
	return func() error {
		name := d.Val()
		value, err := one(d)
		if err != nil {
			return err
		}
		parsed, err := humanize.ParseBytes(value)
		if err != nil || parsed == 0 || parsed > math.MaxInt64 {
			return d.Errf("%s must be a size such as 10MB or 64KiB, not %q", name, value)
		}
		*to = int64(parsed)
		return nil
	}
}

func list(d *caddyfile.Dispenser, to *[]string) func() error {
	return func() error {
		*to = d.RemainingArgs()
		if len(*to) == 0 {
			return d.ArgErr()
		}
		return nil
	}
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
