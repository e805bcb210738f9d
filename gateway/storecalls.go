package gateway

import (
	"iter"
	"sync/atomic"
	"time"

	"github.com/isekai-gateway/isekai/stats"
	"github.com/isekai-gateway/isekai/store"
)

// StoreCalls counts the calls of the store. The zero value is ready. It is safe for
// concurrent use.
type StoreCalls struct {
	calls [store.Calls]StoreCall
}

// StoreCall counts one kind of calls.
type StoreCall struct {
	Durations stats.Histogram
	Errors    atomic.Uint64 // calls that failed for a reason of the store's own
}

func (c *StoreCalls) observe(call store.Call, took time.Duration, failed bool) {
	counts := &c.calls[call]
	counts.Durations.Observe(took)
	if failed {
		counts.Errors.Add(1)
	}
}

// All yields the kinds of calls by their names.
func (c *StoreCalls) All() iter.Seq2[string, *StoreCall] {
	return func(yield func(string, *StoreCall) bool) {
		for i := range c.calls {
			if !yield(store.Call(i).String(), &c.calls[i]) {
				return
			}
		}
	}
}
