package routing

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// maxMethods bounds the methods that one route names.
const maxMethods = 32

// methodBits is a set of the usual methods.
type methodBits uint16

// The usual methods, in alphabetical order, and the one bit that means all.
const (
	bitDelete methodBits = 1 << iota
	bitGet
	bitHead
	bitOptions
	bitPatch
	bitPost
	bitPut
	bitAll

	noBits methodBits = 0
)

var usualMethods = [...]string{
	http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
	http.MethodPatch, http.MethodPost, http.MethodPut,
}

func methodBit(method string) methodBits {
	switch method {
	case http.MethodGet:
		return bitGet
	case http.MethodPost:
		return bitPost
	case http.MethodPut:
		return bitPut
	case http.MethodDelete:
		return bitDelete
	case http.MethodHead:
		return bitHead
	case http.MethodPatch:
		return bitPatch
	case http.MethodOptions:
		return bitOptions
	}
	return noBits
}

// MethodSet is the set of methods that a route serves: some that it names, or all.
// It is immutable. The zero value is empty.
type MethodSet struct {
	bits   methodBits
	custom []string // named and not among the usual ones, sorted
}

// ParseMethods parses the methods of a route: one, a list separated by commas, or
// "*" for all but TRACE and CONNECT, which are never served. Letters become upper
// case, and naming a method twice is naming it once.
func ParseMethods(s string) (MethodSet, error) {
	var m MethodSet
	parts := strings.Split(s, ",")
	if len(parts) > maxMethods {
		return MethodSet{}, fmt.Errorf(`must not name more than %d methods; write "*" for all`, maxMethods)
	}
	for _, part := range parts {
		name := strings.ToUpper(strings.Trim(part, " \t"))
		switch {
		case name == "":
			return MethodSet{}, errors.New(`must name a method, several separated by commas, or "*" for all`)
		case name == "*":
			if len(parts) > 1 {
				return MethodSet{}, errors.New(`"*" means all methods and must stand alone`)
			}
			m.bits = bitAll
		case name == http.MethodConnect:
			return MethodSet{}, errors.New("CONNECT asks for a tunnel through a forward proxy and is never served; WebSocket over HTTP/2 is matched as GET")
		case name == http.MethodTrace:
			return MethodSet{}, errors.New("TRACE would show clients the headers added on the way and is never served")
		case !isToken(name):
			return MethodSet{}, fmt.Errorf("%q is no method", name)
		case methodBit(name) != noBits:
			m.bits |= methodBit(name)
		case !slices.Contains(m.custom, name):
			m.custom = append(m.custom, name)
		}
	}
	slices.Sort(m.custom)
	return m, nil
}

// Names returns the methods that the set names, sorted, or just "*".
func (m MethodSet) Names() []string {
	if m.bits == bitAll {
		return []string{"*"}
	}
	var names []string
	for i, name := range usualMethods {
		if m.bits&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	names = append(names, m.custom...)
	slices.Sort(names)
	return names
}

// String returns the names separated by commas.
func (m MethodSet) String() string { return strings.Join(m.Names(), ",") }

// Overlaps reports whether both sets name a method in common. "*" has only "*" in
// common: a named method always comes before it.
func (m MethodSet) Overlaps(o MethodSet) bool {
	if m.bits&o.bits != 0 {
		return true
	}
	for _, name := range m.custom {
		if slices.Contains(o.custom, name) {
			return true
		}
	}
	return false
}

// methodRank says how a route serves a request's method; lower comes first.
type methodRank uint8

const (
	methodNamed   methodRank = iota
	methodImplied            // HEAD, by naming GET
	methodAny                // by "*"
	methodNone               // not at all
)

// rank says how a route that names these methods serves the one with the bit, if it is
// a usual one. TRACE and CONNECT are up to the caller.
func (m methodBits) rank(bit methodBits) methodRank {
	switch {
	case m&bit != 0:
		return methodNamed
	case bit == bitHead && m&bitGet != 0:
		return methodImplied
	case m&bitAll != 0:
		return methodAny
	}
	return methodNone
}

// neverServed reports whether a method matches no route, not even one for "*".
func neverServed(method string) bool {
	return method == http.MethodTrace || method == http.MethodConnect
}

// isToken reports whether s is a token as in RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (class[c]&unreserved == 0) && strings.IndexByte("!#$%&'*+^`|", c) < 0 {
			return false
		}
	}
	return s != ""
}
