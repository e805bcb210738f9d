package routing

import "iter"

// byID is routes by the ids of their rows. Those are not chosen by clients, so their
// hash needs no seed.
type byID struct{ index hashIndex[*Route] }

func hashID(id int64) uint64 {
	x := uint64(id) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return max(x^x>>31, 1)
}

func (m *byID) get(id int64) (*Route, bool) {
	return m.index.get(hashID(id), func(r *Route) bool { return r.ID == id })
}

func (m *byID) set(e *edit, r *Route) {
	m.index.put(e, hashID(r.ID), func(o *Route) bool { return o.ID == r.ID }, r)
}

func (m *byID) remove(e *edit, id int64) {
	m.index.drop(e, hashID(id), func(r *Route) bool { return r.ID == id })
}

// all yields the routes in any order.
func (m *byID) all() iter.Seq[*Route] {
	return func(yield func(*Route) bool) {
		for s := range m.index.all() {
			if !yield(s.value) {
				return
			}
		}
	}
}

func (m *byID) len() int { return m.index.size }
