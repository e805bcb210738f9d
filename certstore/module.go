package certstore

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(new(Module)) }

// Module keeps what Caddy stores, above all certificates, their private keys, OCSP
// staples and the accounts at certificate authorities, in PostgreSQL, where all
// replicas of a gateway share it. Locks make sure that one of them at a time obtains
// a certificate, and the others use it. The tables are made if they are missing.
//
// A database that is down does not keep a configuration from being loaded by this
// module: certificates in memory go on being served, and none is ordered meanwhile
// for want of a look at those that exist.
type Module struct {
	// The database: "postgres://user:password@host/name". Placeholders are resolved
	// when the configuration is loaded and never appear in Caddy's /config. It must
	// not be a read replica, nor a pooler that sends reads to one. Default:
	// "{env.ISEKAI_DATABASE_URL}".
	DSN string `json:"dsn,omitempty"`

	// Keys to encrypt values with in the database and its backups, each of them 32
	// random bytes as base64, such as "{env.ISEKAI_CERTIFICATES_KEY}"; make one by
	// "openssl rand -base64 32". The first one encrypts, all of them decrypt, so that
	// a new one can be put before the old. Values that are there in the clear can be
	// read until they are replaced. Default: values, private keys among them, are in
	// the database in the clear.
	EncryptionKeys []string `json:"encryption_keys,omitempty"`

	// A folder of this machine for copies of certificates and keys that were loaded or
	// obtained here, encrypted if they are in the database. They are read only while
	// the database does not answer, so that what was served before can be, also after
	// a restart. They are in its subfolder isekai-certificates; those that were not
	// used for 90 days are removed. Default: no copies.
	LocalCopies string `json:"local_copies,omitempty"`

	// The most connections, which are kept for certificates alone; while locks are
	// held there is one more. Default: 4.
	MaxConns int `json:"max_conns,omitempty"`

	// How long a statement may take, with the wait for a connection. Default: 10s.
	QueryTimeout caddy.Duration `json:"query_timeout,omitempty"`

	// How long a lock outlives a replica that crashes while it obtains a certificate,
	// from 3s to 10m. Default: 15s.
	LockLease caddy.Duration `json:"lock_lease,omitempty"`

	opts    Options
	key     string
	storage *Storage
}

// defaultDSN is that of the app in the example configuration.
const defaultDSN = "{env.ISEKAI_DATABASE_URL}"

// Bounds of lock_lease.
const (
	minLockLease = 3 * time.Second
	maxLockLease = 10 * time.Minute
)

// storages holds the storages in use, across configurations: locks and connections
// survive a reload.
var storages = caddy.NewUsagePool()

// pooled is a storage in the pool.
type pooled struct{ *Storage }

// Destruct implements caddy.Destructor.
func (p pooled) Destruct() error { return p.Close() }

// CaddyModule returns the Caddy module information.
func (*Module) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.isekai", New: func() caddy.Module { return new(Module) }}
}

// Provision takes part in the database's storage, without waiting for the server.
func (m *Module) Provision(caddy.Context) error {
	if err := m.validate(); err != nil {
		return err
	}
	replacer := caddy.NewReplacer()
	dsn := m.DSN
	if dsn == "" {
		dsn = defaultDSN
	}
	m.opts = Options{
		DSN:          replacer.ReplaceKnown(dsn, ""),
		MaxConns:     m.MaxConns,
		QueryTimeout: time.Duration(m.QueryTimeout),
		LockLease:    time.Duration(m.LockLease),
		Copies:       replacer.ReplaceKnown(m.LocalCopies, ""),
		Log:          func() *zap.Logger { return caddy.Log().Named("isekai.certificates") },
	}
	for i, text := range m.EncryptionKeys {
		key, err := decodeKey(replacer.ReplaceKnown(text, ""))
		if err != nil {
			return fmt.Errorf("encryption key %d %w", i+1, err)
		}
		m.opts.Keys = append(m.opts.Keys, key)
	}
	encoded, err := json.Marshal([]any{m.opts.DSN, m.opts.MaxConns, m.opts.QueryTimeout, m.opts.LockLease, m.opts.Keys, m.opts.Copies})
	if err != nil {
		return fmt.Errorf("encoding settings: %w", err)
	}
	sum := sha256.Sum256(encoded)
	key := hex.EncodeToString(sum[:])
	value, _, err := storages.LoadOrNew(key, func() (caddy.Destructor, error) {
		s, err := Open(m.opts)
		return pooled{s}, err
	})
	if err != nil {
		return err
	}
	m.storage, m.key = value.(pooled).Storage, key
	m.opts = Options{}
	return nil
}

