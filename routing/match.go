package routing

import "strings"

// forest is the routes of a table by host.
type forest struct {
	anyHost tree
	exact   pmap[string, tree]
	wild    pmap[string, tree] // by what follows the "*": ".example.com"
}

// tree returns the routes of exactly this host pattern.
func (f *forest) tree(host string) tree {
	if host == "" {
		return f.anyHost
	}
	trees := &f.exact
	suffix, isWild := strings.CutPrefix(host, "*")
	if isWild {
		trees = &f.wild
	}
	t, _ := trees.get(suffix)
	return t
}

func (f *forest) setTree(e *edit, host string, t tree) {
	if host == "" {
		f.anyHost = t
		return
	}
	trees := &f.exact
	suffix, isWild := strings.CutPrefix(host, "*")
	if isWild {
		trees = &f.wild
	}
	if t.isEmpty() {
		trees.remove(e, suffix)
	} else {
		trees.set(e, suffix, t)
	}
}

func (f *forest) add(e *edit, r *Route) {
	f.setTree(e, r.host, f.tree(r.host).insert(e, r, 0))
}

func (f *forest) drop(e *edit, r *Route) {
	f.setTree(e, r.host, f.tree(r.host).remove(e, r, 0))
}

// levels calls visit with the trees of a request's host, the most specific first,
// until it returns false.
func (f *forest) levels(host string, visit func(tree) bool) {
	// Longer hosts are nobody's, and looking them up label by label would cost
	// the square of their length.
	if host != "" && len(host) <= maxHost {
		if t, ok := f.exact.get(host); ok && !visit(t) {
			return
		}
		if f.wild.size > 0 {
			for i := 1; i < len(host); i++ {
				if host[i] != '.' {
					continue
				}
				if t, ok := f.wild.get(host[i:]); ok && !visit(t) {
					return
				}
			}
		}
	}
	if !f.anyHost.isEmpty() {
		visit(f.anyHost)
	}
}

// search is one walk through a table.
type search struct {
	q   *Request
	bit methodBits // of the request's method
}

// match returns the best route for the request.
func (f *forest) match(q *Request) *Route {
	s := search{q: q, bit: methodBit(q.Method)}
	var found *Route
	f.levels(q.Host, func(t tree) bool {
		found = s.below(t, 0, q.Path)
		return found == nil
	})
	return found
}

// below returns the best route of a tree; rest is what is left of the path.
func (s *search) below(t tree, depth int, rest string) *Route {
	if r := t.one; r != nil {
		if r.pattern.matchFrom(depth, rest) && r.methods.rank(s.q.Method, s.bit) != methodNone && r.predicatesHold(s.q) {
			return r
		}
		return nil
	}
	n := t.node
	if n.isTail {
		if !n.routes[0].pattern.matchFrom(depth, rest) {
			return nil
		}
		return s.pick(n.routes)
	}
	if n.skipped > 0 {
		var ok bool
		if rest, ok = n.cutSkip(rest); !ok {
			return nil
		}
		depth += int(n.skipped)
	}
	if rest == "" {
		if r := s.pick(n.routes); r != nil {
			return r
		}
		return s.pick(n.rests)
	}
	seg, after := cutSegment(rest)
	if child := n.literal(seg); !child.isEmpty() {
		if r := s.below(child, depth+1, after); r != nil {
			return r
		}
	}
	if seg != "" {
		if len(n.exprs) > 0 {
			if r := s.exprs(n.exprs, depth, seg, after); r != nil {
				return r
			}
		}
		if !n.param.isEmpty() {
			if r := s.below(n.param, depth+1, after); r != nil {
				return r
			}
		}
	}
	return s.pick(n.rests)
}

// exprs returns the best route below all regexps that match the segment: they are
// even here, so what follows decides.
func (s *search) exprs(children []exprChild, depth int, seg, after string) *Route {
	var best *Route
	text := unescapeSegment(seg)
	for i := range children {
		x := &children[i]
		if !x.re.MatchString(text) {
			continue
		}
		if r := s.below(x.tree, depth+1, after); r != nil && (best == nil || s.before(r, best)) {
			best = r
		}
	}
	return best
}

// before reports whether a comes before b, both of which match the request.
func (s *search) before(a, b *Route) bool {
	if c := a.pattern.compare(&b.pattern); c != 0 {
		return c < 0
	}
	ra, rb := a.methods.rank(s.q.Method, s.bit), b.methods.rank(s.q.Method, s.bit)
	if ra != rb {
		return ra < rb
	}
	return a.compareRest(b) < 0
}

// pick returns the best of routes with one pattern, which come in the order of
// compareRest.
func (s *search) pick(list []*Route) *Route {
	var best *Route
	bestRank := methodNone
	for _, r := range list {
		rank := r.methods.rank(s.q.Method, s.bit)
		if rank < bestRank && r.predicatesHold(s.q) {
			best, bestRank = r, rank
			if rank == methodNamed {
				break
			}
		}
	}
	return best
}

// each calls visit with every route of a tree whose pattern matches rest.
func (t tree) each(depth int, rest string, visit func(*Route)) {
	if list := t.tail(); list != nil {
		if list[0].pattern.matchFrom(depth, rest) {
			visitAll(list, visit)
		}
		return
	}
	n := t.node
	if n == nil {
		return
	}
	rest, ok := n.cutSkip(rest)
	if !ok {
		return
	}
	depth += int(n.skipped)
	visitAll(n.rests, visit)
	if rest == "" {
		visitAll(n.routes, visit)
		return
	}
	seg, after := cutSegment(rest)
	n.literal(seg).each(depth+1, after, visit)
	if seg == "" {
		return
	}
	n.param.each(depth+1, after, visit)
	if len(n.exprs) == 0 {
		return
	}
	text := unescapeSegment(seg)
	for _, x := range n.exprs {
		if x.re.MatchString(text) {
			x.tree.each(depth+1, after, visit)
		}
	}
}

func visitAll(list []*Route, visit func(*Route)) {
	for _, r := range list {
		visit(r)
	}
}
