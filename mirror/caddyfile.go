package mirror

import (
	"errors"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/isekai-gateway/isekai/store"
)

const directive = "isekai_mirror"

func init() {
	httpcaddyfile.RegisterHandlerDirective(directive, parseCaddyfile)
	// After redirects, rewrites, authentication and limits: what they refuse is not
	// copied. Before the blocks in which requests are answered.
	httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "invoke")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	isekai_mirror [<matcher>] <url> {
//		sample        <number>
//		body_max      <size>
//		timeout       <duration>
//		preserve_host
//		queue         <number>
//		concurrency   <number>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if !d.AllArgs(&h.TargetURL) {
		return d.ArgErr()
	}
	if err := h.check(d, "target_url"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		option := d.Val()
		if seen[option] {
			return d.Errf("option %s stands twice", option)
		}
		seen[option] = true
		if err := h.parseOption(d, option); err != nil {
			return err
		}
		if err := h.check(d, option); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) parseOption(d *caddyfile.Dispenser, option string) error {
	args := d.RemainingArgs()
	if option == "preserve_host" {
		h.PreserveHost = true
		if len(args) > 0 {
			return d.ArgErr()
		}
		return nil
	}
	parse, ok := map[string]func(string) error{
		"sample":      h.parseSample,
		"body_max":    h.parseBodyMax,
		"timeout":     h.parseTimeout,
		"queue":       func(s string) error { return parseCount(s, &h.Queue) },
		"concurrency": func(s string) error { return parseCount(s, &h.Concurrency) },
	}[option]
	switch {
	case !ok:
		return d.Errf("unrecognized option: %s", option)
	case len(args) != 1:
		return d.ArgErr()
	}
	if err := parse(args[0]); err != nil {
		return d.Errf("%s %q: %w", option, args[0], err)
	}
	return nil
}

func (h *Handler) parseSample(s string) error {
	sample, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return errors.New("must be a number such as 0.1")
	}
	h.Sample = &sample
	return nil
}

func (h *Handler) parseBodyMax(s string) error {
	size, err := humanize.ParseBytes(s)
	if err != nil || size == 0 || size > MaxBodyMax {
		return errors.New("must be a size such as 64KiB, at most 1MiB")
	}
	h.BodyMax = int(size)
	return nil
}

func (h *Handler) parseTimeout(s string) error {
	timeout, err := caddy.ParseDuration(s)
	if err != nil || timeout <= 0 {
		return errors.New("must be a duration such as 10s")
	}
	h.Timeout = caddy.Duration(timeout)
	return nil
}

func parseCount(s string, to *int) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New("must be a whole number above 0")
	}
	*to = n
	return nil
}

// check reports what is wrong with an option, at its line.
func (h *Handler) check(d *caddyfile.Dispenser, option string) error {
	var errs store.FieldErrors
	errors.As(h.Validate(), &errs)
	for _, err := range errs {
		if err.Field == option {
			return d.WrapErr(err)
		}
	}
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Handler)(nil)
