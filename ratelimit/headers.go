package ratelimit

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// HeaderStyle says which response fields tell a client about its limits.
type HeaderStyle string

const (
	// HeadersIETF is RateLimit-Policy and RateLimit as lists of RFC 9651, as in
	// draft-ietf-httpapi-ratelimit-headers-11. It is the default.
	HeadersIETF HeaderStyle = "ietf"

	// HeadersLegacy is X-RateLimit-Limit, X-RateLimit-Remaining and
	// X-RateLimit-Reset, the last in seconds from now. No specification has
	// them, and some services send a date as the last.
	HeadersLegacy HeaderStyle = "legacy"

	// HeadersNone is none but Retry-After.
	HeadersNone HeaderStyle = "none"
)

// Valid reports whether s is one of the styles.
func (s HeaderStyle) Valid() bool {
	return s == HeadersIETF || s == HeadersLegacy || s == HeadersNone
}

const (
	fieldPolicy          = "Ratelimit-Policy"
	fieldRateLimit       = "Ratelimit"
	fieldLegacyLimit     = "X-Ratelimit-Limit"
	fieldLegacyRemaining = "X-Ratelimit-Remaining"
	fieldLegacyReset     = "X-Ratelimit-Reset"
)

// Headers writes response fields for a fixed set of rules. It is immutable and
// safe for concurrent use.
type Headers struct {
	style  HeaderStyle
	rules  []Rule
	policy string
	names  []string // quoted
}

// NewHeaders returns the writer of fields in style for rules, which it keeps.
// Rules without a limit are left out of the fields.
func NewHeaders(style HeaderStyle, rules []Rule) *Headers {
	h := &Headers{style: style, rules: rules, names: make([]string, len(rules))}
	var policy []byte
	for i, rule := range rules {
		h.names[i] = quote(rule.Name)
		if rule.Limit <= 0 {
			continue
		}
		policy = separate(policy)
		policy = append(policy, h.names[i]...)
		policy = append(policy, ";q="...)
		policy = strconv.AppendInt(policy, int64(rule.Limit), 10)
		policy = append(policy, ";w="...)
		policy = strconv.AppendInt(policy, seconds(rule.Window), 10)
	}
	h.policy = string(policy)
	return h
}

// Write adds the fields for decisions, one for each rule, to the fields of a
// response. Call it when the upstream's fields are there, just before they are
// sent: what an upstream says of its own limits is never loosened. RateLimit and
// RateLimit-Policy are lists, so its members stay and these follow. The legacy
// fields have room for one limit each, and say the rule with the least remaining. Of
// an upstream's, each that is as strict or is no number stays: a lower limit, less
// remaining, a longer wait.
func (h *Headers) Write(header http.Header, decisions []Decision) {
	if h.policy == "" {
		return
	}
	switch h.style {
	case HeadersIETF:
		// Both in one piece of memory, which nobody else has: values may be changed in
		// place.
		values := &[2]string{h.policy, h.rateLimit(decisions)}
		addLast(header, fieldPolicy, values[0:1:1])
		addLast(header, fieldRateLimit, values[1:2:2])
	case HeadersLegacy:
		h.writeLegacy(header, decisions)
	case HeadersNone:
	}
}

// addLast adds a value, in a slice that the header may keep, to a field, whose name is
// canonical.
func addLast(header http.Header, field string, value []string) {
	if theirs := header[field]; len(theirs) > 0 {
		value = append(theirs, value...)
	}
	header[field] = value
}

// rateLimit returns e.g. "route";r=57;t=12. The t is missing while the whole
// limit is there.
func (h *Headers) rateLimit(decisions []Decision) string {
	var space [96]byte
	value := space[:0]
	for i, d := range decisions {
		if h.rules[i].Limit <= 0 {
			continue
		}
		value = separate(value)
		value = append(value, h.names[i]...)
		value = append(value, ";r="...)
		value = strconv.AppendInt(value, int64(d.Remaining), 10)
		if d.Reset > 0 {
			value = append(value, ";t="...)
			value = strconv.AppendInt(value, seconds(d.Reset), 10)
		}
	}
	return string(value)
}

func (h *Headers) writeLegacy(header http.Header, decisions []Decision) {
	tightest := -1
	for i, d := range decisions {
		if h.rules[i].Limit > 0 && (tightest < 0 || d.Remaining < decisions[tightest].Remaining) {
			tightest = i
		}
	}
	d := decisions[tightest]
	tighten(header, fieldLegacyLimit, int64(h.rules[tightest].Limit), false)
	tighten(header, fieldLegacyRemaining, int64(d.Remaining), false)
	tighten(header, fieldLegacyReset, seconds(d.Reset), true)
}

// tighten sets a field unless what is there is as strict: as low, or as high if more
// is stricter. Of what it can't compare, the upstream's stays.
func tighten(header http.Header, field string, value int64, more bool) {
	theirs := header.Values(field)
	if len(theirs) > 0 {
		n, err := strconv.ParseInt(strings.TrimSpace(theirs[0]), 10, 64)
		if len(theirs) > 1 || err != nil || n == value || n > value == more {
			return
		}
	}
	header.Set(field, strconv.FormatInt(value, 10))
}

// SetRetryAfter sets Retry-After to wait in whole seconds, rounded up, at least 1.
func SetRetryAfter(header http.Header, wait time.Duration) {
	header.Set("Retry-After", strconv.FormatInt(max(seconds(wait), 1), 10))
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func separate(list []byte) []byte {
	if len(list) > 0 {
		list = append(list, ", "...)
	}
	return list
}

// quote returns name as a String of RFC 9651, which has printable ASCII only;
// anything else in it becomes a question mark.
func quote(name string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range name {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r > '~':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
