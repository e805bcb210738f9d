package routing

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestByID compares with Go's map through changes in many edits, and checks that
// snapshots taken on the way stay as they were.
func TestByID(t *testing.T) {
	t.Parallel()
	ids := map[string]func(*rand.Rand) int64{
		"counted up": func(rnd *rand.Rand) int64 { return rnd.Int64N(1000) },
		"sparse":     func(rnd *rand.Rand) int64 { return rnd.Int64N(1000) << rnd.IntN(50) },
		"negative":   func(rnd *rand.Rand) int64 { return rnd.Int64N(200) - 100 },
		"extreme": func(rnd *rand.Rand) int64 {
			return []int64{0, 1, 63, 64, math.MaxInt64, math.MinInt64, -1, 1 << 60}[rnd.IntN(8)]
		},
	}
	for name, id := range ids {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, 2))
			type snapshot struct {
				m    byID
				want map[int64]*Route
			}
			var m byID
			var snapshots []snapshot
			want := map[int64]*Route{}
			e := new(edit)
			for i := range 20000 {
				id := id(rnd)
				// It grows, shrinks to nothing, and grows again.
				if rnd.IntN(10) < 3 || i > 8000 && i < 16000 && rnd.IntN(10) < 8 {
					m.remove(e, id)
					delete(want, id)
				} else {
					r := &Route{kept: kept{ID: id}}
					m.set(e, r)
					want[id] = r
				}
				if got, ok := m.get(id); got != want[id] || ok != (want[id] != nil) {
					t.Fatalf("step %d: id %d is %v, %v, want %v", i, id, got, ok, want[id])
				}
				if i%500 == 0 {
					snapshots = append(snapshots, snapshot{m, maps.Clone(want)})
					e = new(edit)
				}
			}
			for id := range want {
				m.remove(e, id)
			}
			if m.root != nil {
				t.Errorf("after the last removal there is %v", m.root)
			}
			snapshots = append(snapshots, snapshot{m: m})
			for i, s := range snapshots {
				if s.m.len() != len(s.want) {
					t.Fatalf("snapshot %d has %d routes, want %d", i, s.m.len(), len(s.want))
				}
				var inOrder []*Route
				for _, id := range slices.SortedFunc(maps.Keys(s.want), func(a, b int64) int {
					if uint64(a) < uint64(b) {
						return -1
					}
					return 1
				}) {
					inOrder = append(inOrder, s.want[id])
				}
				if !slices.Equal(slices.Collect(s.m.all()), inOrder) {
					t.Fatalf("snapshot %d has other routes, or in another order", i)
				}
				first := id(rnd)
				from := slices.DeleteFunc(inOrder, func(r *Route) bool { return uint64(r.ID) < uint64(first) })
				if !slices.Equal(slices.Collect(s.m.from(first)), from) {
					t.Fatalf("snapshot %d has other routes from %d on, or in another order", i, first)
				}
			}
		})
	}
}
