// Package proxy forwards requests to upstreams through Caddy's reverse proxy.
// Routes with equal upstream settings share one forwarder, and forwarders with
// equal connection settings share one transport and its connections.
package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/isekai-gateway/isekai/routing"
)

// Target is a parsed target_url: where to connect, and how a request's path
// becomes the upstream's.
type Target struct {
	Scheme  string // "http" or "https"
	H2C     bool   // the scheme was "h2c"
	Address string // host:port to dial
	Host    string // the Host that the upstream sees unless preserve_host
	base    string // canonical path to prepend, without a slash at its end
	rewrite []part // set if the path names parameters: the whole new path
}

// part is a literal piece of a rewritten path or the value of a parameter.
type part struct{ literal, param string }

// ParseTarget parses a route's target_url. The names of params may stand as
// whole segments, {name}, in its path, and nowhere else: a request must never
// choose the host that it is sent to.
func ParseTarget(raw string, params []string) (*Target, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	t := &Target{Scheme: strings.ToLower(scheme)}
	port := "80"
	switch {
	case !ok:
		return nil, fmt.Errorf("must be a URL such as http://10.0.0.5:9000/base")
	case t.Scheme == "http":
	case t.Scheme == "https":
		port = "443"
	case t.Scheme == "h2c":
		t.Scheme, t.H2C = "http", true
	default:
		return nil, fmt.Errorf("scheme %q is not supported: use http, https or h2c", scheme)
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	if err := t.parseAuthority(authority, port); err != nil {
		return nil, err
	}
	if strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf("must not have a query or a fragment: the request's own query is forwarded")
	}
	if err := t.parsePath(path, params); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Target) parseAuthority(authority, defaultPort string) error {
	switch {
	case strings.ContainsAny(authority, "{}"):
		return fmt.Errorf("must not have a placeholder in its host or port")
	case strings.Contains(authority, "@"):
		return fmt.Errorf("must not have a user name or password: set an Authorization header by a plugin instead")
	}
	u, err := url.Parse("http://" + authority)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("has no valid host: %q", authority)
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if strings.HasSuffix(authority, ":") {
		return fmt.Errorf("has no port after the colon")
	}
	if port == "" {
		port = defaultPort
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not between 1 and 65535", port)
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if host, err = canonicalHost(host); err != nil {
		return err
	}
	t.Address = net.JoinHostPort(host, port)
	t.Host = t.Address
	if port == defaultPort {
		t.Host = strings.TrimSuffix(t.Address, ":"+port)
	}
	return nil
}

// canonicalHost accepts names and plainly written IP addresses. The other
// spellings of an IPv4 address (decimal, hexadecimal, octal, shortened) are
// refused: they only serve to get past checks.
func canonicalHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return "", fmt.Errorf("IPv6 zones are not supported")
		}
		return addr.String(), nil
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		// Names with underscores, common for containers, are no IDNs.
		ascii = host
	}
	if len(ascii) > 253 {
		return "", fmt.Errorf("host is longer than 253 characters")
	}
	labels := strings.Split(strings.TrimSuffix(ascii, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", fmt.Errorf("host %q is not a valid name", host)
		}
	}
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		return "", fmt.Errorf("host %q looks like an IP address but isn't one: write IPv4 as four decimal numbers", host)
	}
	return ascii, nil
}

func (t *Target) parsePath(path string, params []string) error {
	if strings.Contains(path, "*") {
		return fmt.Errorf("must not have * in its path: what * matched is appended anyway; to place it elsewhere name it {rest...} in the path and write {rest} here")
	}
	if !strings.ContainsAny(path, "{}") {
		base, err := canonical(path)
		if err != nil {
			return err
		}
		t.base = strings.TrimSuffix(base, "/")
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if !strings.ContainsAny(segment, "{}") {
			literal, err := canonical("/" + segment)
			if err != nil {
				return err
			}
			t.rewrite = append(t.rewrite, part{literal: literal})
			continue
		}
		name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(segment, "{"), "}"), "...")
		switch {
		case segment != "{"+name+"}" && segment != "{"+name+"...}":
			return fmt.Errorf("%q is not a whole segment of the form {name}", segment)
		case !slices.Contains(params, name):
			return fmt.Errorf("{%s} is not a parameter of the path; Caddy's placeholders can't stand here", name)
		}
		t.rewrite = append(t.rewrite, part{literal: "/"}, part{param: name})
	}
	return nil
}

// canonical brings a target's literal path to the form of request paths.
func canonical(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	p, err := routing.CanonicalPath(path)
	if err != nil {
		return "", fmt.Errorf("path %q: %w", path, err)
	}
	if p.Merged {
		return "", fmt.Errorf("path %q has repeated slashes", path)
	}
	return p.Text, nil
}

// Rewrites says whether the target's path is a full rewrite from parameters.
func (t *Target) Rewrites() bool { return t.rewrite != nil }

// Path returns the upstream's path for a request that matched pattern with the
// canonical path matched and has the path path now, another one if a plugin has
// rewritten it. If strip is true, the pattern's literal prefix is left out.
func (t *Target) Path(pattern *routing.Pattern, matched, path string, strip bool) string {
	if t.rewrite != nil {
		return t.rewritten(pattern, matched)
	}
	if rest, ok := strings.CutPrefix(path, pattern.LiteralPrefix()); ok && strip && (rest == "" || rest[0] == '/') {
		path = rest
	}
	if t.base == "" && path == "" {
		return "/"
	}
	return t.base + path
}

// Append returns path, in canonical form, below the path of a target that names
// no parameters.
func (t *Target) Append(path string) string { return t.base + path }

// rewritten fills the parameters' values into the target's path.
func (t *Target) rewritten(pattern *routing.Pattern, matched string) string {
	var buf [8]routing.Param
	values := pattern.AppendParams(buf[:0], matched)
	var b strings.Builder
	for _, p := range t.rewrite {
		b.WriteString(p.literal)
		for _, v := range values {
			if v.Name == p.param {
				b.WriteString(v.Value)
			}
		}
	}
	return b.String()
}
