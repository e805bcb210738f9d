package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

// DefaultPlugins are the handler modules that routes may use unless the
// configuration says otherwise. None of them can read a file, the environment
// or the network.
var DefaultPlugins = []string{"headers", "encode", "rewrite", "request_body"}

// CheckAllowList returns an error if a name is not a handler module of this
// binary.
func CheckAllowList(names []string) error {
	for _, name := range names {
		if _, err := caddy.GetModule("http.handlers." + name); err != nil {
			return fmt.Errorf("plugin %q is not an http.handlers module of this binary", name)
		}
	}
	return nil
}

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
// be cleaned up apart from the configuration. It must run within
// proxy.Serialize. Errors are store.FieldErrors.
func newChain(ctx caddy.Context, plugins []json.RawMessage) (*chain, error) {
	child, cancel := caddy.NewContext(ctx)
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

// checkPlugins holds the plugins against the allow-list, also those nested in
// others at any depth, and refuses placeholders that reach outside the request.
func checkPlugins(plugins []json.RawMessage, allowed []string) error {
	var errs store.FieldErrors
	for i, raw := range plugins {
		field := fmt.Sprintf("plugins[%d]", i)
		var document any
		if err := json.Unmarshal(raw, &document); err != nil {
			errs.Add(field, "is not valid JSON")
			continue
		}
		object, ok := document.(map[string]any)
		if !ok {
			errs.Add(field, `must be an object with the key "handler"`)
			continue
		}
		if name, ok := object["handler"].(string); !ok || name == "" {
			errs.Add(field+".handler", "is required: the name of a Caddy handler module")
			continue
		}
		checkPlugin(&errs, field, object, allowed)
	}
	return errs.Err()
}

func checkPlugin(errs *store.FieldErrors, field string, value any, allowed []string) {
	switch v := value.(type) {
	case map[string]any:
		if name, ok := v["handler"].(string); ok && !slices.Contains(allowed, name) {
			errs.Add(field+".handler", fmt.Sprintf("plugin %q is not allowed here; allowed are: %s", name, strings.Join(allowed, ", ")))
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			checkText(errs, field+"."+key, key)
			checkPlugin(errs, field+"."+key, v[key], allowed)
		}
	case []any:
		for i, item := range v {
			checkPlugin(errs, fmt.Sprintf("%s[%d]", field, i), item, allowed)
		}
	case string:
		checkText(errs, field, v)
	}
}

// outside are the placeholder namespaces through which a route could read the
// gateway's environment, files or host.
var outside = []string{"{env.", "{file.", "{system.", "{$"}

func checkText(errs *store.FieldErrors, field, text string) {
	for _, prefix := range outside {
		if strings.Contains(text, prefix) {
			errs.Add(field, fmt.Sprintf("must not use placeholders that begin with %q", prefix))
		}
	}
}

// dryRun provisions the plugins and cleans them up again.
func dryRun(ctx caddy.Context, plugins []json.RawMessage) error {
	if len(plugins) == 0 {
		return nil
	}
	return proxy.Serialize(func() error {
		c, err := newChain(ctx, plugins)
		if err != nil {
			return err
		}
		return c.Destruct()
	})
}
