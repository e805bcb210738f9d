package mirror

import "sync/atomic"

// counters count what became of the copies of a queue.
type counters struct {
	sent       atomic.Int64
	failed     atomic.Int64
	waiting    atomic.Int64
	queueFull  atomic.Int64
	tooLarge   atomic.Int64
	incomplete atomic.Int64
	skipped    atomic.Int64
	shutdown   atomic.Int64
}

// Stats is what became of the copies of a Queue since it was made.
type Stats struct {
	Sent    int64   `json:"sent"`    // answered by the mirror, whatever the answer
	Failed  int64   `json:"failed"`  // not delivered, or not answered in time
	Waiting int64   `json:"waiting"` // complete, and not sent yet
	Dropped Dropped `json:"dropped"`
}

// Dropped counts by reason what was to be copied but wasn't sent.
type Dropped struct {
	QueueFull  int64 `json:"queue_full"` // no room, mostly since the mirror is slow or down
	TooLarge   int64 `json:"too_large"`  // a body longer than body_max
	Incomplete int64 `json:"incomplete"` // a body that was not read to its end
	Skipped    int64 `json:"skipped"`    // upgrades, gRPC, Expect, and copies already
	Shutdown   int64 `json:"shutdown"`   // waiting or being sent when the queue was closed
}

// Total is the sum of all reasons.
func (d Dropped) Total() int64 {
	return d.QueueFull + d.TooLarge + d.Incomplete + d.Skipped + d.Shutdown
}

// Add returns the sums of two queues' counts.
func (s Stats) Add(o Stats) Stats {
	s.Sent += o.Sent
	s.Failed += o.Failed
	s.Waiting += o.Waiting
	s.Dropped.QueueFull += o.Dropped.QueueFull
	s.Dropped.TooLarge += o.Dropped.TooLarge
	s.Dropped.Incomplete += o.Dropped.Incomplete
	s.Dropped.Skipped += o.Dropped.Skipped
	s.Dropped.Shutdown += o.Dropped.Shutdown
	return s
}

func (c *counters) stats() Stats {
	return Stats{
		Sent:    c.sent.Load(),
		Failed:  c.failed.Load(),
		Waiting: c.waiting.Load(),
		Dropped: Dropped{
			QueueFull:  c.queueFull.Load(),
			TooLarge:   c.tooLarge.Load(),
			Incomplete: c.incomplete.Load(),
			Skipped:    c.skipped.Load(),
			Shutdown:   c.shutdown.Load(),
		},
	}
}
