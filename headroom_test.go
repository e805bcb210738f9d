package isekai_test

import (
	"runtime"
	"testing"
)

// TestHeadroom looks at what Go's runtime takes for live.
func TestHeadroom(t *testing.T) {
	t.Setenv("GOGC", "")
	const size = 300 << 20
	live := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	with := func(bytes any) func(map[string]any) {
		return func(cfg map[string]any) { isekaiApp(cfg)["gc_headroom"] = bytes }
	}
	s := start(t, with(0))
	before := live()
	if before > size {
		t.Fatalf("%d bytes are live already", before)
	}
	for range 3 { // a reload keeps it
		if err := s.load(with(size)); err != nil {
			t.Fatal(err)
		}
		if n := live(); n < size || n > 2*size {
			t.Errorf("%d bytes are live", n)
		}
	}
	t.Setenv("GOGC", "100")
	if err := s.load(with(size)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "none is left where GOGC is set", func() bool { return live() < size })
}