// decodeKey reads a key. Its errors don't repeat it.
func decodeKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("is empty once its placeholders are resolved")
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("is no base64 text")
	}
	if len(key) != KeySize {
		return nil, fmt.Errorf("has %d bytes, and needs %d", len(key), KeySize)
	}
	return key, nil
}

func (m *Module) validate() error {
	if m.MaxConns < 0 {
		return errors.New("max_conns must not be negative")
	}
	if m.QueryTimeout < 0 {
		return errors.New("query_timeout must not be negative")
	}
	if d := time.Duration(m.LockLease); d != 0 && (d < minLockLease || d > maxLockLease) {
		return fmt.Errorf("lock_lease must be from %v to %v", minLockLease, maxLockLease)
	}
	return nil
}

// Validate checks the ranges that the fields name.
func (m *Module) Validate() error { return m.validate() }

// Cleanup leaves the storage. The last one to do so releases its locks and closes it.
func (m *Module) Cleanup() error {
	if m.storage == nil {
		return nil
	}
	m.storage = nil
	if _, err := storages.Delete(m.key); err != nil {
		return fmt.Errorf("closing the certificate storage: %w", err)
	}
	return nil
}

// CertMagicStorage implements caddy.StorageConverter.
func (m *Module) CertMagicStorage() (certmagic.Storage, error) { return m.storage, nil }

// UnmarshalCaddyfile sets up the module from Caddyfile tokens. Syntax:
//
//	storage isekai [<dsn>] {
//		store          <dsn>
//		encryption_key <keys...>
//		local_copies   <folder>
//		max_conns      <number>
//		query_timeout  <duration>
//		lock_lease     <duration>
//	}
func (m *Module) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if d.NextArg() {
		m.DSN = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return d.Errf("option %s stands twice", option)
		}
		seen[option] = true
		if err := m.unmarshalOption(d, option); err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) unmarshalOption(d *caddyfile.Dispenser, option string) error {
	args := d.RemainingArgs()
	switch option {
	case "encryption_key":
		if len(args) == 0 {
			return d.ArgErr()
		}
		m.EncryptionKeys = args
		return nil
	case "store", "local_copies", "max_conns", "query_timeout", "lock_lease":
		if len(args) != 1 {
			return d.ArgErr()
		}
	default:
		return d.Errf("unrecognized option: %s", option)
	}
	switch option {
	case "store":
		if m.DSN != "" {
			return d.Err("the database is named twice")
		}
		m.DSN = args[0]
		return nil
	case "local_copies":
		m.LocalCopies = args[0]
		return nil
	case "max_conns":
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 {
			return d.Errf("max_conns must be a whole number above 0, not %q", args[0])
		}
		m.MaxConns = n
		return nil
	}
	length, err := caddy.ParseDuration(args[0])
	if err != nil || length <= 0 {
		return d.Errf("%s must be a duration such as 10s, not %q", option, args[0])
	}
	if option == "query_timeout" {
		m.QueryTimeout = caddy.Duration(length)
		return nil
	}
	m.LockLease = caddy.Duration(length)
	if err := m.validate(); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner      = (*Module)(nil)
	_ caddy.Validator        = (*Module)(nil)
	_ caddy.CleanerUpper     = (*Module)(nil)
	_ caddy.StorageConverter = (*Module)(nil)
	_ caddyfile.Unmarshaler  = (*Module)(nil)
)
