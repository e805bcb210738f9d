package tracing

import (
	"net/http"
	"strings"
)

// The fields of a trace context (W3C Trace Context and Baggage), in canonical form.
const (
	traceparent = "Traceparent"
	tracestate  = "Tracestate"
	baggage     = "Baggage"
)

// Bounds of the fields. Trace Context asks that at least 512 bytes of tracestate be
// passed on, and has at most 32 members; Baggage has at most 64 members and asks
// for 8,192 bytes.
const (
	maxParent       = 256 // for versions to come; ours has 55
	maxStateBytes   = 8 << 10
	maxStateMembers = 32
	maxBaggageBytes = 8 << 10
	maxBaggage      = 64
)

// Sanitize removes from a request what is no trace context: a traceparent that is
// malformed or there twice, a tracestate that is malformed or without its
// traceparent, malformed or oversized baggage.
func Sanitize(h http.Header) {
	if parent := h[traceparent]; len(parent) > 0 && (len(parent) > 1 || !validParent(parent[0])) {
		delete(h, traceparent)
	}
	if state := h[tracestate]; len(state) > 0 && (len(h[traceparent]) == 0 || !validList(state, maxStateBytes, maxStateMembers, validState)) {
		delete(h, tracestate)
	}
	if entries := h[baggage]; len(entries) > 0 && !validList(entries, maxBaggageBytes, maxBaggage, validEntry) {
		delete(h, baggage)
	}
}

// TraceID returns the id of the trace that a request's sender has begun, empty if
// it says of none.
func TraceID(h http.Header) string {
	if parent := h[traceparent]; len(parent) == 1 && validParent(parent[0]) {
		return parent[0][3:35]
	}
	return ""
}

// validParent says whether s is a traceparent: version, trace, parent and flags in
// hexadecimal, of which only the version may announce more.
func validParent(s string) bool {
	if len(s) < 55 || len(s) > maxParent || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	switch {
	case !isHex(version) || !isHex(trace) || !isHex(parent) || !isHex(flags):
		return false
	case version == "ff" || isZero(trace) || isZero(parent):
		return false
	}
	return len(s) == 55 || version != "00" && s[55] == '-'
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isZero(s string) bool { return strings.Trim(s, "0") == "" }

// validList says whether the lines of a field, put together, are a list of at most
// so many bytes and members, all of them valid. Empty members count for nothing.
func validList(lines []string, maxBytes, maxMembers int, valid func(string) bool) bool {
	size, members := 0, 0
	for _, line := range lines {
		if size += len(line); size > maxBytes {
			return false
		}
		for line != "" {
			var member string
			member, line, _ = strings.Cut(line, ",")
			if member = strings.Trim(member, " \t"); member == "" {
				continue
			}
			if members++; members > maxMembers || !valid(member) {
				return false
			}
		}
	}
	return members > 0
}

// validState says whether s is a member of a tracestate: a key, which may name a
// tenant and a system, and a value.
func validState(s string) bool {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" || len(key) > 256 || value == "" || len(value) > 256 || !isAlphanumeric(key[0]) {
		return false
	}
	for i := range len(key) {
		if c := key[i]; !isAlphanumeric(c) && strings.IndexByte("_-*/@", c) < 0 {
			return false
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '=' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// validEntry says whether s is an entry of baggage: a key and a value, and perhaps
// properties of the same form, of which the value may be missing.
func validEntry(s string) bool {
	for first := true; first || s != ""; first = false {
		var pair string
		pair, s, _ = strings.Cut(s, ";")
		key, value, ok := strings.Cut(pair, "=")
		if !isToken(strings.Trim(key, " \t")) || !ok && first || !isBaggageValue(strings.Trim(value, " \t")) {
			return false
		}
	}
	return true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isBaggageValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte("\",;\\", c) >= 0 {
			return false
		}
	}
	return true
}
