package routing

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"

	"github.com/isekai-gateway/isekai/store"
)

// Route is a row with what it matches compiled. It is immutable and safe for
// concurrent use. As long as a row does not change, a table keeps the same *Route.
type Route struct {
	// What every match reads comes first, so that it is in one line of the cache.
	code code
	bits methodBits // of methods
	more *extras    // nil if there are none; most routes have none

	kept
}

// extras is what few routes have.
type extras struct {
	exprs          *[]*regexp.Regexp // of the pattern
	headers, query []predicate
	methods        MethodSet    // with those that are not among the usual ones
	problem        error        // why the row does not compile
	row            *store.Route // one that does not compile, or that kept has no room for
}

var noExtras extras

func (r *Route) extras() *extras {
	if r.more == nil {
		return &noExtras
	}
	return r.more
}

// Problem returns why the row does not compile, nil for one that does.
func (r *Route) Problem() error { return r.extras().problem }

// Row returns the route's row. It is made anew by each call, but its policies are those
// of Spec and must not be changed.
func (r *Route) Row() *store.Route {
	if row := r.extras().row; row != nil {
		return row
	}
	row := r.row()
	if !r.ownKey {
		row.MatchKey = matchKey(r.MatchHost(), r.Pattern(), r.extras(), row.Priority)
	}
	return row
}

// Timeout returns the seconds that an exchange may take, 0 for no bound.
func (r *Route) Timeout() int {
	if r.more != nil && r.more.row != nil {
		return r.more.row.Timeout
	}
	return int(r.timeout)
}

// broken returns what stands for a row that does not compile.
func broken(row *store.Route, err error) *Route {
	k, _ := keep(row, row.Host, &Pattern{text: row.Path}, false)
	return &Route{kept: k, more: &extras{problem: err, row: row}}
}

// Pattern returns the compiled path, put together anew by each call.
func (r *Route) Pattern() *Pattern {
	p := r.pattern()
	return &p
}

func (r *Route) pattern() Pattern {
	p := Pattern{text: r.text(textPattern), segs: segments(r.text(textSegments))}
	if r.more != nil {
		p.exprs = r.more.exprs
	}
	return p
}

// comparePatterns is Pattern.compare of both routes' patterns.
func (r *Route) comparePatterns(o *Route) int {
	a, b := r.pattern(), o.pattern()
	return a.compare(&b)
}

// Methods returns the methods that the route names.
func (r *Route) Methods() MethodSet {
	if r.more != nil {
		return r.more.methods
	}
	return MethodSet{bits: r.bits}
}

// rank says how the route serves a method; bit is methodBit(method).
func (r *Route) rank(method string, bit methodBits) methodRank {
	rank := r.bits.rank(bit)
	if rank == methodNone && bit == noBits && r.more != nil && slices.Contains(r.more.methods.custom, method) {
		return methodNamed
	}
	return rank
}

// matchFrom reports whether the pattern, from the given segment on, matches rest.
func (r *Route) matchFrom(depth int, rest string) bool {
	if r.code.size > 0 {
		return r.code.matchFrom(depth, rest)
	}
	p := r.pattern()
	return p.matchFrom(depth, rest)
}

// Compile checks and compiles what a row matches. Everything that is wrong comes
// at once, as store.FieldErrors.
func Compile(r *store.Route) (*Route, error) {
	c, err := compile(r, nil, compileExpr)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// compile is Compile with what a whole table shares and a way to share compiled regexps.
func compile(r *store.Route, hosts hostCache, expr func(string) (*regexp.Regexp, error)) (*Route, error) {
	var errs store.FieldErrors
	if r.DecodeError != "" {
		errs.Add("spec", r.DecodeError)
		return nil, errs
	}
	pattern, err := parsePattern(r.Path, expr)
	if err != nil {
		errs.Add("path", err.Error())
	}
	host, err := hosts.parse(r.Host)
	if err != nil {
		errs.Add("host", err.Error())
	}
	methods, err := ParseMethods(r.Method)
	if err != nil {
		errs.Add("method", err.Error())
	}
	headers := compilePredicates("headers", r.Headers, headerName, &errs)
	query := compilePredicates("query", r.Query, queryName, &errs)
	c := &Route{code: pattern.code(), bits: methods.bits}
	if len(headers) > 0 || len(query) > 0 || len(methods.custom) > 0 || pattern.exprs != nil {
		c.more = &extras{exprs: pattern.exprs, headers: headers, query: query, methods: methods}
	}
	if r.Priority < math.MinInt32 || r.Priority > math.MaxInt32 {
		errs.Add("priority", fmt.Sprintf("must be from %d to %d", math.MinInt32, math.MaxInt32))
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	derived := r.MatchKey == matchKey(host, &pattern, c.extras(), r.Priority)
	var whole bool
	if c.kept, whole = keep(r, host, &pattern, derived); !whole {
		if c.more == nil {
			c.more = &extras{methods: methods}
		}
		c.more.row = r
	}
	return c, nil
}

// maxReadableKey bounds a match key. Databases bound what they index.
const maxReadableKey = 512

// MatchKey returns what a row matches apart from its methods, as a text: two rows
// with equal keys and a method in common are in conflict. The names of parameters
// do not count. Long keys are replaced by their SHA-256. It fails as Compile does.
func MatchKey(r *store.Route) (string, error) {
	c, err := Compile(r)
	if err != nil {
		return "", err
	}
	return matchKey(c.MatchHost(), c.Pattern(), c.extras(), r.Priority), nil
}

func matchKey(host string, pattern *Pattern, more *extras, priority int) string {
	var space [maxReadableKey]byte
	b := append(append(space[:0], host...), ' ')
	b = strconv.AppendQuote(b, pattern.Key())
	for _, p := range more.headers {
		b = append(append(append(b, " header "...), p.name...), '=')
		b = strconv.AppendQuote(b, p.value)
	}
	for _, p := range more.query {
		b = append(strconv.AppendQuote(append(b, " query "...), p.name), '=')
		b = strconv.AppendQuote(b, p.value)
	}
	b = strconv.AppendInt(append(b, " priority "...), int64(priority), 10)
	if len(b) > maxReadableKey {
		sum := sha256.Sum256(b)
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	return string(b)
}

// sameMatch reports whether both routes have equal match keys.
func (r *Route) sameMatch(o *Route) bool {
	a, b := r.extras(), o.extras()
	p, q := r.pattern(), o.pattern()
	return r.MatchHost() == o.MatchHost() && r.priority == o.priority && p.sameFrom(&q, 0) &&
		slices.Equal(a.headers, b.headers) && slices.Equal(a.query, b.query)
}

// compareRest orders two routes that host, path and method leave even.
func (r *Route) compareRest(o *Route) int {
	a, b := r.extras(), o.extras()
	return cmp.Or(
		-cmp.Compare(len(a.headers), len(b.headers)),
		-cmp.Compare(len(a.query), len(b.query)),
		-cmp.Compare(r.priority, o.priority),
		// A new route, which has no id yet, will get the highest.
		cmp.Compare(uint64(r.ID)-1, uint64(o.ID)-1),
	)
}

// describe names the route in a text for people.
func (r *Route) describe() string {
	what := r.Methods().String() + " " + r.MatchHost() + r.text(textPattern)
	if name := r.Name(); name != "" {
		what = strconv.Quote(name) + ", " + what
	}
	return fmt.Sprintf("route %d (%s)", r.ID, what)
}
