package ratelimit

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// The table against a Go map, with hashes that collide, wrap around and are
// removed in any order.
func TestTableIsAMap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		keys := table{most: 300}
		want := map[uint64]int64{}
		for step := range 3000 {
			// Few homes, one of them at the very end.
			hash := ^uint64(0)<<(60+rnd.IntN(4)) | uint64(rnd.IntN(200)+1)
			if rnd.IntN(2) == 0 {
				hash = rnd.Uint64N(400)<<55 + 1
			}
			i := keys.find(hash)
			_, there := want[hash]
			switch {
			case (i >= 0) != there:
				t.Fatalf("seed %d step %d: find says %d, there is %v", seed, step, i, there)
			case there && rnd.IntN(2) == 0:
				keys.remove(i)
				delete(want, hash)
			case !there && len(want) < keys.most:
				keys.add(hash, cell{start: int64(step), millis: 1})
				want[hash] = int64(step)
			}
			if keys.used != len(want) || keys.used*5 > len(keys.hashes)*4 {
				t.Fatalf("seed %d step %d: %d used of %d slots, want %d", seed, step, keys.used, len(keys.hashes), len(want))
			}
		}
		for hash, start := range want {
			if i := keys.find(hash); i < 0 || keys.cells[i].start != start {
				t.Fatalf("seed %d: %x is lost", seed, hash)
			}
		}
		if most := keys.most*5/4 + 1; len(keys.hashes) > most {
			t.Errorf("seed %d: %d slots, want at most %d", seed, len(keys.hashes), most)
		}
	}
}

// The log never counts more charges than there were, nor any that are too old
// to count, and keeps the youngest until it is too old.
func TestRunsBounds(t *testing.T) {
	t.Parallel()
	const window = 1 << 20
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var log runs
		var times []uint32
		now := uint32(1<<32 - 4*window) // so that ticks wrap around
		for range 500 {
			now += uint32(rnd.ExpFloat64() * window / float64(1+rnd.IntN(50)))
			log.drop(now - window)
			if total := log.total(); int(total) > len(times) {
				t.Fatalf("seed %d: %d of %d charges", seed, total, len(times))
			}
			if n := len(times); n > 0 {
				if log.total() > 0 != later(times[n-1], now-window) {
					t.Fatalf("seed %d: %d left, the last charge is %d old", seed, log.total(), now-times[n-1])
				}
			}
			if rnd.IntN(3) > 0 {
				log.add(now, 1)
				times = append(times, now)
			}
		}
	}
}

func TestCellIsOneCacheLine(t *testing.T) {
	t.Parallel()
	if got := unsafe.Sizeof(cell{}); got != 64 {
		t.Errorf("%d bytes", got)
	}
}
