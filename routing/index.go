package routing

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// hashIndex is a persistent map from hashes to values, as pmap is one from keys: a copy of
// the struct is a snapshot. It keeps no keys, since what it is used for has them where it
// has to look anyway: a caller compares what it finds, and goes on with seek if that is
// another's. So equal hashes cost time, never an answer. The zero value is empty.
//
// A match reads one place of it, or one more for every 64 times as many values: small
// ones are a list, larger ones a hash table in one piece, and beyond that 64 of the same
// kind by the hash's high bits, so that a change need not copy much.
type hashIndex[V any] struct {
	slots []hashSlot[V]
	subs  *[indexSubs]hashIndex[V] // instead of slots
	size  int
	owner *edit
}

// hashSlot is free if its hash is 0.
type hashSlot[V any] struct {
	hash  uint64
	value V
}

const (
	indexSubs = 1 << hashStep
	listMax   = 8   // so many slots are a list without free ones
	leafMax   = 256 // slots, of which three quarters may be taken
)

// hashText returns a hash of text under the process's seed.
func hashText(text string) uint64 { return max(maphash.String(hashSeed, text), 1) }

// subOf returns which of the parts at a level, which is counted from 0, has a hash.
func subOf(hash uint64, level int) uint64 {
	return hash >> (hashBits - hashStep*(level+1)) & (indexSubs - 1)
}

// leaf returns the slots to seek a hash in.
func (x *hashIndex[V]) leaf(hash uint64) []hashSlot[V] {
	for level := 0; x.subs != nil; level++ {
		x = &x.subs[subOf(hash, level)]
	}
	return x.slots
}

// seek returns the first slot with the hash behind slot from, which is one that seek
// has returned or -1 to begin with; -1 if there are no more.
func seek[V any](slots []hashSlot[V], hash uint64, from int) int {
	if len(slots) <= listMax {
		for i := from + 1; i < len(slots); i++ {
			if slots[i].hash == hash {
				return i
			}
		}
		return -1
	}
	mask := len(slots) - 1
	i := int(hash) & mask
	if from >= 0 {
		i = (from + 1) & mask
	}
	for slots[i].hash != hash {
		if slots[i].hash == 0 {
			return -1
		}
		i = (i + 1) & mask
	}
	return i
}

// get returns the value with the hash for which is returns true.
func (x *hashIndex[V]) get(hash uint64, is func(V) bool) (value V, ok bool) {
	slots := x.leaf(hash)
	for i := seek(slots, hash, -1); i >= 0; i = seek(slots, hash, i) {
		if is(slots[i].value) {
			return slots[i].value, true
		}
	}
	return value, false
}

func (x *hashIndex[V]) own(e *edit) {
	if x.owner == e {
		return
	}
	x.owner = e
	x.slots = slices.Clone(x.slots)
	if x.subs != nil {
		subs := *x.subs
		x.subs = &subs
	}
}

// put sets the value with the hash for which is returns true, and reports whether there
// was none.
func (x *hashIndex[V]) put(e *edit, hash uint64, is func(V) bool, value V) (added bool) {
	return x.putAt(e, 0, hash, is, value)
}

func (x *hashIndex[V]) putAt(e *edit, level int, hash uint64, is func(V) bool, value V) (added bool) {
	x.own(e)
	if x.subs != nil {
		if added = x.subs[subOf(hash, level)].putAt(e, level+1, hash, is, value); added {
			x.size++
		}
		return added
	}
	for i := seek(x.slots, hash, -1); i >= 0; i = seek(x.slots, hash, i) {
		if is(x.slots[i].value) {
			x.slots[i].value = value
			return false
		}
	}
	x.size++
	if n := slotsFor(x.size); n > len(x.slots) {
		if n > leafMax && (level+1)*hashStep < hashBits/2 {
			x.split(e, level)
			x.subs[subOf(hash, level)].putAt(e, level+1, hash, is, value)
			return true
		}
		x.rebuild(n, x.slots)
	}
	place(x.slots, hashSlot[V]{hash, value})
	return true
}

// slotsFor returns how many slots are made for so many values.
func slotsFor(size int) int {
	if size <= listMax {
		return size
	}
	return 1 << bits.Len(uint(size*4/3))
}

// place puts s into a free slot.
func place[V any](slots []hashSlot[V], s hashSlot[V]) {
	if len(slots) <= listMax {
		i := len(slots) - 1
		for slots[i].hash != 0 {
			i--
		}
		slots[i] = s
		return
	}
	mask := len(slots) - 1
	i := int(s.hash) & mask
	for slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	slots[i] = s
}

// rebuild makes n slots, with what is in those of from.
func (x *hashIndex[V]) rebuild(n int, from []hashSlot[V]) {
	x.slots = make([]hashSlot[V], n)
	for i := range from {
		if from[i].hash != 0 {
			place(x.slots, from[i])
		}
	}
}

// split moves what is in the slots one level down.
func (x *hashIndex[V]) split(e *edit, level int) {
	x.subs = new([indexSubs]hashIndex[V])
	never := func(V) bool { return false }
	for i := range x.slots {
		if s := &x.slots[i]; s.hash != 0 {
			x.subs[subOf(s.hash, level)].putAt(e, level+1, s.hash, never, s.value)
		}
	}
	x.slots = nil
}

// drop removes the value with the hash for which is returns true, and reports whether
// there was one.
func (x *hashIndex[V]) drop(e *edit, hash uint64, is func(V) bool) bool {
	if _, ok := x.get(hash, is); !ok {
		return false
	}
	x.dropAt(e, 0, hash, is)
	return true
}

// dropAt is drop of a value that is there.
func (x *hashIndex[V]) dropAt(e *edit, level int, hash uint64, is func(V) bool) {
	x.size--
	if x.subs == nil {
		slots := slices.Clone(x.slots)
		i := seek(slots, hash, -1)
		for !is(slots[i].value) {
			i = seek(slots, hash, i)
		}
		slots[i] = hashSlot[V]{}
		x.owner = e
		x.rebuild(slotsFor(x.size), slots)
		return
	}
	x.own(e)
	x.subs[subOf(hash, level)].dropAt(e, level+1, hash, is)
	if x.size > leafMax/4 {
		return
	}
	slots := make([]hashSlot[V], 0, x.size)
	for s := range x.all() {
		slots = append(slots, *s)
	}
	x.subs = nil
	x.rebuild(slotsFor(x.size), slots)
}

// all yields the taken slots in any order.
func (x *hashIndex[V]) all() iter.Seq[*hashSlot[V]] {
	return func(yield func(*hashSlot[V]) bool) { x.each(yield) }
}

func (x *hashIndex[V]) each(yield func(*hashSlot[V]) bool) bool {
	for i := range x.slots {
		if s := &x.slots[i]; s.hash != 0 && !yield(s) {
			return false
		}
	}
	if x.subs == nil {
		return true
	}
	for i := range x.subs {
		if !x.subs[i].each(yield) {
			return false
		}
	}
	return true
}
