package main

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/store"
)

// queue takes records of requests, without waiting, for somebody who takes them in
// batches.
type queue struct {
	name string

	// build makes it, and unless it is to fill up, starts who takes.
	build func(fill bool) running
}

// running is a queue at work. end ends who takes, if anybody does, and returns how many
// were taken and how many dropped.
type running struct {
	add    func(*store.RequestLog)
	queued func() int
	end    func() (taken, dropped uint64)
}

func queues() []queue {
	return []queue{
		{"isekai, Log.Add", buildLog},
		{"a channel", buildChannel},
		{"a ring with a mutex", buildRing},
	}
}

// sink is a store that keeps nothing.
type sink struct{}

func (sink) InsertLogs(context.Context, store.LogBatch) error             { return nil }
func (sink) MaintainLogs(context.Context, time.Time, time.Duration) error { return nil }

func buildLog(fill bool) running {
	l := requestlog.New(requestlog.Config{}, sink{}, zap.NewNop)
	if !fill {
		l.Start()
	}
	return running{l.Add, func() int { return l.Stats().Queued }, func() (uint64, uint64) {
		l.Close()
		s := l.Stats()
		return s.Written, s.Dropped
	}}
}

func buildChannel(fill bool) running {
	records := make(chan *store.RequestLog, requestlog.DefaultQueue)
	var dropped atomic.Uint64
	taken, done := uint64(0), make(chan struct{})
	take := func() {
		defer close(done)
		batch := make([]*store.RequestLog, 0, requestlog.DefaultBatch)
		for r := range records {
			if batch = append(batch, r); len(batch) == cap(batch) {
				taken += uint64(len(batch))
				batch = batch[:0]
			}
		}
		taken += uint64(len(batch))
	}
	if fill {
		close(done)
	} else {
		go take()
	}
	add := func(r *store.RequestLog) {
		select {
		case records <- r:
		default:
			dropped.Add(1)
		}
	}
	return running{add, func() int { return len(records) }, func() (uint64, uint64) {
		close(records)
		<-done
		return taken, dropped.Load()
	}}
}

// ring is a queue as one would write it without a channel.
type ring struct {
	mu      sync.Mutex
	more    sync.Cond
	records [requestlog.DefaultQueue]*store.RequestLog
	first   int
	count   int
	dropped uint64
	closed  bool
}

func buildRing(fill bool) running {
	q := new(ring)
	q.more.L = &q.mu
	taken, done := uint64(0), make(chan struct{})
	take := func() {
		defer close(done)
		batch := make([]*store.RequestLog, 0, requestlog.DefaultBatch)
		for batch = q.take(batch); len(batch) > 0; batch = q.take(batch[:0]) {
			taken += uint64(len(batch))
		}
	}
	if fill {
		close(done)
	} else {
		go take()
	}
	return running{q.add, q.queued, func() (uint64, uint64) {
		q.mu.Lock()
		q.closed = true
		q.more.Broadcast()
		q.mu.Unlock()
		<-done
		return taken, q.dropped
	}}
}

func (q *ring) queued() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

func (q *ring) add(r *store.RequestLog) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == len(q.records) {
		q.dropped++
		return
	}
	q.records[(q.first+q.count)%len(q.records)] = r
	if q.count++; q.count == 1 {
		q.more.Signal()
	}
}

// take waits for records, and returns none when the ring is closed and empty.
func (q *ring) take(batch []*store.RequestLog) []*store.RequestLog {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count == 0 && !q.closed {
		q.more.Wait()
	}
	for q.count > 0 && len(batch) < cap(batch) {
		batch = append(batch, q.records[q.first])
		q.records[q.first] = nil
		q.first = (q.first + 1) % len(q.records)
		q.count--
	}
	return batch
}

// burst is half of what a queue takes.
const burst = requestlog.DefaultQueue / 2

// BenchmarkLog adds from all processors.
func BenchmarkLog(b *testing.B) {
	for _, lib := range queues() {
		b.Run("lib="+lib.name+"/op=add", func(b *testing.B) {
			q := lib.build(false)
			b.ReportAllocs()
			for left := b.N; left > 0; left -= burst {
				addAll(q, min(left, burst))
				b.StopTimer()
				for q.queued() > 0 {
					runtime.Gosched()
				}
				b.StartTimer()
			}
			b.StopTimer()
			if _, dropped := q.end(); dropped > 0 {
				b.Fatalf("%d of %d records were dropped", dropped, b.N)
			}
		})
		b.Run("lib="+lib.name+"/op=drop", func(b *testing.B) {
			q := lib.build(true)
			addAll(q, requestlog.DefaultQueue)
			b.ReportAllocs()
			b.ResetTimer()
			addAll(q, b.N)
			b.StopTimer()
			if _, dropped := q.end(); dropped < uint64(b.N) {
				b.Fatalf("%d of %d records were dropped", dropped, b.N)
			}
		})
	}
}

// addAll adds so many from all processors.
func addAll(q running, n int) {
	record := new(store.RequestLog)
	adders := runtime.GOMAXPROCS(0)
	var adding sync.WaitGroup
	for i := range adders {
		adding.Go(func() {
			for range (n + i) / adders {
				q.add(record)
			}
		})
	}
	adding.Wait()
}

// No queue loses a record without saying so.
func TestQueues(t *testing.T) {
	t.Parallel()
	const records = 200_000
	for _, lib := range queues() {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			q := lib.build(false)
			addAll(q, records)
			if taken, dropped := q.end(); taken+dropped != records || taken == 0 {
				t.Errorf("%d taken and %d dropped of %d", taken, dropped, records)
			}
			full := lib.build(true)
			addAll(full, requestlog.DefaultQueue+7)
			if queued := full.queued(); queued != requestlog.DefaultQueue {
				t.Errorf("%d wait in a full queue", queued)
			}
			if _, dropped := full.end(); dropped < 7 {
				t.Errorf("%d dropped beside a full queue", dropped)
			}
		})
	}
}
