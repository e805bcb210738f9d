package routing

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPersistentMap compares with Go's map through changes in many edits, and
// checks that snapshots taken on the way stay as they were.
func TestPersistentMap(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var m pmap[int64, int]
	want := map[int64]int{}
	type snapshot struct {
		m    pmap[int64, int]
		want map[int64]int
	}
	var snapshots []snapshot
	e := new(edit)
	for i := range 30000 {
		key := rnd.Int64N(3000)
		if rnd.IntN(3) == 0 || i > 20000 && rnd.IntN(4) > 0 {
			m.remove(e, key)
			delete(want, key)
		} else {
			m.set(e, key, i+1)
			want[key] = i + 1
		}
		if got, ok := m.get(key); ok != (want[key] != 0) || got != want[key] {
			t.Fatalf("step %d: key %d is %d, %v, want %d", i, key, got, ok, want[key])
		}
		if i%500 == 0 {
			snapshots = append(snapshots, snapshot{m, maps.Clone(want)})
			e = new(edit)
		}
	}
	snapshots = append(snapshots, snapshot{m, want})
	for i, s := range snapshots {
		if s.m.size != len(s.want) {
			t.Fatalf("snapshot %d has %d entries, want %d", i, s.m.size, len(s.want))
		}
		if diff := cmp.Diff(s.want, maps.Collect(s.m.all())); diff != "" {
			t.Fatalf("snapshot %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestPersistentMapEmptiesToNothing(t *testing.T) {
	t.Parallel()
	var m pmap[string, int]
	m.remove(new(edit), "a")
	if _, ok := m.get("a"); ok || m.size != 0 {
		t.Fatal("an empty map has an entry")
	}
	e := new(edit)
	for _, key := range []string{"a", "b", "c"} {
		m.set(e, key, 1)
	}
	for _, key := range []string{"a", "x", "b", "a", "c"} {
		m.remove(e, key)
	}
	if m.root != nil || m.size != 0 {
		t.Errorf("root %v, size %d after the last removal", m.root, m.size)
	}
	for range m.all() {
		t.Error("an empty map yields an entry")
	}
}

// TestHashCollisions uses hashes that are equal for many keys, wholly or in their
// first bits, which real keys hardly ever are.
func TestHashCollisions(t *testing.T) {
	t.Parallel()
	hashes := map[string]func(int) uint64{
		"all equal":       func(int) uint64 { return 7 },
		"equal low bits":  func(k int) uint64 { return uint64(k) << 58 },
		"few values":      func(k int) uint64 { return uint64(k%3) << 40 },
		"equal high bits": func(k int) uint64 { return uint64(k) },
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(3, 4))
			want := map[int]int{}
			root := &hnode[int, int]{}
			var old *hnode[int, int]
			var oldWant map[int]int
			for i := range 4000 {
				e := new(edit)
				key := rnd.IntN(40)
				if rnd.IntN(2) == 0 {
					root, _ = root.remove(e, 0, hash(key), key)
					delete(want, key)
				} else {
					root, _ = root.set(e, 0, hash(key), hash, key, i+1)
					want[key] = i + 1
				}
				if i == 2000 {
					old, oldWant = root, maps.Clone(want)
				}
				for k := range 40 {
					if got, ok := root.get(hash(k), k); got != want[k] || ok != (want[k] != 0) {
						t.Fatalf("step %d: key %d is %d, %v, want %d", i, k, got, ok, want[k])
					}
				}
			}
			got := map[int]int{}
			old.all(func(k, v int) bool { got[k] = v; return true })
			if diff := cmp.Diff(oldWant, got); diff != "" {
				t.Errorf("snapshot (-want +got):\n%s", diff)
			}
		})
	}
}
