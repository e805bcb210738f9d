package pipeline

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// DefaultPlugins are the handler modules that routes may use unless the
// configuration says otherwise. With what may stand in them (innerModules), none
// can read a file, the environment or the host's state, or connect to an address
// that the target policy refuses.
var DefaultPlugins = []string{
	"headers", "encode", "rewrite", "request_body", "subroute", "static_response", "error", "intercept",
	"authentication", "isekai_forward_auth",
}

// innerModules are the modules that may stand in plugins in any case. Not among
// them:
//
//   - expression, whose language puts the names of placeholders together only
//     when it runs, and can call every other matcher;
//   - vars and vars_regexp, which trim braces from the placeholder that they
//     look up, so that "{}env.X}" is one;
//   - file, which tells what files there are;
//   - url_pattern, whose regular expressions are not Go's;
//   - argon2id, which takes 46 MiB of memory for every guess of a stranger.
var innerModules = []string{
	"http.authentication.hashes.bcrypt",
	"http.authentication.providers.http_basic",
	"http.encoders.gzip",
	"http.encoders.zstd",
	"http.matchers.client_ip",
	"http.matchers.header",
	"http.matchers.header_regexp",
	"http.matchers.host",
	"http.matchers.method",
	"http.matchers.not",
	"http.matchers.path",
	"http.matchers.path_regexp",
	"http.matchers.protocol",
	"http.matchers.query",
	"http.matchers.remote_ip",
	"http.matchers.tls",
}

const handlers = "http.handlers"

// allowList is the modules that a route's plugins may name, by their ids.
type allowList struct {
	ids   map[string]bool
	names string // of the handlers, for people
}

// newAllowList reads the names of the option plugins: of handler modules without
// "http.handlers.", and whole ids of any others.
func newAllowList(names []string) allowList {
	a := allowList{ids: make(map[string]bool, len(names)+len(innerModules)), names: strings.Join(names, ", ")}
	for _, id := range innerModules {
		a.ids[id] = true
	}
	for _, name := range names {
		a.ids[moduleID(name)] = true
	}
	return a
}

// moduleID returns the id of the module that a name in the option plugins means.
func moduleID(name string) string {
	if _, err := caddy.GetModule(handlers + "." + name); err != nil && strings.Contains(name, ".") {
		return name
	}
	return handlers + "." + name
}

// CheckAllowList returns an error if a name means no module of this binary.
func CheckAllowList(names []string) error {
	for _, name := range names {
		if _, err := caddy.GetModule(moduleID(name)); err != nil {
			return fmt.Errorf("plugin %q is not an http.handlers module of this binary, nor the whole id of another module", name)
		}
	}
	return nil
}

// refuse returns what to say of a module that is not in the list.
func (a allowList) refuse(namespace, name string) string {
	if namespace == handlers {
		return fmt.Sprintf("plugin %q is not allowed here; allowed are: %s", name, a.names)
	}
	return fmt.Sprintf("module %q is not allowed here unless the configuration's option plugins names it", namespace+"."+name)
}
