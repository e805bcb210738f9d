package routing

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of a host name (RFC 1035, section 2.3.4).
const (
	maxHost  = 253
	maxLabel = 63
)

var errAnyHost = errors.New("leave it empty to match any host")

// ParseHost checks the host of a route and returns its normal form: a host name
// in lower case, international names as punycode; an IP address without brackets;
// "*." and a name for one or more labels before it; or "" for any host.
func ParseHost(s string) (string, error) {
	switch {
	case s == "":
		return "", nil
	case strings.Trim(s, "*.") == "":
		return "", errAnyHost
	case strings.Contains(s, "://"):
		return "", errors.New(`must be a host without a scheme, like "api.example.com"`)
	case strings.ContainsAny(s, "/?#@ \t\r\n"):
		return "", errors.New(`must be only a host, like "api.example.com"`)
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		if addr.Zone() != "" {
			return "", errors.New("an address must have no zone")
		}
		return addr.String(), nil
	}
	if strings.Contains(s, ":") {
		return "", errors.New("must be a host without a port: every port matches")
	}
	name, isWildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(name, "*") {
		return "", errors.New(`"*" can only be the first label, as in "*.example.com"`)
	}
	name, err := parseHostName(strings.TrimSuffix(name, "."))
	if err != nil {
		return "", err
	}
	if isWildcard {
		name = "*." + name
	}
	if len(name) > maxHost {
		return "", fmt.Errorf("must not be longer than %d bytes", maxHost)
	}
	return name, nil
}

func parseHostName(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errors.New("is not UTF-8")
	}
	if !isASCII(s) || strings.Contains(strings.ToLower(s), "xn--") {
		name, err := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false)).ToASCII(s)
		if err != nil {
			return "", fmt.Errorf("is no valid international host name: %w", err)
		}
		s = name
	}
	s = strings.ToLower(s)
	labels := strings.Split(s, ".")
	for _, label := range labels {
		switch {
		case label == "":
			return "", errors.New("has an empty label")
		case len(label) > maxLabel:
			return "", fmt.Errorf("label %q is longer than %d bytes", label, maxLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return "", fmt.Errorf(`label %q must not begin or end with "-"`, label)
		}
		for i := range len(label) {
			// The underscore is in no host name by the book, but in many by use.
			if c := label[i]; class[c]&unreserved == 0 || c == '~' {
				return "", fmt.Errorf("%q cannot be in a host name", label[i:i+1])
			}
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "", errors.New("is neither a host name nor a valid IP address")
	}
	return s, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// RequestHost returns the host of a request's Host field as Request.Host wants it:
// in lower case, without port, brackets and one dot at the end; an IPv6 address in
// its shortest form. It allocates only if letters change.
func RequestHost(hostport string) string {
	host := hostport
	if strings.HasPrefix(host, "[") {
		// Anything but a port behind it makes this no address, and no route's host.
		if i := strings.IndexByte(host, ']'); i > 0 && (i+1 == len(host) || host[i+1] == ':') {
			return requestAddr(host[1:i])
		}
	}
	if i := strings.IndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i+1:], ':') < 0 {
		host = host[:i]
	} else if i >= 0 {
		return requestAddr(host)
	}
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if c := host[i]; c >= 'A' && c <= 'Z' {
			return lowerASCII(host)
		}
	}
	return host
}

func requestAddr(s string) string {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return lowerASCII(s)
	}
	var buf [64]byte
	if text := addr.AppendTo(buf[:0]); string(text) != s {
		return string(text)
	}
	return s
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// hostCache is parsed hosts by how they are written: of very many rows, most name one of
// few. A nil one keeps nothing.
type hostCache map[string]string

// parse is ParseHost.
func (c hostCache) parse(text string) (string, error) {
	if host, ok := c[text]; ok {
		return host, nil
	}
	host, err := ParseHost(text)
	if err == nil && c != nil {
		c[text] = host
	}
	return host, err
}
