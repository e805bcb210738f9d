package mirror

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/proxy"
)

const (
	// maxAnswer is how much of an answer is read, so that its connection can be
	// used again. A longer one costs its connection.
	maxAnswer = 256 << 10

	// reportInterval is the least time between two log lines about a destination.
	reportInterval = time.Minute
)

// Destination is where copies go: a server with its connections and its share of
// a queue. Mirrors of the same server have one in common. It is safe for
// concurrent use.
type Destination struct {
	queue     *Queue
	target    *proxy.Target
	share     Limits
	transport *http.Transport
	memory    atomic.Int64
	refs      atomic.Int64 // its owner's, and one per copy
	reported  atomic.Int64 // when, in Unix nanoseconds

	// Under the queue's lock.
	waiting []*Copy
	sending int
	ready   bool // in queue.ready
}

// NewDestination returns the destination that a mirror's target names, by its
// scheme and address; its path is the Mirror's affair. The policy is asked at
// every connection. The owner calls Destruct when no more copies are to begin.
func NewDestination(queue *Queue, share Limits, target *proxy.Target, policy *proxy.Policy) *Destination {
	d := &Destination{
		queue: queue, target: target, share: share,
		transport: proxy.PlainTransport(policy, target),
	}
	d.refs.Store(1)
	return d
}

// Destruct implements caddy.Destructor. Copies on their way keep the destination's
// connections until they are sent.
func (d *Destination) Destruct() error {
	d.release()
	return nil
}

func (d *Destination) release() {
	if d.refs.Add(-1) == 0 {
		d.transport.CloseIdleConnections()
	}
}

// reserve takes n bytes of the queue's memory and of d's share of it.
func (d *Destination) reserve(n int64) bool {
	if d.memory.Add(n) > d.share.Memory {
		d.memory.Add(-n)
		return false
	}
	if d.queue.memory.Add(n) > d.queue.limits.Memory {
		d.free(n)
		return false
	}
	return true
}

func (d *Destination) free(n int64) {
	d.memory.Add(-n)
	d.queue.memory.Add(-n)
}

// exchange sends a copy and throws the answer away.
func (d *Destination) exchange(ctx context.Context, c *Copy) error {
	ctx, cancel := context.WithTimeout(ctx, c.mirror.timeout)
	defer cancel()
	resp, err := d.transport.RoundTrip(c.request(ctx))
	if err != nil {
		return fmt.Errorf("sending copy: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		// What follows the header changes nothing any more.
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	}
	return nil
}

// report logs that something is wrong, once in a while.
func (d *Destination) report(what string, err error) {
	now, last := time.Now().UnixNano(), d.reported.Load()
	if now-last < int64(reportInterval) || !d.reported.CompareAndSwap(last, now) {
		return
	}
	stats := d.queue.Stats()
	d.queue.log().Warn(what,
		zap.String("mirror", d.target.Address), zap.Error(err), zap.Int64("sent", stats.Sent),
		zap.Int64("failed", stats.Failed), zap.Int64("dropped", stats.Dropped.Total()))
}

// Key is equal for targets that can share a destination.
func Key(t *proxy.Target) string {
	return fmt.Sprintf("%s %t %s", t.Scheme, t.H2C, t.Address)
}
