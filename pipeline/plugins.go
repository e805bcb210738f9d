package pipeline

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

// chain is a list of provisioned plugins, shared by routes with equal ones.
type chain struct {
	handlers []caddyhttp.MiddlewareHandler
	cancel   func()
}

// Destruct implements caddy.Destructor: it cleans the plugins up.
func (c *chain) Destruct() error {
	c.cancel()
	return nil
}

// pluginHolder is what caddy.Context.LoadModule needs to load one handler.
type pluginHolder struct {
	Raw json.RawMessage `json:"handle" caddy:"namespace=http.handlers inline_key=handler"`
}

// newChain provisions the plugins in a context of their own, so that they can
// be cleaned up apart from the configuration, and under the policy. It must run
// within proxy.Serialize. Errors are store.FieldErrors.
func newChain(ctx caddy.Context, plugins []json.RawMessage, policy *proxy.Policy) (*chain, error) {
	child, cancel := caddy.NewContext(ctx)
	child = proxy.WithPolicy(child, policy)
	c := &chain{cancel: cancel}
	for i, raw := range plugins {
		handler, err := loadPlugin(child, raw)
		if err != nil {
			cancel()
			return nil, store.FieldErrors{{Field: fmt.Sprintf("plugins[%d]", i), Message: err.Error()}}
		}
		c.handlers = append(c.handlers, handler)
	}
	return c, nil
}

func loadPlugin(ctx caddy.Context, raw json.RawMessage) (handler caddyhttp.MiddlewareHandler, err error) {
	// A module's Provision is foreign code that meets input from the API.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("module panicked while it was set up: %v", p)
		}
	}()
	holder := pluginHolder{Raw: slices.Clone(raw)}
	module, err := ctx.LoadModule(&holder, "Raw")
	if err != nil {
		return nil, err
	}
	handler, ok := module.(caddyhttp.MiddlewareHandler)
	if !ok {
		return nil, fmt.Errorf("module %T is no HTTP handler", module)
	}
	return handler, nil
}

// bind makes a handler of the chain with last at its end.
func (c *chain) bind(last caddyhttp.Handler) caddyhttp.Handler {
	next := last
	for _, plugin := range slices.Backward(c.handlers) {
		after := next
		next = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return plugin.ServeHTTP(w, r, after)
		})
	}
	return next
}

// dryRun provisions the plugins and cleans them up again.
func dryRun(ctx caddy.Context, plugins []json.RawMessage, policy *proxy.Policy) error {
	if len(plugins) == 0 {
		return nil
	}
	return proxy.Serialize(func() error {
		c, err := newChain(ctx, plugins, policy)
		if err != nil {
			return err
		}
		return c.Destruct()
	})
}
