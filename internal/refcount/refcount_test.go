package refcount_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/isekai-gateway/isekai/internal/refcount"
)

func TestCount(t *testing.T) {
	t.Parallel()
	var c refcount.Count
	if c.Acquire() {
		t.Error("acquired before the start")
	}
	c.Start()
	var last atomic.Int64
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for range 1000 {
				if c.Acquire() && c.Release() {
					last.Add(1)
				}
			}
		})
	}
	if c.Release() {
		last.Add(1)
	}
	users.Wait()
	if n := last.Load(); n != 1 {
		t.Errorf("%d were the last", n)
	}
	if c.Acquire() {
		t.Error("acquired after the end")
	}
}
