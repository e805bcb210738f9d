package forwardauth

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/internal/fields"
	"github.com/isekai-gateway/isekai/proxy"
)

// defaultTimeout bounds a question unless the configuration does.
const defaultTimeout = 5 * time.Second

// Config says whom to ask and what becomes of the answer.
type Config struct {
	// The URL to ask, http or https, with a path and a query if need be. No
	// placeholders, no user name. Required.
	URL string `json:"url,omitempty"`

	// Fields of a positive answer to set on the request. "From>To" gives a field
	// another name. Those that the client has sent under these names are always
	// removed, also if the answer lacks them. Default: none.
	CopyHeaders []string `json:"copy_headers,omitempty"`

	// How long the service may take for its whole answer. Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// What happens to a request if the service can't be reached or gives no
	// answer in time: `deny` answers 502 or 504, `allow` lets the request pass
	// without the fields of copy_headers. An answer that is not positive is always
	// a refusal. Default: `deny`.
	OnError string `json:"on_error,omitempty"`
}

// The values of on_error.
const (
	onErrorDeny  = "deny"
	onErrorAllow = "allow"
)

// endpoint is a parsed URL.
type endpoint struct {
	target *proxy.Target
	url    url.URL // with the address to dial as its host
}

// parseURL reads the URL of a service. Its host is held to what a target_url is
// held to.
func parseURL(raw string) (*endpoint, error) {
	if raw == "" {
		return nil, fmt.Errorf("is required")
	}
	if strings.ContainsAny(raw, "{}") {
		return nil, fmt.Errorf("must not have a placeholder")
	}
	scheme, rest, _ := strings.Cut(raw, "://")
	if scheme = strings.ToLower(scheme); scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("must be an http or https URL such as http://10.0.0.9:9091/verify")
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	target, err := proxy.ParseTarget(scheme+"://"+authority, nil)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("is no valid URL")
	}
	if u.Fragment != "" || strings.HasSuffix(raw, "#") {
		return nil, fmt.Errorf("must not have a fragment")
	}
	u.Scheme, u.Host = target.Scheme, target.Address
	return &endpoint{target, *u}, nil
}

// copied is a field of the answer and its name on the request, both canonical.
type copied struct{ from, to string }

func parseCopied(text string) (copied, error) {
	from, to, renamed := strings.Cut(text, ">")
	if !renamed {
		to = from
	}
	c := copied{canonical(from), canonical(to)}
	if !httpguts.ValidHeaderFieldName(from) || !httpguts.ValidHeaderFieldName(to) {
		return c, fmt.Errorf("%q is neither the name of a header field nor of the form From>To", text)
	}
	if c.to == "Host" || strings.HasPrefix(c.to, "Content-") || fields.IsHopByHop(c.to) || c.to == "Http2-Settings" {
		return c, fmt.Errorf("%q can't be copied: it belongs to the message that carries it", c.to)
	}
	return c, nil
}

// Problem is what is wrong with one field of a Config.
type Problem struct {
	Field string // in JSON, e.g. "copy_headers[1]"
	Err   error
}

// Check returns everything that is wrong with the settings, as far as that is
// possible without connecting. A nil policy allows every address.
func (c *Config) Check(policy *proxy.Policy) []Problem {
	var problems []Problem
	add := func(field string, err error) {
		if err != nil {
			problems = append(problems, Problem{field, err})
		}
	}
	e, err := parseURL(c.URL)
	if err == nil && policy != nil {
		err = policy.CheckTarget(e.target)
	}
	add("url", err)
	for i, text := range c.CopyHeaders {
		_, err := parseCopied(text)
		add(fmt.Sprintf("copy_headers[%d]", i), err)
	}
	if c.Timeout < 0 {
		add("timeout", fmt.Errorf("must not be negative"))
	}
	if c.OnError != "" && c.OnError != onErrorDeny && c.OnError != onErrorAllow {
		add("on_error", fmt.Errorf("must be %q or %q", onErrorDeny, onErrorAllow))
	}
	return problems
}
