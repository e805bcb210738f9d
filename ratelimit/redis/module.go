package redis

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/ratelimit"
)

func init() { caddy.RegisterModule(new(Module)) }

// Module keeps the counters of rate limits in Redis 6.2 or later, or in Valkey.
//
// All texts may have placeholders such as {env.REDIS_PASSWORD}, which are resolved
// when the configuration is loaded and never appear in Caddy's /config.
type Module struct {
	// The servers, as host:port: a single one, some of a cluster's, or the
	// sentinels. Required.
	Addresses []string `json:"addresses,omitempty"`

	// The user's name. Default: the server's default user.
	Username string `json:"username,omitempty"`

	// The password. Default: none.
	Password string `json:"password,omitempty"`

	// The number of the database; a cluster has only 0. Default: 0.
	DB int `json:"db,omitempty"`

	// Whether to use TLS. Default: false, but true with any of the fields below.
	TLS bool `json:"tls,omitempty"`

	// A PEM file of the authorities that may have signed the server's certificate.
	// Default: the system's.
	TLSCA string `json:"tls_ca,omitempty"`

	// The name in the server's certificate. Default: that of the address.
	TLSServerName string `json:"tls_server_name,omitempty"`

	// PEM files of a certificate to show to the server, and its key.
	TLSCert string `json:"tls_cert,omitempty"`
	TLSKey  string `json:"tls_key,omitempty"`

	// The name of the master that the sentinels at the addresses watch. Default:
	// the addresses are no sentinels.
	SentinelMaster string `json:"sentinel_master,omitempty"`

	// The user's name and password for the sentinels. Default: none.
	SentinelUsername string `json:"sentinel_username,omitempty"`
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// What the names of the counters begin with. Default: `isekai:limit:`.
	Prefix string `json:"prefix,omitempty"`

	resolved resolved
	options  Options
}

// resolved is the settings without placeholders.
type resolved struct {
	Addresses                          []string
	Username, Password                 string
	DB                                 int
	TLS                                bool
	CA, ServerName, Cert, Key          string
	Master, SentinelName, SentinelPass string
	Prefix                             string
}

// CaddyModule returns the Caddy module information.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: ratelimit.BackendNamespace + ".redis", New: func() caddy.Module { return new(Module) }}
}

// Provision resolves placeholders and reads the files.
func (m *Module) Provision(caddy.Context) error {
	replacer := caddy.NewReplacer()
	text := func(s string) string { return replacer.ReplaceKnown(s, "") }
	m.resolved = resolved{
		Username: text(m.Username), Password: text(m.Password), DB: m.DB, TLS: m.TLS,
		CA: text(m.TLSCA), ServerName: text(m.TLSServerName), Cert: text(m.TLSCert), Key: text(m.TLSKey),
		Master: text(m.SentinelMaster), SentinelName: text(m.SentinelUsername), SentinelPass: text(m.SentinelPassword),
		Prefix: text(m.Prefix),
	}
	r := &m.resolved
	for _, address := range m.Addresses {
		r.Addresses = append(r.Addresses, text(address))
	}
	m.options = Options{
		Addresses: r.Addresses, Username: r.Username, Password: r.Password, DB: r.DB, Prefix: r.Prefix,
		SentinelMaster: r.Master, SentinelUsername: r.SentinelName, SentinelPassword: r.SentinelPass,
	}
	var err error
	m.options.TLS, err = r.tlsConfig()
	return err
}

func (r *resolved) tlsConfig() (*tls.Config, error) {
	if !r.TLS && r.CA == "" && r.ServerName == "" && r.Cert == "" && r.Key == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: r.ServerName}
	if r.CA != "" {
		pem, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, fmt.Errorf("reading tls_ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca %s: there is no certificate in it", r.CA)
		}
	}
	if r.Cert != "" || r.Key != "" {
		cert, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			return nil, fmt.Errorf("reading tls_cert and tls_key: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// Validate checks the ranges that the fields name.
func (m *Module) Validate() error {
	if len(m.resolved.Addresses) == 0 {
		return errors.New("addresses is missing")
	}
	for _, address := range m.resolved.Addresses {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return fmt.Errorf("address %q: must be host:port", address)
		}
	}
	if m.DB < 0 {
		return errors.New("db must not be negative")
	}
	if m.DB != 0 && len(m.resolved.Addresses) > 1 && m.resolved.Master == "" {
		return errors.New("db must be 0: several addresses without sentinel_master are those of a cluster")
	}
	return nil
}

// Key implements ratelimit.BackendModule.
func (m *Module) Key() string {
	key, _ := json.Marshal(m.resolved) //nolint:gosec // of such values it can't fail, and the key never leaves the pool
	return string(key)
}

// Open implements ratelimit.BackendModule.
func (m *Module) Open(log func() *zap.Logger) (ratelimit.Remote, error) {
	opts := m.options
	opts.Log = log
	return Open(opts), nil
}

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	redis <addresses...> {
//		username          <name>
//		password          <password>
//		db                <number>
//		prefix            <text>
//		tls
//		tls_ca            <file>
//		tls_server_name   <name>
//		tls_cert          <file>
//		tls_key           <file>
//		sentinel_master   <name>
//		sentinel_username <name>
//		sentinel_password <password>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if m.Addresses = d.RemainingArgs(); len(m.Addresses) == 0 {
		return d.ArgErr()
	}
	texts := map[string]*string{
		"username": &m.Username, "password": &m.Password, "prefix": &m.Prefix,
		"tls_ca": &m.TLSCA, "tls_server_name": &m.TLSServerName, "tls_cert": &m.TLSCert, "tls_key": &m.TLSKey,
		"sentinel_master": &m.SentinelMaster, "sentinel_username": &m.SentinelUsername, "sentinel_password": &m.SentinelPassword,
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return d.Errf("option %s stands twice", option)
		}
		seen[option] = true
		args := d.RemainingArgs()
		switch to := texts[option]; {
		case option == "tls":
			if len(args) > 0 {
				return d.ArgErr()
			}
			m.TLS = true
		case option == "db":
			if len(args) != 1 {
				return d.ArgErr()
			}
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 0 {
				return d.Errf("db must be a whole number, not %q", args[0])
			}
			m.DB = n
		case to == nil:
			return d.Errf("unrecognized option: %s", option)
		case len(args) != 1:
			return d.ArgErr()
		default:
			*to = args[0]
		}
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
