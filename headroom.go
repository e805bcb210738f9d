package isekai

import (
	"os"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
)

// defaultHeadroom is how much memory garbage may take beyond what Go would let it.
const defaultHeadroom = 64 << 20

// headrooms holds the headroom of the process across configurations, by size, so that a
// reload does not make it anew.
var headrooms = caddy.NewUsagePool()

// headroom is memory that nobody ever touches, so that the machine has none of it to
// give, but that Go's collector counts as live: it lets garbage grow by as much before
// it collects. The live heap of a gateway is small, and would be collected many times a
// second. (The technique is known as a memory ballast. A larger GOGC does as much for a
// small heap, but takes several times the memory of a large one.)
type headroom struct{ untouched []byte }

// Destruct implements caddy.Destructor.
func (headroom) Destruct() error { return nil }

// headroomSize returns the size that is in effect for a setting, nil for the default.
// Whoever sets GOGC has decided already; and a limit of memory, which the untouched is
// counted against, is left for other things.
func headroomSize(setting *int64) int64 {
	if os.Getenv("GOGC") != "" {
		return 0
	}
	size := int64(defaultHeadroom)
	if setting != nil {
		size = *setting
	}
	return min(size, debug.SetMemoryLimit(-1)/8)
}

// reserveHeadroom keeps the headroom until it is released.
func (a *App) reserveHeadroom() error {
	size := headroomSize(a.GCHeadroom)
	if size <= 0 {
		return nil
	}
	_, _, err := headrooms.LoadOrNew(size, func() (caddy.Destructor, error) {
		return headroom{make([]byte, size)}, nil
	})
	if err == nil {
		a.headroom = size
	}
	return err
}

func (a *App) releaseHeadroom() error {
	if a.headroom == 0 {
		return nil
	}
	_, err := headrooms.Delete(a.headroom)
	return err
}
