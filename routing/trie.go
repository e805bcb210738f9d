package routing

import (
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
type node struct {
	isTail bool

	// Of a branch only; first what every match reads.
	skipped  uint8    // literal segments that all routes have in common
	skip     string   // their text, "/api/v1"
	few      []kid    // literal children, while there are few
	literals literals // all of them, once there are more
	param    tree
	exprs    []exprChild
	rests    []*Route // whose pattern has its rest here

	routes []*Route // of a tail; or whose pattern ends here
	owner  *edit
}

type literals = pmap[string, tree]

// kid is a literal child. Its text is kept twice, since the head of it lies beside
// its neighbours in memory.
type kid struct {
	head head
	tree tree
	text string
}

// head is the first bytes of a text and its length, at most 255.
type head [16]byte

func headOf(text string) (h head) {
	copy(h[:len(h)-1], text)
	h[len(h)-1] = byte(min(len(text), 255))
	return h
}

// is reports whether the kid's text is this one, with this head.
func (k *kid) is(h head, text string) bool {
	return k.head == h && (len(text) < len(h) || k.text == text)
}

// maxFew is up to how many texts are found faster one by one than by a hash;
// maxSkip fits its field.
const (
	maxFew  = 8
	maxSkip = 255
)

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
	c.few = slices.Clone(n.few)
	c.exprs = slices.Clone(n.exprs)
	return &c
}

func (n *node) literal(text string) tree {
	if len(n.few) > 0 {
		h := headOf(text)
		for i := range n.few {
			if k := &n.few[i]; k.is(h, text) {
				return k.tree
			}
		}
		return tree{}
	}
	if n.literals.size == 0 {
		return tree{}
	}
	t, _ := n.literals.get(text)
	return t
}

// setLiteral sets or, with an empty tree, removes a child of a node that the edit owns.
func (n *node) setLiteral(e *edit, text string, t tree) {
	i := slices.IndexFunc(n.few, func(k kid) bool { return k.text == text })
	switch {
	case i >= 0 && t.isEmpty():
		n.few = slices.Delete(n.few, i, i+1)
	case i >= 0:
		n.few[i].tree = t
	case n.literals.size > 0 && t.isEmpty():
		n.literals.remove(e, text)
	case n.literals.size > 0:
		n.literals.set(e, text, t)
	case t.isEmpty():
	case len(n.few) < maxFew:
		n.few = insertExact(n.few, len(n.few), kid{headOf(text), t, text})
	default:
		for _, k := range n.few {
			n.literals.set(e, k.text, k.tree)
		}
		n.few = nil
		n.literals.set(e, text, t)
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

// child returns the tree that segment depth of the pattern leads to.
func (n *node) child(p *Pattern, depth int) tree {
	s := p.segs[depth]
	switch s.kind {
	case kindLiteral:
		return n.literal(p.literal(s))
	case kindExpr:
		return n.expr(p.source(s))
	}
	return n.param
}

// setChild replaces that tree in a node that the edit owns.
func (n *node) setChild(e *edit, p *Pattern, depth int, t tree) {
	s := p.segs[depth]
	switch s.kind {
	case kindLiteral:
		n.setLiteral(e, p.literal(s), t)
	case kindExpr:
		n.setExpr(p.source(s), p.expr(depth), t)
	default:
		n.param = t
	}
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

// insert returns the tree with r. The segments of r's pattern before depth are
// those on the way to it.
func (t tree) insert(e *edit, r *Route, depth int) tree {
	if t.isEmpty() {
		return tree{one: r}
	}
	var n *node
	if list := t.tail(); list != nil {
		first := &list[0].pattern
		if first.sameFrom(&r.pattern, depth) {
			return tailOf(addRoute(list, r))
		}
		n = newBranch(e, first, depth, first.sharedLiterals(&r.pattern, depth))
		if l := n.list(first, depth+int(n.skipped)); l != nil {
			*l = list
		} else {
			n.setChild(e, first, depth+int(n.skipped), t)
		}
	} else {
		n = t.node.own(e)
		if _, ok := n.cutSkip(r.pattern.textFrom(depth)); !ok {
			n = n.split(e, r, depth)
		}
	}
	depth += int(n.skipped)
	if l := n.list(&r.pattern, depth); l != nil {
		*l = addRoute(*l, r)
	} else {
		n.setChild(e, &r.pattern, depth, n.child(&r.pattern, depth).insert(e, r, depth+1))
	}
	return tree{node: n}
}

// newBranch returns an empty branch that skips the next literal segments of p.
func newBranch(e *edit, p *Pattern, depth, skipped int) *node {
	skipped = min(skipped, maxSkip)
	n := &node{owner: e, skipped: uint8(skipped)}
	if skipped > 0 {
		n.skip = p.text[p.segs[depth].start-1 : p.segs[depth+skipped-1].end]
	}
	return n
}

// split puts a branch over n, which the edit owns, that skips only what r's pattern
// has in common with it.
func (n *node) split(e *edit, r *Route, depth int) *node {
	over := &node{owner: e}
	skip, pattern := n.skip, r.pattern.textFrom(depth)
	for {
		seg, after := cutSegment(skip)
		if rest, ok := strings.CutPrefix(pattern, "/"+seg); ok && (rest == "" || rest[0] == '/') {
			skip, pattern = after, rest
			over.skipped++
			continue
		}
		over.skip = n.skip[:len(n.skip)-len(skip)]
		n.skip = after
		n.skipped -= over.skipped + 1
		over.setLiteral(e, seg, tree{node: n})
		return over
	}
}

// remove returns the tree without r, which it holds.
func (t tree) remove(e *edit, r *Route, depth int) tree {
	if list := t.tail(); list != nil {
		return tailOf(dropRoute(list, r))
	}
	n := t.node.own(e)
	depth += int(n.skipped)
	if l := n.list(&r.pattern, depth); l != nil {
		*l = dropRoute(*l, r)
	} else {
		n.setChild(e, &r.pattern, depth, n.child(&r.pattern, depth).remove(e, r, depth+1))
	}
	return n.shrink()
}

// shrink returns the tree of a branch, without the branch if it has become needless.
func (n *node) shrink() tree {
	children := len(n.few) + n.literals.size + len(n.exprs)
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
	case len(n.few) > 0:
		only = n.few[0].tree
	case len(n.exprs) > 0:
		only = n.exprs[0].tree
	case n.literals.size > 0:
		for _, only = range n.literals.all() {
		}
	}
	if only.isEmpty() || only.tail() != nil {
		return only
	}
	return tree{node: n}
}

// find returns the routes with the same pattern, but for names.
func (t tree) find(p *Pattern) []*Route {
	for depth := 0; ; depth++ {
		if list := t.tail(); list != nil {
			if list[0].pattern.sameFrom(p, depth) {
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
	}
}
