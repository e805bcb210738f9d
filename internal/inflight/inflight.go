// Package inflight bounds how many requests are in flight at once, by route.
package inflight

import "sync"

// shards keeps requests of different routes out of each other's way.
const shards = 32

// Counts counts requests in flight by the ids of their routes. It remembers an
// id only as long as one of its requests is in flight, and no settings, so that
// counts outlive those. The zero value is ready. It is safe for concurrent use.
type Counts struct {
	shards [shards]shard
}

type shard struct {
	mu     sync.Mutex
	counts map[int64]int
	_      [48]byte // a shard has a cache line for itself
}

func (c *Counts) shard(id int64) *shard { return &c.shards[uint64(id)%shards] }

// Acquire counts a request of route id unless most are in flight already, and
// says whether it did. If so, Release must follow.
func (c *Counts) Acquire(id int64, most int) bool {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[id]
	if n >= most {
		return false
	}
	if s.counts == nil {
		s.counts = make(map[int64]int)
	}
	s.counts[id] = n + 1
	return true
}

// Release takes back what Acquire has counted.
func (c *Counts) Release(id int64) {
	s := c.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.counts[id]; n > 1 {
		s.counts[id] = n - 1
	} else {
		delete(s.counts, id)
	}
}

// Routes returns how many routes have requests in flight that were counted.
func (c *Counts) Routes() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.counts)
		s.mu.Unlock()
	}
	return n
}
