package routing

import (
	"iter"
	"slices"
)

// byID is routes by the ids of their rows. It is a persistent radix tree: a copy of the
// struct is a snapshot, as with pmap. The zero value is empty.
//
// Databases count ids up. So rows that were read together, whose routes are side by side
// in memory, are so in here too, and whoever visits all of them, above all the garbage
// collector, goes through memory from one end to the other.
type byID struct {
	root   *idNode // nil if there are no routes
	height int     // levels below the root
	size   int
}

// idNode has the routes, or on upper levels the nodes, for 64 values of one digit of an
// id, which has the base 64.
type idNode struct {
	used   uint64 // which values are there; what they lead to is in their order
	routes []*Route
	below  []*idNode
	owner  *edit
}

// digit returns the digit of an id at a height as the bit in idNode.used.
func digit(id int64, height int) uint64 { return slot(uint(hashStep*height), uint64(id)) }

// covers reports whether ids of this size fit below the root.
func (m *byID) covers(id int64) bool { return uint64(id)>>(hashStep*(m.height+1)) == 0 }

func (m *byID) get(id int64) (*Route, bool) {
	n := m.root
	if n == nil || !m.covers(id) {
		return nil, false
	}
	for height := m.height; ; height-- {
		bit := digit(id, height)
		if n.used&bit == 0 {
			return nil, false
		}
		i := index(n.used, bit)
		if height == 0 {
			return n.routes[i], true
		}
		n = n.below[i]
	}
}

func (m *byID) set(e *edit, r *Route) {
	if m.root == nil {
		*m = byID{root: &idNode{owner: e}}
	}
	for ; !m.covers(r.ID); m.height++ {
		if m.size > 0 {
			m.root = &idNode{used: 1, below: []*idNode{m.root}, owner: e}
		}
	}
	m.root = m.root.own(e)
	if m.root.set(e, m.height, r) {
		m.size++
	}
}

func (m *byID) remove(e *edit, id int64) {
	if _, ok := m.get(id); !ok {
		return
	}
	m.root = m.root.remove(e, m.height, id)
	m.size--
}

// from yields the routes whose ids are at least first, by id. Ids below 0 count as the
// highest.
func (m *byID) from(first int64) iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		if m.root != nil && m.covers(first) {
			m.root.each(m.height, first, yield)
		}
	}
}

func (m *byID) all() iter.Seq[*Route] { return m.from(0) }

func (m *byID) len() int { return m.size }

// own returns n if the edit has made it, else a copy that it may change.
func (n *idNode) own(e *edit) *idNode {
	if n.owner == e {
		return n
	}
	return &idNode{used: n.used, routes: slices.Clone(n.routes), below: slices.Clone(n.below), owner: e}
}

// set sets a route in a node that the edit owns, and reports whether there was none with
// its id.
func (n *idNode) set(e *edit, height int, r *Route) (added bool) {
	bit := digit(r.ID, height)
	i, there := index(n.used, bit), n.used&bit != 0
	n.used |= bit
	switch {
	case height == 0 && there:
		n.routes[i] = r
		return false
	case height == 0:
		n.routes = slices.Insert(n.routes, i, r)
		return true
	case there:
		n.below[i] = n.below[i].own(e)
	default:
		n.below = slices.Insert(n.below, i, &idNode{owner: e})
	}
	return n.below[i].set(e, height-1, r)
}

// remove returns the node without an id that it has, nil if that was the last.
func (n *idNode) remove(e *edit, height int, id int64) *idNode {
	n = n.own(e)
	bit := digit(id, height)
	i := index(n.used, bit)
	if height > 0 {
		if n.below[i] = n.below[i].remove(e, height-1, id); n.below[i] != nil {
			return n
		}
		n.below = slices.Delete(n.below, i, i+1)
	} else {
		n.routes = slices.Delete(n.routes, i, i+1)
	}
	if n.used &^= bit; n.used == 0 {
		return nil
	}
	return n
}

// each yields the routes whose lower digits are at least those of first.
func (n *idNode) each(height int, first int64, yield func(*Route) bool) bool {
	bit := digit(first, height)
	i := index(n.used, bit)
	if height == 0 {
		for _, r := range n.routes[i:] {
			if !yield(r) {
				return false
			}
		}
		return true
	}
	if n.used&bit != 0 {
		if !n.below[i].each(height-1, first, yield) {
			return false
		}
		i++
	}
	for _, sub := range n.below[i:] {
		if !sub.each(height-1, 0, yield) {
			return false
		}
	}
	return true
}
