package ratelimit

import "math/bits"

const (
	minSlots = 16

	// sampleSize is how many keys an eviction compares; searchSize how many it
	// looks at to find one that is not being limited.
	sampleSize = 8
	searchSize = 256
)

// table maps hashes to cells by open addressing with linear probing, at most
// four fifths full. Unlike a Go map it is bounded to the byte, has no pointers,
// and lets eviction walk it in place.
//
// Slots are ordered by the hash's high bits, so any number of slots will do and
// the table grows by a quarter at a time rather than to twice its size.
type table struct {
	hashes []uint64 // 0 is a free slot
	cells  []cell
	used   int
	most   int // how many keys it may hold; its owner evicts one before adding more
	hand   int // where the search for a victim goes on
}

// find returns the slot of hash, or -1.
func (t *table) find(hash uint64) int {
	if t.used == 0 {
		return -1
	}
	for i := t.home(hash); ; i = t.next(i) {
		switch t.hashes[i] {
		case hash:
			return i
		case 0:
			return -1
		}
	}
}

// add puts a cell under a hash that is not in the table.
func (t *table) add(hash uint64, c cell) {
	if (t.used+1)*5 > len(t.hashes)*4 {
		t.resize(max(minSlots, min(len(t.hashes)*5/4, t.most*5/4+1)))
	}
	i := t.home(hash)
	for t.hashes[i] != 0 {
		i = t.next(i)
	}
	t.hashes[i], t.cells[i] = hash, c
	t.used++
}

// remove frees slot i and closes the gap, so that no search ends too early.
func (t *table) remove(i int) {
	n := len(t.hashes)
	for j := t.next(i); t.hashes[j] != 0; j = t.next(j) {
		// The key at j may move to i if its search passes i on the way to j.
		fromHome := j - t.home(t.hashes[j])
		if fromHome < 0 {
			fromHome += n
		}
		fromGap := j - i
		if fromGap < 0 {
			fromGap += n
		}
		if fromHome >= fromGap {
			t.hashes[i], t.cells[i] = t.hashes[j], t.cells[j]
			i = j
		}
	}
	t.hashes[i] = 0
	t.used--
}

// victim returns the slot of the key to give up for another: one that is idle
// if the hand meets it, else, of a few, the one with which the least use is
// forgotten, and of equals the one not asked for again. Keys that are being
// limited are passed over unless searchSize in a row are. So keys that come
// once push each other out, and those that have used more stay. The table must
// not be empty.
func (t *table) victim(now int64) int {
	best, least := -1, ^uint64(0)
	for seen := 0; seen < searchSize; {
		t.hand = t.next(t.hand)
		i := t.hand
		if t.hashes[i] == 0 {
			continue
		}
		seen++
		c := &t.cells[i]
		if c.idle(now) {
			return i
		}
		rank := c.rank(now)
		if seen <= sampleSize {
			// Not for the whole search, or in a flood of limited keys no key
			// could ask again before the hand comes round.
			c.setMarks(marks(c.state) & full)
		}
		if rank < least {
			best, least = i, rank
		}
		if seen >= sampleSize && least < limitedRank {
			break
		}
	}
	return best
}

// sweep removes the keys that are idle at now and gives memory back if three
// quarters of it would be unused.
func (t *table) sweep(now int64) {
	for i := 0; i < len(t.hashes); {
		if t.hashes[i] != 0 && t.cells[i].idle(now) {
			// Another key may have come into slot i: look at it again.
			t.remove(i)
			continue
		}
		i++
	}
	if slots := max(minSlots, t.used*5/3); slots*4 < len(t.hashes) {
		t.resize(slots)
	}
}

func (t *table) resize(slots int) {
	old := *t
	*t = table{
		hashes: make([]uint64, slots),
		cells:  make([]cell, slots),
		most:   old.most,
	}
	for i, hash := range old.hashes {
		if hash != 0 {
			t.add(hash, old.cells[i])
		}
	}
}

func (t *table) home(hash uint64) int {
	hi, _ := bits.Mul64(hash, uint64(len(t.hashes)))
	return int(hi)
}

func (t *table) next(i int) int {
	if i++; i < len(t.hashes) {
		return i
	}
	return 0
}
