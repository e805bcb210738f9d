package mirror

import (
	"context"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
)

// Limits bound what is held in memory and sent at a time: by a queue as a whole,
// or by one of its destinations.
type Limits struct {
	// The most copies that wait to be sent.
	Copies int

	// The most bytes of copies, headers and bodies, from the beginning of a copy
	// until it has been sent.
	Memory int64

	// The most copies that are being sent.
	Concurrency int
}

// DefaultLimits are those of a gateway's queue: 1,000 copies that wait, 16 MiB, 32
// that are being sent.
func DefaultLimits() Limits { return Limits{Copies: 1000, Memory: 16 << 20, Concurrency: 32} }

// DefaultShare are those of each destination of a gateway's queue, a quarter of
// all: one that hangs can't take the room and the workers of the others.
func DefaultShare() Limits { return Limits{Copies: 250, Memory: 4 << 20, Concurrency: 8} }

// Queue holds copies until its workers send them, those of each destination in
// order and the destinations in turn. It is safe for concurrent use, and nothing
// that it does for a request blocks. Make one with NewQueue and end it with Close.
type Queue struct {
	limits   Limits
	workers  *worker.Group
	log      func() *zap.Logger
	counters *counters
	memory   atomic.Int64

	mu      sync.Mutex
	wake    sync.Cond
	waiting int
	ready   []*Destination // those that have something waiting and may send it
	closed  bool
}

// NewQueue returns an empty queue and starts its workers, limits.Concurrency of
// them. The function log is called when there is something to log.
func NewQueue(limits Limits, log func() *zap.Logger) *Queue {
	return newQueue(limits, log, new(counters))
}

func newQueue(limits Limits, log func() *zap.Logger, counters *counters) *Queue {
	q := &Queue{limits: limits, log: log, workers: worker.New(log), counters: counters}
	q.wake.L = &q.mu
	for range limits.Concurrency {
		q.workers.Go("mirror", q.work)
	}
	return q
}

// Close drops what waits, breaks off what is being sent, and joins the workers.
// Copies that come later are dropped. It may be called more than once.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.wake.Broadcast()
	q.mu.Unlock()
	q.workers.Stop()

	// With nothing being sent, every destination that has something is ready.
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.ready {
		for _, c := range d.waiting {
			q.wait(-1)
			c.drop(&q.counters.shutdown)
		}
		d.waiting, d.ready = nil, false
	}
	q.ready = nil
}

// Stats returns the counts now.
func (q *Queue) Stats() Stats { return q.counters.stats() }

// push lets a complete copy wait for a worker, or drops it.
func (q *Queue) push(c *Copy) {
	d := c.mirror.destination
	q.mu.Lock()
	closed := q.closed
	full := q.waiting >= q.limits.Copies || len(d.waiting) >= d.share.Copies
	if !closed && !full {
		q.wait(1)
		d.waiting = append(d.waiting, c)
		q.schedule(d)
	}
	q.mu.Unlock()
	switch {
	case closed:
		c.drop(&q.counters.shutdown)
	case full:
		c.dropFull()
	}
}

// wait counts what has begun or ended to wait. q.mu is held.
func (q *Queue) wait(n int) {
	q.waiting += n
	q.counters.waiting.Add(int64(n))
}

// schedule puts d among the ready ones if it is to be there. q.mu is held.
func (q *Queue) schedule(d *Destination) {
	if d.ready || len(d.waiting) == 0 || d.sending >= d.share.Concurrency {
		return
	}
	d.ready = true
	q.ready = append(q.ready, d)
	q.wake.Signal()
}

// pull waits for a copy to send; nil says that the queue is closed.
func (q *Queue) pull() *Copy {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.ready) == 0 && !q.closed {
		q.wake.Wait()
	}
	if q.closed {
		return nil
	}
	d := q.ready[0]
	q.ready[0] = nil
	q.ready = q.ready[1:]
	d.ready = false
	c := d.waiting[0]
	d.waiting[0] = nil
	d.waiting = d.waiting[1:]
	d.sending++
	q.wait(-1)
	q.schedule(d)
	return c
}

// work is one worker.
func (q *Queue) work(ctx context.Context) {
	for c := q.pull(); c != nil; c = q.pull() {
		q.send(ctx, c)
	}
}

// send sends a copy and counts what became of it, once its place and memory are free
// again: who sees the count may rely on them.
func (q *Queue) send(ctx context.Context, c *Copy) {
	d := c.mirror.destination
	err := q.deliver(ctx, d, c)
	switch {
	case err == nil:
		q.counters.sent.Add(1)
	case ctx.Err() != nil:
		q.counters.shutdown.Add(1)
	default:
		d.report("copies can't be delivered", err)
		q.counters.failed.Add(1)
	}
}

// deliver sends a copy and gives back what it took.
func (q *Queue) deliver(ctx context.Context, d *Destination, c *Copy) error {
	defer func() {
		q.mu.Lock()
		d.sending--
		q.schedule(d)
		q.mu.Unlock()
		c.release()
	}()
	return d.exchange(ctx, c)
}
