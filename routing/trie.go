package routing

import (
	"hash/maphash"
	"math/bits"
	"regexp"
	"slices"
	"strings"
)

// tree is the routes below one sequence of segments. It is empty, one route, or a
// node. In a table nothing below it is ever changed, except by the edit that has
// made it. Its shape is about the number of places in memory that a match has to
// look at, since in a large table each of them costs more than all else.
type tree struct {
	one  *Route
	node *node
}

// node is a tree of two or more routes, or one that once was. It is either a tail,
// whose routes have one pattern that is compared as a whole from here on, or a
// branch. A tail compares all of what is left, so it may move up and down.
//
// The literal segments of a pattern up to the next of another kind are a run, and lead
// to one child together: most routes are then found by one hash of their path's first
// segments, whatever their number. A child that is a branch knows the run that leads to
// it, a tail has it in its pattern.
type node struct {
	isTail bool

	// Of a branch only; first what every match reads.
	skipped  uint8 // segments of the run that leads here; 0 if another kind does
	runs     uint8 // bit k-1: there are literal children by runs of k segments
	literals hashIndex[tree]
	skip     string // the text of the run that leads here, "/api/v1"
	param    tree
	exprs    []exprChild
	rests    []*Route // whose pattern has its rest here

	routes []*Route        // of a tail; or whose pattern ends here
	counts *[maxRun]uint32 // of literal children, by runs of 1 segment and up
	owner  *edit
}

// maxRun bounds the segments of a run. What is longer is one run behind another.
const maxRun = 8

type exprChild struct {
	source string
	re     *regexp.Regexp
	tree   tree
}

func (t tree) isEmpty() bool { return t.one == nil && t.node == nil }

// tail returns the routes of a tree that has only one pattern, nil for others.
func (t tree) tail() []*Route {
	switch {
	case t.one != nil:
		return []*Route{t.one}
	case t.node != nil && t.node.isTail:
		return t.node.routes
	}
	return nil
}

// tailOf returns the tree of routes with the same pattern.
func tailOf(list []*Route) tree {
	switch len(list) {
	case 0:
		return tree{}
	case 1:
		return tree{one: list[0]}
	}
	return tree{node: &node{isTail: true, routes: list}}
}

func (n *node) own(e *edit) *node {
	if n.owner == e {
		return n
	}
	c := *n
	c.owner = e
	c.exprs = slices.Clone(n.exprs)
	if n.counts != nil {
		counts := *n.counts
		c.counts = &counts
	}
	return &c
}

// hashRun adds a segment to the hash of those before it, 0 for none.
func hashRun(hash uint64, seg string) uint64 {
	return max((bits.RotateLeft64(hash, 7)^maphash.String(hashSeed, seg))*0x9e3779b97f4a7c15, 1)
}

// run returns how many literal segments there are from depth on, at most maxRun.
func (p *Pattern) run(depth int) int {
	n := 0
	for n < maxRun && p.kindAt(depth+n) == kindLiteral {
		n++
	}
	return n
}

// runText returns the text of a run, with the slash before it.
func (p *Pattern) runText(depth, run int) string {
	if run == 0 {
		return ""
	}
	return p.text[p.segs.end(depth-1):p.segs.end(depth+run-1)]
}

func (p *Pattern) hashRun(depth, run int) (hash uint64) {
	for i := depth; i < depth+run; i++ {
		hash = hashRun(hash, p.literal(p.segs.at(i)))
	}
	return hash
}

// hasRun reports whether the tree, a literal child at depth, is the one by this run.
func (t tree) hasRun(text string, depth, run int) bool {
	if list := t.tail(); list != nil {
		p := list[0].pattern()
		return p.run(depth) == run && p.runText(depth, run) == text
	}
	return int(t.node.skipped) == run && t.node.skip == text
}

// literal returns the child that the pattern's run at depth leads to.
func (n *node) literal(p *Pattern, depth int) tree {
	if n.runs == 0 {
		return tree{}
	}
	run := p.run(depth)
	text := p.runText(depth, run)
	t, _ := n.literals.get(p.hashRun(depth, run), func(t tree) bool { return t.hasRun(text, depth, run) })
	return t
}

// setLiteral sets or, with an empty tree, removes a child of a node that the edit owns.
func (n *node) setLiteral(e *edit, p *Pattern, depth int, t tree) {
	run := p.run(depth)
	text, hash := p.runText(depth, run), p.hashRun(depth, run)
	is := func(t tree) bool { return t.hasRun(text, depth, run) }
	if n.counts == nil {
		n.counts = new([maxRun]uint32)
	}
	count := &n.counts[run-1]
	switch {
	case !t.isEmpty():
		if n.literals.put(e, hash, is, t) {
			*count++
		}
	case n.literals.drop(e, hash, is):
		*count--
	}
	if *count > 0 {
		n.runs |= 1 << (run - 1)
	} else {
		n.runs &^= 1 << (run - 1)
	}
}

func (n *node) exprIndex(source string) int {
	return slices.IndexFunc(n.exprs, func(x exprChild) bool { return x.source == source })
}

func (n *node) expr(source string) tree {
	if i := n.exprIndex(source); i >= 0 {
		return n.exprs[i].tree
	}
	return tree{}
}

