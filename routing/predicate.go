package routing

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/isekai-gateway/isekai/store"
)

// Bounds of predicates.
const (
	maxPredicates     = 32   // of either sort
	maxPredicateBytes = 1024 // of one value
)

// predicate asks for a header field or a query parameter.
type predicate struct {
	name  string
	value string // "*" asks only for presence
}

func (p predicate) holds(values []string) bool {
	if p.value == "*" {
		return len(values) > 0
	}
	return slices.Contains(values, p.value)
}

// compilePredicates returns the predicates sorted by name, and adds what is wrong
// to errs. check returns the normal form of a name, or what is wrong with the pair.
func compilePredicates(field string, from map[string]string, check func(name, value string) (string, error), errs *store.FieldErrors) []predicate {
	if len(from) == 0 {
		return nil
	}
	if len(from) > maxPredicates {
		errs.Add(field, fmt.Sprintf("must not have more than %d entries", maxPredicates))
		return nil
	}
	list := make([]predicate, 0, len(from))
	for name, value := range from {
		normal, err := check(name, value)
		if err == nil && len(value) > maxPredicateBytes {
			err = fmt.Errorf("must not be longer than %d bytes", maxPredicateBytes)
		}
		if err != nil {
			errs.Add(field+"."+name, err.Error())
			continue
		}
		list = append(list, predicate{normal, value})
	}
	slices.SortFunc(list, func(a, b predicate) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
	for i := 1; i < len(list); i++ {
		if list[i].name == list[i-1].name {
			errs.Add(field+"."+list[i].name, "is there twice, spelled differently")
		}
	}
	// Maps come in any order, errors should not.
	slices.SortStableFunc(*errs, func(a, b store.FieldError) int {
		if strings.HasPrefix(a.Field, field+".") && strings.HasPrefix(b.Field, field+".") {
			return strings.Compare(a.Field, b.Field)
		}
		return 0
	})
	return list
}

func headerName(name, value string) (string, error) {
	if !isToken(name) {
		return "", fmt.Errorf("%q is no name of a header field", name)
	}
	canonical := http.CanonicalHeaderKey(name)
	if canonical == "Host" {
		return "", errors.New(`use the field "host" of the route to match the host`)
	}
	if strings.Trim(value, " \t") != value {
		return "", errors.New("can never match: values of header fields have no spaces at their ends")
	}
	for i := range len(value) {
		if c := value[i]; class[c]&control != 0 && c != '\t' {
			return "", errors.New("can never match: values of header fields have no control characters")
		}
	}
	return canonical, nil
}

func queryName(name, _ string) (string, error) {
	if name == "" {
		return "", errors.New("must have a name")
	}
	return name, nil
}

// Request is what is matched of a request. It belongs to one goroutine, and to one
// request: make a new one, or overwrite it whole, for the next.
type Request struct {
	Method   string      // as it was sent; an extended CONNECT is matched as GET
	Host     string      // as RequestHost returns it
	Path     string      // the Text of a Path
	Header   http.Header // with canonical names
	RawQuery string      // without "?"; read only if a route asks for a parameter

	// Whether this is a CORS preflight, to be matched as the request that it asks
	// about; Method is that request's. Header is the preflight's own, which tells
	// names of fields that will be there but not their values: a predicate on a
	// field that Access-Control-Request-Headers names is taken to hold.
	Preflight bool

	query   url.Values          // once it was needed
	problem error               // with the query
	asked   map[string]struct{} // what a preflight names, once it was needed
}

// willHave says whether this is a preflight for a request with the header field.
func (q *Request) willHave(name string) bool {
	if !q.Preflight {
		return false
	}
	if q.asked == nil {
		q.asked = make(map[string]struct{})
		for _, line := range q.Header["Access-Control-Request-Headers"] {
			for item := range strings.SplitSeq(line, ",") {
				q.asked[http.CanonicalHeaderKey(strings.Trim(item, " \t"))] = struct{}{}
			}
		}
	}
	_, ok := q.asked[name]
	return ok
}

// predicatesHold reports whether the request has what the route asks for apart from host,
// path and method.
func (r *Route) predicatesHold(q *Request) bool {
	if r.more == nil {
		return true
	}
	for _, p := range r.more.headers {
		if !p.holds(q.Header[p.name]) && !q.willHave(p.name) {
			return false
		}
	}
	if len(r.more.query) > 0 {
		values := q.parameters()
		for _, p := range r.more.query {
			if !p.holds(values[p.name]) {
				return false
			}
		}
	}
	return true
}
