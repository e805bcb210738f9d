package cors

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/isekai-gateway/isekai/routing"
)

// nullOrigin is how browsers send an origin that no one else can be the same as.
const nullOrigin = "null"

var errNoOrigin = errors.New(`must be a scheme and a host, like "https://app.example.com"`)

// origin is one of the allowed origins in exactly one of its forms.
type origin struct {
	exact    string
	wildcard wildcard
	pattern  *regexp.Regexp
}

// wildcard matches what is between its ends, if that is labels of a host name.
type wildcard struct {
	prefix string // "https://"
	suffix string // ".example.com" or ".example.com:8443"
}

// parseOrigin parses an item of Config.Origins other than "*".
func parseOrigin(s string) (origin, error) {
	if len(s) > MaxOrigin {
		return origin{}, fmt.Errorf("must not be longer than %d bytes", MaxOrigin)
	}
	if expr, ok := strings.CutPrefix(s, "~"); ok {
		pattern, err := parsePattern(expr)
		return origin{pattern: pattern}, err
	}
	if s == nullOrigin {
		return origin{exact: nullOrigin}, nil
	}
	scheme, authority, ok := strings.Cut(s, "://")
	if !ok || !isScheme(scheme) {
		return origin{}, errNoOrigin
	}
	scheme = strings.ToLower(scheme)
	switch {
	case scheme == "file":
		return origin{}, errors.New(`local files have the origin "null"`)
	case strings.ContainsAny(authority, `/\?#`):
		return origin{}, errors.New("must end after the host and port, without a path")
	case strings.Contains(authority, "@"):
		return origin{}, errors.New("must have no user name")
	}
	host, port, err := parseAuthority(scheme, authority)
	if err != nil {
		return origin{}, err
	}
	if name, ok := strings.CutPrefix(host, "*"); ok {
		return origin{wildcard: wildcard{scheme + "://", name + port}}, nil
	}
	return origin{exact: scheme + "://" + host + port}, nil
}

// parseAuthority returns the normal forms of a host and, with its colon, of a
// port that is not the scheme's own.
func parseAuthority(scheme, authority string) (host, port string, err error) {
	var hasPort bool
	if end := strings.LastIndexByte(authority, ']'); end >= 0 {
		host, port = authority[:end+1], authority[end+1:]
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return "", "", errNoOrigin
		}
	} else {
		host, port, hasPort = strings.Cut(authority, ":")
	}
	if host, err = parseHost(host); err != nil {
		return "", "", err
	}
	if !hasPort {
		return host, "", nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", "", fmt.Errorf("port %q is not a number between 1 and 65535", port)
	}
	if scheme == "http" && n == 80 || scheme == "https" && n == 443 {
		return host, "", nil
	}
	return host, ":" + strconv.FormatUint(n, 10), nil
}

// parseHost returns the normal form of a host as browsers have it in an origin.
func parseHost(s string) (string, error) {
	if strings.ContainsAny(s, "[]") {
		inner := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
		addr, err := netip.ParseAddr(inner)
		// Browsers write a mapped IPv4 address in hexadecimal digits, net/netip does not.
		if err != nil || s != "["+inner+"]" || !addr.Is6() || addr.Is4In6() || addr.Zone() != "" {
			return "", fmt.Errorf("%q is no IPv6 address", s)
		}
		return "[" + addr.String() + "]", nil
	}
	switch {
	case s == "":
		return "", errNoOrigin
	case strings.Trim(s, "*.") == "":
		return "", errors.New(`"*" must be followed by a name, as in "https://*.example.com"`)
	case strings.HasSuffix(s, "."):
		return "", errors.New("must not end with a dot")
	}
	host, err := routing.ParseHost(s)
	if err != nil {
		return "", fmt.Errorf("host %w", err)
	}
	return host, nil
}

// parsePattern compiles a regular expression for whole origins.
func parsePattern(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, errors.New(`"~" must be followed by a regular expression`)
	}
	// First without the anchors, lest "a)|(b" step out of their group.
	if _, err := regexp.Compile(expr); err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	pattern, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("regular expression: %w", err)
	}
	return pattern, nil
}

// checkCredentials refuses what lets any page of the web in. Nobody owns a name
// in .invalid (RFC 6761), so a pattern that matches one was not meant for some
// sites.
func (o origin) checkCredentials() error {
	if o.exact == nullOrigin {
		return errors.New(`"null" can't be had with credentials: any page can make itself that origin`)
	}
	if p := o.pattern; p != nil && (p.MatchString("https://isekai.invalid") || p.MatchString("http://isekai.invalid")) {
		return errors.New("matches any origin, which can't be had with credentials")
	}
	return nil
}

func (w wildcard) match(origin string) bool {
	rest, ok := strings.CutPrefix(origin, w.prefix)
	if !ok {
		return false
	}
	labels, ok := strings.CutSuffix(rest, w.suffix)
	return ok && areLabels(labels)
}

// areLabels says whether s can stand before a dot in the host of a browser's
// origin.
func areLabels(s string) bool {
	begin := true // of a label
	for i := range len(s) {
		c := s[i]
		if c == '.' && begin || c != '.' && !isLower(c) && !isDigit(c) && c != '-' && c != '_' {
			return false
		}
		begin = c == '.'
	}
	return !begin
}

// isSerialized says whether s has the form in which browsers send origins other
// than "null": a scheme, a host and perhaps a port. A pattern with ".*" must not
// get to see anything else.
func isSerialized(s string) bool {
	scheme, authority, ok := strings.Cut(s, "://")
	if !ok || !isScheme(scheme) || authority == "" {
		return false
	}
	for i := range len(authority) {
		if c := authority[i]; !isLower(c) && !isDigit(c) && strings.IndexByte("-_.:[]", c) < 0 {
			return false
		}
	}
	return true
}

// isScheme checks a scheme as in RFC 3986, section 3.1.
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if !isLower(c) && (i == 0 || !isDigit(s[i]) && strings.IndexByte("+-.", s[i]) < 0) {
			return false
		}
	}
	return s != ""
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
