package gateway_test

import (
	"math"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/store"
)

// calls returns how often the store was asked for something of a kind.
func (b bundle) calls(kind store.Call) uint64 {
	for name, call := range b.StoreCalls.All() {
		if name == kind.String() {
			return call.Durations.Snapshot().Count
		}
	}
	return 0
}

// An interval of centuries is one, and not none.
func TestLongPollIntervals(t *testing.T) {
	t.Parallel()
	for name, interval := range map[string]time.Duration{"100 years": 36500 * 24 * time.Hour, "longest": math.MaxInt64} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const lines = 20
			g := open(t, sqliteDSN(t), func(cfg *gateway.Config) {
				cfg.PollInterval, cfg.StatsInterval = interval, 10*time.Millisecond
			})
			eventually(t, "some time passes", func() bool { return g.logs.FilterMessage("stats").Len() >= lines })
			if n := g.calls(store.CallRead); n >= lines {
				t.Errorf("the store was read %d times", n)
			}
		})
	}
}
