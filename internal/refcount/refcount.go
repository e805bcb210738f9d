// Package refcount counts the references to what must go when nobody uses it any more.
package refcount

import "sync/atomic"

// Count is a number of references. Once it has come to zero it stays there: what was
// counted is going, and nobody can get hold of it again. It is safe for concurrent use.
// The zero value has none; Start gives it the first.
type Count struct{ n atomic.Int64 }

// Start takes the first reference, before anybody else sees the Count.
func (c *Count) Start() { c.n.Store(1) }

// Acquire takes a reference, unless the last one was given up.
func (c *Count) Acquire() bool {
	for {
		n := c.n.Load()
		if n == 0 {
			return false
		}
		if c.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives up a reference, and reports whether it was the last one.
func (c *Count) Release() (last bool) { return c.n.Add(-1) == 0 }
