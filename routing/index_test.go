package routing

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHashIndex compares with Go's map through changes in many edits, some of keys with
// equal hashes, and checks that snapshots taken on the way stay as they were.
func TestHashIndex(t *testing.T) {
	t.Parallel()
	type entry struct{ key, value int }
	hashes := map[string]func(key int) uint64{
		"spread":     func(key int) uint64 { return uint64(key+1) * 0x9e3779b97f4a7c15 },
		"low bits":   func(key int) uint64 { return uint64(key + 1) },
		"high bits":  func(key int) uint64 { return uint64(key+1) << 50 },
		"few hashes": func(key int) uint64 { return uint64(key%7+1) * 0x9e3779b97f4a7c15 },
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, 2))
			collect := func(x *hashIndex[entry]) map[int]int {
				all := map[int]int{}
				for s := range x.all() {
					all[s.value.key] = s.value.value
				}
				return all
			}
			var x hashIndex[entry]
			want := map[int]int{}
			type snapshot struct {
				x    hashIndex[entry]
				want map[int]int
			}
			var snapshots []snapshot
			e := new(edit)
			for i := range 20000 {
				key := rnd.IntN(1500)
				is := func(v entry) bool { return v.key == key }
				_, there := want[key]
				// It grows, shrinks to nothing, and grows again.
				if rnd.IntN(10) < 3 || i > 8000 && i < 16000 && rnd.IntN(10) < 8 {
					if x.drop(e, hash(key), is) != there {
						t.Fatalf("step %d: key %d was there: %v", i, key, there)
					}
					delete(want, key)
				} else {
					if x.put(e, hash(key), is, entry{key, i}) == there {
						t.Fatalf("step %d: key %d was there: %v", i, key, there)
					}
					want[key] = i
				}
				value, is1 := want[key]
				if got, ok := x.get(hash(key), is); ok != is1 || got.value != value {
					t.Fatalf("step %d: key %d is %d, %v, want %d", i, key, got.value, ok, value)
				}
				if x.size != len(want) {
					t.Fatalf("step %d: size %d, want %d", i, x.size, len(want))
				}
				if i%500 == 0 {
					snapshots = append(snapshots, snapshot{x, maps.Clone(want)})
					e = new(edit)
				}
			}
			snapshots = append(snapshots, snapshot{x, want})
			for i, s := range snapshots {
				if diff := cmp.Diff(s.want, collect(&s.x)); diff != "" {
					t.Fatalf("snapshot %d (-want +got):\n%s", i, diff)
				}
			}
			e = new(edit)
			for key := range want {
				x.drop(e, hash(key), func(v entry) bool { return v.key == key })
			}
			if len(x.slots) != 0 || x.subs != nil || x.size != 0 {
				t.Errorf("an empty index keeps %d slots, %v", len(x.slots), x.subs)
			}
		})
	}
}
