package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
)

// BackendNamespace is where modules for shared counters are registered.
const BackendNamespace = "isekai.rate_limit.backends"

// memoryBackend is the name of the backend that is no module.
const memoryBackend = "memory"

// BackendModule is a Caddy module in BackendNamespace.
type BackendModule interface {
	caddy.Module

	// Key identifies the server and all settings, with secrets as no more than a
	// hash. Modules of one kind with equal keys share what Open returns, and a
	// reload keeps it.
	Key() string

	// Open returns the server's counters without waiting for the server. The logger
	// is to be asked for whenever there is something to log, since reloads replace
	// it.
	Open(log func() *zap.Logger) (Remote, error)
}

// Remote is counters on a server, and the connections to it.
type Remote interface {
	Backend
	io.Closer
}

// SharedConfig says where counters are kept. The zero value is this process's memory.
type SharedConfig struct {
	// Where the counters are kept: `memory`, which is this process's own, or a
	// server that all replicas share: `store`, the PostgreSQL that has the routes;
	// `postgres`; `redis`, if it is built in. Default: `memory`.
	BackendRaw json.RawMessage `json:"backend,omitempty" caddy:"namespace=isekai.rate_limit.backends inline_key=name"`

	// What to do while the server can't be asked: `local` counts in memory, `allow`
	// admits without counting, `deny` answers 503. Default: `local`.
	OnError OnError `json:"on_error,omitempty"`

	// How long the server may take for a decision, up to 1m. Default: 50ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// Validate checks the ranges that the fields name, and that there is the backend.
func (c *SharedConfig) Validate() error {
	name, err := c.BackendName()
	if err == nil && name != memoryBackend {
		err = checkBackend(name)
	}
	if err != nil {
		return err
	}
	if c.OnError != "" && !c.OnError.Valid() {
		return fmt.Errorf("on_error %q: must be local, allow or deny", c.OnError)
	}
	if t := time.Duration(c.Timeout); t < 0 || t > MaxTimeout {
		return fmt.Errorf("timeout %v: must be between 0 (50ms) and %v", t, MaxTimeout)
	}
	return nil
}

// BackendName returns the name of the backend.
func (c *SharedConfig) BackendName() (string, error) {
	if len(c.BackendRaw) == 0 {
		return memoryBackend, nil
	}
	var module struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(c.BackendRaw, &module); err != nil {
		return "", fmt.Errorf("reading backend: %w", err)
	}
	if module.Name == "" {
		return "", errors.New("backend has no name: it must be memory, store, postgres or redis")
	}
	return module.Name, nil
}

// Provision validates the settings and returns the backend to use with local, which
// is local itself if the counters are kept in memory. The caller must call release
// when it needs the backend no more.
func (c *SharedConfig) Provision(ctx caddy.Context, local *Limiter) (b Backend, release func() error, err error) {
	if err := c.Validate(); err != nil {
		return nil, nil, err
	}
	name, err := c.BackendName()
	if err != nil {
		return nil, nil, err
	}
	if name == memoryBackend {
		return local, func() error { return nil }, nil
	}
	module, err := ctx.LoadModule(c, "BackendRaw")
	if err != nil {
		return nil, nil, fmt.Errorf("loading rate limit backend: %w", err)
	}
	return c.Share(ctx, module.(BackendModule), local)
}

// Share is Provision with a module that the caller has set up.
func (c *SharedConfig) Share(ctx caddy.Context, module BackendModule, local *Limiter) (b Backend, release func() error, err error) {
	sum := sha256.Sum256([]byte(module.Key()))
	kind := module.CaddyModule().ID.Name()
	key := kind + ":" + hex.EncodeToString(sum[:])
	value, _, err := servers.LoadOrNew(key, func() (caddy.Destructor, error) {
		log := func() *zap.Logger { return caddy.Log().Named("isekai.rate_limit").With(zap.String("backend", kind)) }
		remote, err := module.Open(log)
		if err != nil {
			return nil, err
		}
		return &server{kind: kind, remote: remote, guard: NewGuard(remote, 0, log)}, nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("opening rate limit backend %s: %w", kind, err)
	}
	release = func() error {
		if _, err := servers.Delete(key); err != nil {
			return fmt.Errorf("closing rate limit backend %s: %w", kind, err)
		}
		return nil
	}
	if err := registerMetrics(ctx); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return NewShared(value.(*server).guard, local, time.Duration(c.Timeout), c.OnError), release, nil
}

// servers holds the servers in use, across configurations.
var servers = caddy.NewUsagePool()

// server is one of them. All that use it share a circuit breaker.
type server struct {
	kind   string
	remote Remote
	guard  *Guard
}

// Destruct implements caddy.Destructor.
func (s *server) Destruct() error { return s.remote.Close() }

// checkBackend says what to do if there is no module of a name.
func checkBackend(name string) error {
	_, err := caddy.GetModule(BackendNamespace + "." + name)
	switch {
	case err == nil:
		return nil
	case name == "redis":
		return errors.New("rate limit backend redis is not built in: build with the package github.com/isekai-gateway/isekai/ratelimit/redis")
	default:
		return fmt.Errorf("unknown rate limit backend %q: must be memory, store, postgres or redis", name)
	}
}

// UnmarshalOption reads one of the options backend, on_error and timeout, at which d
// stands, and reports whether it was one. Syntax:
//
//	backend  memory|store|<name> ...
//	on_error local|allow|deny
//	timeout  <duration>
func (c *SharedConfig) UnmarshalOption(d *caddyfile.Dispenser) (bool, error) {
	option := d.Val()
	switch option {
	case "backend", "on_error", "timeout":
	default:
		return false, nil
	}
	if !d.NextArg() {
		return true, d.ArgErr()
	}
	value := d.Val()
	if option == "backend" {
		return true, c.unmarshalBackend(d, value)
	}
	if d.NextArg() {
		return true, d.ArgErr()
	}
	if option == "on_error" {
		if c.OnError = OnError(value); !c.OnError.Valid() {
			return true, d.Errf("on_error %q: must be local, allow or deny", value)
		}
		return true, nil
	}
	timeout, err := caddy.ParseDuration(value)
	if err != nil || timeout <= 0 || timeout > MaxTimeout {
		return true, d.Errf("timeout %q: must be a duration of up to %v, such as 50ms", value, MaxTimeout)
	}
	c.Timeout = caddy.Duration(timeout)
	return true, nil
}

func (c *SharedConfig) unmarshalBackend(d *caddyfile.Dispenser, name string) error {
	if len(c.BackendRaw) > 0 {
		return d.Err("backend is given twice")
	}
	if name == memoryBackend {
		if d.NextArg() {
			return d.ArgErr()
		}
		c.BackendRaw = caddyconfig.JSONModuleObject(struct{}{}, "name", memoryBackend, nil)
		return nil
	}
	if err := checkBackend(name); err != nil {
		return d.Err(err.Error())
	}
	module, err := caddyfile.UnmarshalModule(d, BackendNamespace+"."+name)
	if err != nil {
		return err
	}
	c.BackendRaw = caddyconfig.JSONModuleObject(module, "name", name, nil)
	return nil
}
