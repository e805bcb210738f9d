package routing

import (
	"iter"
	"math/bits"
	"strings"
)

// forest is the routes of a table by host.
type forest struct {
	anyHost tree
	exact   sites
	wild    sites // by what follows the "*": ".example.com"
}

// sites are hosts by the hash of their text.
type sites struct{ hashIndex[*site] }

// site is a host with its routes. It is never changed.
type site struct {
	tree  tree
	size  uint8    // of short
	short [31]byte // the host, if it fits: one place less to look at
	long  string   // else
}

func newSite(host string, t tree) *site {
	s := &site{tree: t}
	if len(host) > len(s.short) {
		s.long = host
	} else {
		s.size = uint8(copy(s.short[:], host))
	}
	return s
}

func (s *site) is(host string) bool {
	if len(host) > len(s.short) {
		return s.long == host
	}
	return string(s.short[:s.size]) == host
}

func (s *site) host() string {
	if s.long != "" {
		return s.long
	}
	return string(s.short[:s.size])
}

// site returns a host's, nil for one without routes.
func (x *sites) site(host string) *site {
	hash := hashText(host)
	slots := x.leaf(hash)
	for i := seek(slots, hash, -1); i >= 0; i = seek(slots, hash, i) {
		if s := slots[i].value; s.is(host) {
			return s
		}
	}
	return nil
}

// sites returns where the forest has a host pattern other than "", and what it is there.
func (f *forest) sites(pattern string) (x *sites, host string) {
	if suffix, isWild := strings.CutPrefix(pattern, "*"); isWild {
		return &f.wild, suffix
	}
	return &f.exact, pattern
}

// tree returns the routes of exactly this host pattern.
func (f *forest) tree(pattern string) tree {
	if pattern == "" {
		return f.anyHost
	}
	x, host := f.sites(pattern)
	if s := x.site(host); s != nil {
		return s.tree
	}
	return tree{}
}

func (f *forest) setTree(e *edit, pattern string, t tree) {
	if pattern == "" {
		f.anyHost = t
		return
	}
	x, host := f.sites(pattern)
	is := func(s *site) bool { return s.is(host) }
	if t.isEmpty() {
		x.drop(e, hashText(host), is)
	} else {
		x.put(e, hashText(host), is, newSite(host, t))
	}
}

func (f *forest) add(e *edit, r *Route) {
	host, p := r.MatchHost(), r.pattern()
	was := f.tree(host)
	if is := was.insert(e, r, &p, 0, 0); is != was {
		f.setTree(e, host, is)
	}
}

func (f *forest) drop(e *edit, r *Route) {
	host, p := r.MatchHost(), r.pattern()
	f.setTree(e, host, f.tree(host).remove(e, r, &p, 0))
}

// levels yields the trees of a request's host, the most specific first.
func (f *forest) levels(host string) iter.Seq[tree] {
	return func(yield func(tree) bool) {
		// Longer hosts are nobody's, and looking them up label by label would cost
		// the square of their length.
		if host != "" && len(host) <= maxHost {
			if s := f.exact.site(host); s != nil && !yield(s.tree) {
				return
			}
			if f.wild.size > 0 {
				for i := 1; i < len(host); i++ {
					if host[i] != '.' {
						continue
					}
					if s := f.wild.site(host[i:]); s != nil && !yield(s.tree) {
						return
					}
				}
			}
		}
		if !f.anyHost.isEmpty() {
			yield(f.anyHost)
		}
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
	for t := range f.levels(q.Host) {
		if r := s.below(t, 0, q.Path); r != nil {
			return r
		}
	}
	return nil
}

// below returns the best route of a tree; rest is what is left of the path.
func (s *search) below(t tree, depth int, rest string) *Route {
	if r := t.one; r != nil {
		if r.matchFrom(depth, rest) && r.rank(s.q.Method, s.bit) != methodNone && r.predicatesHold(s.q) {
			return r
		}
		return nil
	}
	n := t.node
	if n.isTail {
		if !n.routes[0].matchFrom(depth, rest) {
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
	if n.runs != 0 {
		if r := s.literals(n, depth, rest); r != nil {
			return r
		}
	}
	seg, after := cutSegment(rest)
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

// literals returns the best route below the literal children, the longest run first: to
// have a literal segment where others have none is to be more specific.
func (s *search) literals(n *node, depth int, rest string) *Route {
	hashes, k := n.hashRuns(rest)
	for ; k > 0; k-- {
		if n.runs&(1<<(k-1)) == 0 {
			continue
		}
		hash := hashes[k-1]
		slots := n.literals.leaf(hash)
		for i := seek(slots, hash, -1); i >= 0; i = seek(slots, hash, i) {
			if r := s.below(slots[i].value, depth, rest); r != nil {
				return r
			}
		}
	}
	return nil
}

// hashRuns returns the hashes of the first segments of rest, up to the longest run that
// the branch has children by, and their number.
func (n *node) hashRuns(rest string) (hashes [maxRun]uint64, k int) {
	longest := bits.Len8(n.runs)
	hash := uint64(0)
	for k < longest && rest != "" {
		var seg string
		seg, rest = cutSegment(rest)
		hash = hashRun(hash, seg)
		hashes[k] = hash
		k++
	}
	return hashes, k
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
	if c := a.comparePatterns(b); c != 0 {
		return c < 0
	}
	ra, rb := a.rank(s.q.Method, s.bit), b.rank(s.q.Method, s.bit)
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
		rank := r.rank(s.q.Method, s.bit)
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
		if list[0].matchFrom(depth, rest) {
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
	hashes, k := n.hashRuns(rest)
	for ; k > 0; k-- {
		hash := hashes[k-1]
		slots := n.literals.leaf(hash)
		for i := seek(slots, hash, -1); i >= 0; i = seek(slots, hash, i) {
			slots[i].value.each(depth, rest, visit)
		}
	}
	seg, after := cutSegment(rest)
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
