package routing

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// pmap is a persistent map: a copy of the struct is a snapshot that later changes
// to the original leave alone, and both share what is equal. The zero value is
// empty. It is a hash array mapped trie in the layout of Steindorfer and Vinju,
// "Optimizing Hash-Array Mapped Tries for Fast and Lean Immutable JVM Collections"
// (2015), with 64-way nodes.
//
// Reading a snapshot is safe for concurrent use, as long as nobody changes it under
// an edit that has made any of its nodes.
type pmap[K comparable, V any] struct {
	root *hnode[K, V]
	size int
}

// edit marks the nodes that one series of changes has made itself and may change
// in place, since no snapshot has them yet.
type edit struct{ _ byte }

const (
	hashStep = 6  // bits of the hash per level
	hashBits = 64 // levels below this many used bits hold keys with equal hashes
)

type hnode[K comparable, V any] struct {
	data  uint64 // which slots hold a pair
	below uint64 // which slots hold a node
	pairs []pair[K, V]
	nodes []*hnode[K, V]
	owner *edit
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

var hashSeed = maphash.MakeSeed()

func hashOf[K comparable](key K) uint64 { return maphash.Comparable(hashSeed, key) }

func (m *pmap[K, V]) get(key K) (value V, ok bool) {
	if m.root == nil {
		return value, false
	}
	return m.root.get(hashOf(key), key)
}

func (m *pmap[K, V]) set(e *edit, key K, value V) {
	if m.root == nil {
		m.root = &hnode[K, V]{owner: e}
	}
	root, added := m.root.set(e, 0, hashOf(key), hashOf[K], key, value)
	m.root = root
	if added {
		m.size++
	}
}

func (m *pmap[K, V]) remove(e *edit, key K) {
	if m.root == nil {
		return
	}
	root, removed := m.root.remove(e, 0, hashOf(key), key)
	if !removed {
		return
	}
	if m.size--; m.size == 0 {
		root = nil
	}
	m.root = root
}

// all yields the pairs in an order that differs from process to process.
func (m *pmap[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.all(yield)
		}
	}
}

func (n *hnode[K, V]) all(yield func(K, V) bool) bool {
	for i := range n.pairs {
		if !yield(n.pairs[i].key, n.pairs[i].value) {
			return false
		}
	}
	for _, sub := range n.nodes {
		if !sub.all(yield) {
			return false
		}
	}
	return true
}

// slot returns the bit of a hash at a level.
func slot(shift uint, hash uint64) uint64 { return 1 << (hash >> shift & (1<<hashStep - 1)) }

// index counts the slots of a bitmap before one.
func index(bitmap, bit uint64) int { return bits.OnesCount64(bitmap & (bit - 1)) }

func (n *hnode[K, V]) get(hash uint64, key K) (value V, ok bool) {
	for shift := uint(0); shift < hashBits; shift += hashStep {
		bit := slot(shift, hash)
		if n.data&bit != 0 {
			if p := &n.pairs[index(n.data, bit)]; p.key == key {
				return p.value, true
			}
			return value, false
		}
		if n.below&bit == 0 {
			return value, false
		}
		n = n.nodes[index(n.below, bit)]
	}
	for i := range n.pairs {
		if n.pairs[i].key == key {
			return n.pairs[i].value, true
		}
	}
	return value, false
}

// own returns n if the edit has made it, else a copy that it may change.
func (n *hnode[K, V]) own(e *edit) *hnode[K, V] {
	if n.owner == e {
		return n
	}
	c := *n
	c.owner = e
	c.pairs = slices.Clone(n.pairs)
	c.nodes = slices.Clone(n.nodes)
	return &c
}

// set returns the node with the pair set. rehash gives the hash of a pair that has
// to move down.
func (n *hnode[K, V]) set(e *edit, shift uint, hash uint64, rehash func(K) uint64, key K, value V) (_ *hnode[K, V], added bool) {
	n = n.own(e)
	if shift >= hashBits {
		for i := range n.pairs {
			if n.pairs[i].key == key {
				n.pairs[i].value = value
				return n, false
			}
		}
		n.pairs = append(n.pairs, pair[K, V]{key, value})
		return n, true
	}
	bit := slot(shift, hash)
	switch {
	case n.below&bit != 0:
		i := index(n.below, bit)
		n.nodes[i], added = n.nodes[i].set(e, shift+hashStep, hash, rehash, key, value)
		return n, added
	case n.data&bit == 0:
		n.pairs = insertExact(n.pairs, index(n.data, bit), pair[K, V]{key, value})
		n.data |= bit
		return n, true
	}
	i := index(n.data, bit)
	old := n.pairs[i]
	if old.key == key {
		n.pairs[i].value = value
		return n, false
	}
	sub := &hnode[K, V]{owner: e}
	sub, _ = sub.set(e, shift+hashStep, rehash(old.key), rehash, old.key, old.value)
	sub, _ = sub.set(e, shift+hashStep, hash, rehash, key, value)
	n.pairs = slices.Delete(n.pairs, i, i+1)
	n.data &^= bit
	n.nodes = insertExact(n.nodes, index(n.below, bit), sub)
	n.below |= bit
	return n, true
}

// remove returns the node without the key.
func (n *hnode[K, V]) remove(e *edit, shift uint, hash uint64, key K) (_ *hnode[K, V], removed bool) {
	if shift >= hashBits {
		i := slices.IndexFunc(n.pairs, func(p pair[K, V]) bool { return p.key == key })
		if i < 0 {
			return n, false
		}
		n = n.own(e)
		n.pairs = slices.Delete(n.pairs, i, i+1)
		return n, true
	}
	bit := slot(shift, hash)
	if n.data&bit != 0 {
		i := index(n.data, bit)
		if n.pairs[i].key != key {
			return n, false
		}
		n = n.own(e)
		n.pairs = slices.Delete(n.pairs, i, i+1)
		n.data &^= bit
		return n, true
	}
	if n.below&bit == 0 {
		return n, false
	}
	i := index(n.below, bit)
	sub, removed := n.nodes[i].remove(e, shift+hashStep, hash, key)
	if !removed {
		return n, false
	}
	n = n.own(e)
	if len(sub.nodes) > 0 || len(sub.pairs) != 1 {
		n.nodes[i] = sub
		return n, true
	}
	// A node with one pair is not worth its level.
	n.nodes = slices.Delete(n.nodes, i, i+1)
	n.below &^= bit
	n.pairs = insertExact(n.pairs, index(n.data, bit), sub.pairs[0])
	n.data |= bit
	return n, true
}

// insertExact inserts v into a copy of s with no room to spare: there are very many
// of these slices, and few ever grow again.
func insertExact[T any](s []T, i int, v T) []T {
	c := make([]T, len(s)+1)
	copy(c, s[:i])
	c[i] = v
	copy(c[i+1:], s[i:])
	return c
}
