package routing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// maxWarnings bounds what Warnings returns.
const maxWarnings = 10

// Warnings returns what a person who writes r should know: that it can never match
// because served routes that come before it take all its requests, that it would
// do so to others, or that its path looks like another notation. It never warns
// without a reason, but does not find every one: whether one regexp matches all
// that another does is only known for equal ones, ".*" and ".+". The table may hold
// an earlier version of r.
func (t *Table) Warnings(r *Route) []string {
	var texts []string
	p := r.pattern()
	for _, s := range p.segs.all(0) {
		if name := p.literal(s); s.kind == kindLiteral && strings.HasPrefix(name, ":") && isName(name[1:]) {
			texts = append(texts, fmt.Sprintf("the path matches the text %q; a parameter is written {%s}", name, name[1:]))
		}
	}
	if !r.enabled {
		return texts
	}
	if by := t.shadowsOf(r, r.ID, nil); by != nil {
		names := make([]string, len(by))
		for i, s := range by {
			names[i] = s.describe()
		}
		texts = append(texts, "can never match: "+takeAll(names))
	}
	more := 0
	for _, s := range t.newlyShadowed(r) {
		if len(texts) == maxWarnings {
			more++
			continue
		}
		texts = append(texts, s)
	}
	if more > 0 {
		texts = append(texts, fmt.Sprintf("%d more routes can never match any more", more))
	}
	return texts
}

func takeAll(names []string) string {
	if len(names) == 1 {
		return names[0] + " takes all its requests"
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last] + " together take all its requests"
}

// newlyShadowed tells which routes could never match any more with r in the table.
func (t *Table) newlyShadowed(r *Route) []string {
	var texts []string
	p := r.pattern()
	t.served.tree(r.MatchHost()).related(&p, 0, false, func(s *Route) {
		if s.ID == r.ID || !slices.ContainsFunc(methodsServed(s), func(m string) bool { return r.takes(s, m) }) {
			return
		}
		by := t.shadowsOf(s, r.ID, r)
		if by == nil || t.shadowsOf(s, s.ID, nil) != nil {
			return
		}
		names := []string{"this route"}
		for _, other := range by {
			if other != r {
				names = append(names, other.describe())
			}
		}
		texts = append(texts, s.describe()+" can never match any more: "+takeAll(names))
	})
	return texts
}

// shadowsOf returns served routes that together take all requests that r matches,
// nil if there are none: of those in the table, except the one with the id without,
// and of extra, if it is not nil.
func (t *Table) shadowsOf(r *Route, without int64, extra *Route) []*Route {
	var candidates []*Route
	if extra != nil {
		candidates = append(candidates, extra)
	}
	methods := methodsServed(r)
	p := r.pattern()
	t.served.tree(r.MatchHost()).related(&p, 0, true, func(s *Route) {
		if s.ID != without && s.ID != r.ID {
			candidates = append(candidates, s)
		}
	})
	var by []*Route
	for _, m := range methods {
		taken := slices.ContainsFunc(by, func(s *Route) bool { return s.takes(r, m) })
		if taken {
			continue
		}
		i := slices.IndexFunc(candidates, func(s *Route) bool { return s.takes(r, m) })
		if i < 0 {
			return nil
		}
		by = append(by, candidates[i])
	}
	// One route is the better explanation, if one is enough.
	for _, s := range candidates {
		if !slices.ContainsFunc(methods, func(m string) bool { return !s.takes(r, m) }) {
			return []*Route{s}
		}
	}
	return by
}

// methodsServed returns the methods that reach a route if nothing comes before it;
// "*" stands for all that nobody names.
func methodsServed(r *Route) []string {
	names := r.Methods().Names()
	if r.bits&(bitGet|bitHead) == bitGet {
		names = append(names, http.MethodHead)
	}
	return names
}

// takes reports whether s comes before r on every request with this method that r
// matches. The pattern of s matches all that the one of r does, for the same host.
func (s *Route) takes(r *Route, method string) bool {
	bit := methodBit(method)
	if method == "*" {
		bit = bitAll
	}
	sRank, rRank := s.rank(method, bit), r.rank(method, bit)
	if sRank == methodNone || !implied(s.extras().headers, r.extras().headers) || !implied(s.extras().query, r.extras().query) {
		return false
	}
	if c := s.comparePatterns(r); c != 0 {
		return c < 0
	}
	if sRank != rRank {
		return sRank < rRank
	}
	return s.compareRest(r) < 0
}

// implied reports whether all predicates hold whenever all of given do.
func implied(predicates, given []predicate) bool {
	for _, p := range predicates {
		if !slices.ContainsFunc(given, func(g predicate) bool {
			return g.name == p.name && (p.value == g.value || p.value == "*")
		}) {
			return false
		}
	}
	return true
}

// matchesAll reports whether the regexp is known to match every segment. Canonical
// paths hold no line feed, so a dot matches everything in them.
func matchesAll(source string) bool { return source == ".*" || source == ".+" }

// related calls visit with routes of a tree whose patterns match all that p does
// (wider), or whose patterns match nothing but what p does.
func (t tree) related(p *Pattern, depth int, wider bool, visit func(*Route)) {
	if list := t.tail(); list != nil {
		o := list[0].pattern()
		if wider && o.coversFrom(p, depth) || !wider && p.coversFrom(&o, depth) {
			visitAll(list, visit)
		}
		return
	}
	n := t.node
	if n == nil {
		return
	}
	// Only equal literals are related to literals.
	if _, ok := n.cutSkip(p.textFrom(depth)); !ok {
		return
	}
	depth += int(n.skipped)
	if l := n.list(p, depth); l != nil {
		visitAll(*l, visit)
		return
	}
	n.child(p, depth).related(p, p.below(depth), wider, visit)
	if p.kindAt(depth) == kindLiteral {
		return
	}
	source := "" // of a parameter
	if p.kindAt(depth) == kindExpr {
		source = p.source(p.segs.at(depth))
	}
	if !wider && matchesAll(source) {
		n.param.related(p, depth+1, wider, visit)
	}
	for _, x := range n.exprs {
		if x.source != source && (wider && matchesAll(x.source) || !wider && matchesAll(source)) {
			x.tree.related(p, depth+1, wider, visit)
		}
	}
}

// coversFrom reports whether p, from the given segment on, is known to match all
// that o matches and to be no less specific.
func (p *Pattern) coversFrom(o *Pattern, depth int) bool {
	if p.segs.len() != o.segs.len() {
		return false
	}
	for i, s := range p.segs.all(depth) {
		other := o.segs.kind(i)
		anyOne := s.kind == kindExpr && matchesAll(p.source(s)) && (other == kindExpr || other == kindParam)
		if !anyOne && !p.sameSegment(o, i) {
			return false
		}
	}
	return true
}
