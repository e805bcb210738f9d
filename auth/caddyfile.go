package auth

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UnmarshalCaddyfile sets up the configuration from the block that follows, whose
// name has been read. Syntax:
//
//	auth {
//		realm <text>
//		api_key {
//			header <names...>
//			query  <names...>
//		}
//		jwt <name> {
//			issuer           <text>
//			audience         <texts...>
//			jwks_url         <url>
//			jwks_file        <file>
//			key              <pem>
//			key_file         <file>
//			secret           <placeholder>
//			refresh_interval <duration>
//			insecure
//			algorithms       <names...>
//			leeway           <duration>
//			require_claim    <name> [<value>]
//			id_claim         <name>
//			groups_claim     <name>
//			claim_header     <field> <claim>
//		}
//		basic {
//			<user> <bcrypt hash> [<groups...>]
//		}
//		mtls
//		headers {
//			<field> <text>
//		}
//	}
//
// jwt may be repeated with other names, and require_claim and claim_header with other
// claims and fields.
func (c *Config) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		known, err := c.option(d)
		if err != nil {
			return err
		}
		if !known {
			return d.Errf("unrecognized option: %s", d.Val())
		}
	}
	return c.check(d)
}

// check reports what is wrong with the settings that were read.
func (c *Config) check(d *caddyfile.Dispenser) error {
	if err := c.Validate(); err != nil {
		return d.Errf("auth: %v", err)
	}
	return nil
}

// option reads one option, if it is one of a Config.
func (c *Config) option(d *caddyfile.Dispenser) (known bool, err error) {
	switch option := d.Val(); option {
	case "realm":
		return true, once(d, &c.Realm)
	case "api_key":
		if c.APIKey != nil {
			return true, twice(d)
		}
		c.APIKey = new(APIKeyConfig)
		return true, c.APIKey.unmarshal(d)
	case "jwt":
		return true, c.unmarshalJWT(d)
	case "basic":
		if c.Basic != nil {
			return true, twice(d)
		}
		return true, c.unmarshalBasic(d)
	case "mtls":
		if c.MTLS {
			return true, twice(d)
		}
		c.MTLS = true
		return true, noArgs(d)
	case "headers":
		if c.Headers != nil {
			return true, twice(d)
		}
		c.Headers = make(map[string]string)
		return true, pairs(d, c.Headers)
	}
	return false, nil
}

func (c *APIKeyConfig) unmarshal(d *caddyfile.Dispenser) error {
	return readBlock(d, func(option string) error {
		switch option {
		case "header":
			return list(d, &c.Headers)
		case "query":
			return list(d, &c.Query)
		}
		return d.Errf("unrecognized option: %s", option)
	})
}

func (c *Config) unmarshalJWT(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	if c.JWT[name] != nil {
		return d.Errf("jwt %s stands twice", name)
	}
	if c.JWT == nil {
		c.JWT = make(map[string]*IssuerConfig)
	}
	issuer := new(IssuerConfig)
	c.JWT[name] = issuer
	if err := readBlock(d, issuer.unmarshal(d)); err != nil {
		return err
	}
	if err := issuer.validate(); err != nil {
		return d.Errf("jwt %s: %v", name, err)
	}
	return nil
}

// unmarshal returns how to read one option of an issuer.
func (c *IssuerConfig) unmarshal(d *caddyfile.Dispenser) func(option string) error {
	texts := map[string]*string{
		"issuer": &c.Issuer, "jwks_url": &c.JWKSURL, "jwks_file": &c.JWKSFile, "key": &c.Key, "key_file": &c.KeyFile,
		"secret": &c.Secret, "id_claim": &c.IDClaim, "groups_claim": &c.GroupsClaim,
	}
	lists := map[string]*[]string{"audience": &c.Audience, "algorithms": &c.Algorithms}
	durations := map[string]*caddy.Duration{"refresh_interval": &c.RefreshInterval, "leeway": &c.Leeway}
	return func(option string) error {
		if to, ok := texts[option]; ok {
			return once(d, to)
		}
		if to, ok := lists[option]; ok {
			return list(d, to)
		}
		if to, ok := durations[option]; ok {
			return duration(d, to)
		}
		switch option {
		case "insecure":
			c.Insecure = true
			return noArgs(d)
		case "require_claim":
			args := d.RemainingArgs()
			if len(args) < 1 || len(args) > 2 {
				return d.ArgErr()
			}
			return put(d, &c.RequiredClaims, args[0], append(args, "")[1])
		case "claim_header":
			var field, claim string
			if !d.AllArgs(&field, &claim) {
				return d.ArgErr()
			}
			return put(d, &c.ClaimHeaders, field, claim)
		}
		return d.Errf("unrecognized option: %s", option)
	}
}

func (c *Config) unmarshalBasic(d *caddyfile.Dispenser) error {
	c.Basic = make(map[string]Account)
	return readBlock(d, func(name string) error {
		if _, ok := c.Basic[name]; ok {
			return d.Errf("account %s stands twice", name)
		}
		args := d.RemainingArgs()
		if len(args) == 0 {
			return d.ArgErr()
		}
		account := Account{Password: args[0]}
		if len(args) > 1 {
			account.Groups = args[1:]
		}
		c.Basic[name] = account
		return nil
	})
}

// readBlock reads the options of the block that comes next.
func readBlock(d *caddyfile.Dispenser, option func(name string) error) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := option(d.Val()); err != nil {
			return err
		}
	}
	return nil
}

func twice(d *caddyfile.Dispenser) error { return d.Errf("option %s stands twice", d.Val()) }

func noArgs(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

func once(d *caddyfile.Dispenser, to *string) error {
	if *to != "" {
		return twice(d)
	}
	if !d.AllArgs(to) {
		return d.ArgErr()
	}
	return nil
}

func list(d *caddyfile.Dispenser, to *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*to = append(*to, args...)
	return nil
}

func duration(d *caddyfile.Dispenser, to *caddy.Duration) error {
	name, text := d.Val(), ""
	if *to != 0 {
		return twice(d)
	}
	if !d.AllArgs(&text) {
		return d.ArgErr()
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return d.Errf("%s must be a duration such as 30s, not %q", name, text)
	}
	*to = caddy.Duration(parsed)
	return nil
}

// pairs reads a block of names and texts.
func pairs(d *caddyfile.Dispenser, to map[string]string) error {
	return readBlock(d, func(name string) error {
		var text string
		if !d.AllArgs(&text) {
			return d.ArgErr()
		}
		return put(d, &to, name, text)
	})
}

func put(d *caddyfile.Dispenser, to *map[string]string, name, text string) error {
	if _, ok := (*to)[name]; ok {
		return d.Errf("%s stands twice", name)
	}
	if *to == nil {
		*to = make(map[string]string)
	}
	(*to)[name] = text
	return nil
}
