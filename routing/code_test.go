package routing

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// TestCodeMatchesAsItsPattern holds the short form of a pattern to the long one, from
// every segment on.
func TestCodeMatchesAsItsPattern(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	texts := []string{"a", "ab", "b", "orders", strings.Repeat("x", 20)}
	coded, matched := 0, 0
	for range 20_000 {
		var pattern strings.Builder
		segments := 1 + rnd.IntN(5)
		for i := range segments {
			pattern.WriteByte('/')
			last := i == segments-1
			switch rnd.IntN(6) {
			case 0:
				pattern.WriteString("{p" + string(rune('a'+i)) + "}")
			case 1:
				if last {
					pattern.WriteString([]string{"*", "{rest...}", ""}[rnd.IntN(3)])
					continue
				}
				fallthrough
			default:
				pattern.WriteString(texts[rnd.IntN(len(texts))])
			}
		}
		p, err := ParsePattern(pattern.String())
		if err != nil {
			t.Fatalf("%s: %v", pattern.String(), err)
		}
		c := p.code()
		if c.size == 0 {
			continue
		}
		coded++
		for range 8 {
			var path strings.Builder
			depth := rnd.IntN(p.segs.len() + 1)
			for i := depth; i < p.segs.len()+rnd.IntN(3)-1; i++ {
				path.WriteByte('/')
				if i < p.segs.len() && p.segs.kind(i) == kindLiteral && rnd.IntN(8) > 0 {
					path.WriteString(p.literal(p.segs.at(i)))
				} else if rnd.IntN(8) > 0 {
					path.WriteString(texts[rnd.IntN(len(texts))])
				}
			}
			want := p.matchFrom(depth, path.String())
			if got := c.matchFrom(depth, path.String()); got != want {
				t.Fatalf("%s from segment %d on matches %q: %v, want %v", p, depth, path.String(), got, want)
			}
			if want {
				matched++
			}
		}
	}
	if coded < 5000 || matched < 5000 {
		t.Errorf("only %d patterns have a code, only %d matches", coded, matched)
	}
}

// TestWhatAMatchReadsIsOneLine holds the layout to what its comments say.
func TestWhatAMatchReadsIsOneLine(t *testing.T) {
	t.Parallel()
	const line = 64
	var r Route
	if end := unsafe.Offsetof(r.more) + unsafe.Sizeof(r.more); end > line || unsafe.Sizeof(r)%line != 0 {
		t.Errorf("a match reads up to %d of a route's %d bytes", end, unsafe.Sizeof(r))
	}
	if size := unsafe.Sizeof(site{}); size != line {
		t.Errorf("a site has %d bytes", size)
	}
}