func (n *node) setExpr(source string, re *regexp.Regexp, t tree) {
	i := n.exprIndex(source)
	switch {
	case i >= 0 && t.isEmpty():
		n.exprs = slices.Delete(n.exprs, i, i+1)
	case i >= 0:
		n.exprs[i].tree = t
	case !t.isEmpty():
		n.exprs = insertExact(n.exprs, len(n.exprs), exprChild{source, re, t})
	}
}

// list returns where the node keeps the routes whose pattern ends at depth or has
// its rest there, nil if the pattern goes on.
func (n *node) list(p *Pattern, depth int) *[]*Route {
	switch p.kindAt(depth) {
	case kindEnd:
		return &n.routes
	case kindRest:
		return &n.rests
	}
	return nil
}

// child returns the tree that the pattern leads to from depth on.
func (n *node) child(p *Pattern, depth int) tree {
	s := p.segs.at(depth)
	switch s.kind {
	case kindLiteral:
		return n.literal(p, depth)
	case kindExpr:
		return n.expr(p.source(s))
	}
	return n.param
}

// setChild replaces that tree in a node that the edit owns.
func (n *node) setChild(e *edit, p *Pattern, depth int, t tree) {
	s := p.segs.at(depth)
	switch s.kind {
	case kindLiteral:
		n.setLiteral(e, p, depth, t)
	case kindExpr:
		n.setExpr(p.source(s), p.expr(depth), t)
	default:
		n.param = t
	}
}

// below returns the depth at which a child of a node at depth begins: a literal one
// with its run.
func (p *Pattern) below(depth int) int {
	if p.kindAt(depth) == kindLiteral {
		return depth
	}
	return depth + 1
}

// cutSkip returns what follows the segments that a branch skips in rest, which is
// a path or the text of a pattern, empty or with a slash at its start.
func (n *node) cutSkip(rest string) (string, bool) {
	after, ok := strings.CutPrefix(rest, n.skip)
	return after, ok && (after == "" || after[0] == '/')
}

// addRoute returns list with r, in the order of compareRest.
func addRoute(list []*Route, r *Route) []*Route {
	i, _ := slices.BinarySearchFunc(list, r, (*Route).compareRest)
	return insertExact(list, i, r)
}

// dropRoute returns list without r.
func dropRoute(list []*Route, r *Route) []*Route {
	i := slices.Index(list, r)
	if i < 0 {
		return list
	}
	return slices.Concat(list[:i], list[i+1:])
}

// insert returns the tree with r, whose pattern is p. The segments of p before depth are
// those on the way to it, but for a run of so many that leads to it.
func (t tree) insert(e *edit, r *Route, p *Pattern, depth, run int) tree {
	if t.isEmpty() {
		return tree{one: r}
	}
	var n *node
	if list := t.tail(); list != nil {
		first := list[0].pattern()
		if first.sameFrom(p, depth) {
			return tailOf(addRoute(list, r))
		}
		n = &node{owner: e, skipped: uint8(run), skip: first.runText(depth, run)}
		if l := n.list(&first, depth+run); l != nil {
			*l = list
		} else {
			n.setChild(e, &first, depth+run, t)
		}
	} else {
		n = t.node.own(e)
	}
	depth += run
	if l := n.list(p, depth); l != nil {
		*l = addRoute(*l, r)
	} else {
		n.setChild(e, p, depth, n.child(p, depth).insert(e, r, p, p.below(depth), p.run(depth)))
	}
	return tree{node: n}
}

// remove returns the tree without r, which it holds and whose pattern is p.
func (t tree) remove(e *edit, r *Route, p *Pattern, depth int) tree {
	if list := t.tail(); list != nil {
		return tailOf(dropRoute(list, r))
	}
	n := t.node.own(e)
	depth += int(n.skipped)
	if l := n.list(p, depth); l != nil {
		*l = dropRoute(*l, r)
	} else {
		n.setChild(e, p, depth, n.child(p, depth).remove(e, r, p, p.below(depth)))
	}
	return n.shrink()
}

// shrink returns the tree of a branch, without the branch if it has become needless.
func (n *node) shrink() tree {
	children := n.literals.size + len(n.exprs)
	if !n.param.isEmpty() {
		children++
	}
	if len(n.routes) > 0 {
		children++
	}
	if len(n.rests) > 0 {
		children++
	}
	if children > 1 {
		return tree{node: n}
	}
	only := n.param
	switch {
	case len(n.routes) > 0:
		return tailOf(n.routes)
	case len(n.rests) > 0:
		return tailOf(n.rests)
	case len(n.exprs) > 0:
		only = n.exprs[0].tree
	case n.literals.size > 0:
		for s := range n.literals.all() {
			only = s.value
		}
	}
	if only.isEmpty() || only.tail() != nil {
		return only
	}
	return tree{node: n}
}

// find returns the routes with the same pattern, but for names.
func (t tree) find(p *Pattern) []*Route {
	for depth := 0; ; {
		if list := t.tail(); list != nil {
			if o := list[0].pattern(); o.sameFrom(p, depth) {
				return list
			}
			return nil
		}
		n := t.node
		if n == nil {
			return nil
		}
		if _, ok := n.cutSkip(p.textFrom(depth)); !ok {
			return nil
		}
		depth += int(n.skipped)
		if l := n.list(p, depth); l != nil {
			return *l
		}
		t = n.child(p, depth)
		depth = p.below(depth)
	}
}
