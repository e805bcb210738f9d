package requestlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/store"
)

// Defaults of Config.
const (
	DefaultQueue         = 65_536
	DefaultBatch         = 1_000
	DefaultFlushInterval = time.Second
	DefaultRetention     = 7 * 24 * time.Hour
)

const (
	// maintainInterval is how often old rows are removed and partitions made.
	maintainInterval = time.Hour

	// maintainTimeout bounds one round of that.
	maintainTimeout = 10 * time.Minute

	// retryWait is how long to wait after a batch that could not be written.
	retryWait = time.Second

	// closeTimeout bounds what Close still writes.
	closeTimeout = 5 * time.Second
)

// Config sets up a Log. The zero value takes the defaults.
type Config struct {
	// The most records that wait to be written; one takes about half a kilobyte.
	// More are dropped and counted. Default: 65,536.
	Queue int

	// The most records in one write. Default: 1,000.
	Batch int

	// How long a record waits at most for others to be written with. Default: 1s.
	FlushInterval time.Duration

	// How long rows are kept. On PostgreSQL they go by whole days. Default: 7 days.
	Retention time.Duration
}

// Writer is where records go: a store.Store.
type Writer interface {
	InsertLogs(ctx context.Context, batch store.LogBatch) error
	MaintainLogs(ctx context.Context, now time.Time, keep time.Duration) error
}

// Log writes records in the background. All methods are safe for concurrent use. Make
// one with New, let it write with Start, and end it with Close.
type Log struct {
	cfg     Config
	writer  Writer
	queue   chan *store.RequestLog
	enough  chan struct{} // tells the writer that a batch waits; it holds one message
	least   int           // records in the queue that are worth a message
	workers *worker.Group
	logger  func() *zap.Logger
	start   sync.Once
	stopped chan struct{} // closed when the writing worker has ended; nil before Start

	// The batch that is being written, and whether that was tried. They are the writing
	// worker's, and Close's after it.
	batch store.LogBatch
	tried bool

	written atomic.Uint64
	dropped atomic.Uint64
	failed  atomic.Uint64
	failing atomic.Bool

	tails tails
}

// New returns a log that takes records and keeps them until Start. The function
// logger is called for every line.
func New(cfg Config, writer Writer, logger func() *zap.Logger) *Log {
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.Batch <= 0 {
		cfg.Batch = DefaultBatch
	}
	if cfg.FlushInterval <= 0 {
		cfg.FlushInterval = DefaultFlushInterval
	}
	if cfg.Retention <= 0 {
		cfg.Retention = DefaultRetention
	}
	return &Log{
		cfg: cfg, writer: writer, logger: logger,
		queue:   make(chan *store.RequestLog, cfg.Queue),
		enough:  make(chan struct{}, 1),
		least:   min(cfg.Batch, (cfg.Queue+1)/2),
		workers: worker.New(logger),
		batch:   store.LogBatch{Writer: uuid.NewString(), Number: 1},
	}
}

// Start begins to write. Only the first call has an effect.
func (l *Log) Start() {
	l.start.Do(func() {
		l.stopped = make(chan struct{})
		l.workers.Go("request log writer", func(ctx context.Context) {
			defer close(l.stopped)
			l.write(ctx)
		})
		l.workers.Go("request log maintenance", l.maintain)
	})
}

// Add takes a record, which must not be changed any more, or drops it if the queue is
// full. It never blocks.
func (l *Log) Add(record *store.RequestLog) {
	l.tails.send(record)
	select {
	case l.queue <- record:
	default:
		l.dropped.Add(1)
	}
	// The writer sleeps until then: to be woken for each record would cost requests
	// more than anything else here.
	if len(l.queue) >= l.least {
		select {
		case l.enough <- struct{}{}:
		default:
		}
	}
}

// Stats is a Log's counters since it was made.
type Stats struct {
	Queued   int    `json:"queued"`   // records that wait now
	Capacity int    `json:"capacity"` // records that can wait
	Written  uint64 `json:"written"`  // rows in the store
	Dropped  uint64 `json:"dropped"`  // records that found the queue full, or no store in the end
	Failed   uint64 `json:"failed"`   // writes of a batch that failed; they are tried again
	Failing  bool   `json:"failing"`  // the last write has failed
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	return Stats{
		Queued: len(l.queue), Capacity: cap(l.queue), Written: l.written.Load(), Dropped: l.dropped.Load(),
		Failed: l.failed.Load(), Failing: l.failing.Load(),
	}
}

// Close stops the workers, writes what is queued, within a few seconds, and ends all
// tails. Records that come later are dropped.
func (l *Log) Close() {
	l.start.Do(func() {}) // never start any more
	l.workers.Stop()
	l.tails.close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for l.fill(); len(l.batch.Rows) > 0; l.fill() {
		if l.stopped == nil || l.insert(ctx) != nil {
			l.dropped.Add(uint64(len(l.batch.Rows)))
		}
		l.next()
	}
}

// write moves records from the queue into the store until ctx is done. A batch that
// fails is tried again as it is, while the queue fills: it may be in the store, or come
// there later, and the store knows it by its number. What is left is for Close to write.
func (l *Log) write(ctx context.Context) {
	flush := time.NewTicker(l.cfg.FlushInterval)
	defer flush.Stop()
	for ctx.Err() == nil {
		if len(l.queue) < l.least {
			select {
			case <-ctx.Done():
				return
			case <-l.enough:
			case <-flush.C:
			}
		}
		if l.fill(); len(l.batch.Rows) == 0 {
			continue
		}
		for l.insert(ctx) != nil {
			l.tried = true
			if !worker.Sleep(ctx, retryWait) {
				return
			}
		}
		l.next()
	}
}

// fill adds what is in the queue to the batch, unless that was tried already.
func (l *Log) fill() {
	for !l.tried && len(l.batch.Rows) < l.cfg.Batch {
		select {
		case record := <-l.queue:
			l.batch.Rows = append(l.batch.Rows, record)
		default:
			return
		}
	}
}

// next begins another batch.
func (l *Log) next() {
	l.batch.Number++
	clear(l.batch.Rows)
	l.batch.Rows, l.tried = l.batch.Rows[:0], false
}

func (l *Log) insert(ctx context.Context) error {
	err := l.writer.InsertLogs(ctx, l.batch)
	if err != nil {
		l.failed.Add(1)
		if ctx.Err() == nil && !l.failing.Swap(true) {
			l.logger().Error("the request log can't be written; records wait in the queue, and are dropped when it is full", zap.Error(err))
		}
		return err
	}
	l.written.Add(uint64(len(l.batch.Rows)))
	if l.failing.Swap(false) {
		l.logger().Info("the request log is written again", zap.Uint64("dropped", l.dropped.Load()))
	}
	return nil
}

// maintain tends the table at once and then every hour, or soon after a failure.
func (l *Log) maintain(ctx context.Context) {
	for {
		wait := maintainInterval
		tend, cancel := context.WithTimeout(ctx, maintainTimeout)
		err := l.writer.MaintainLogs(tend, time.Now(), l.cfg.Retention)
		cancel()
		if err != nil && ctx.Err() == nil {
			l.logger().Warn("tidying the request log", zap.Error(err))
			wait = time.Minute
		}
		if !worker.Sleep(ctx, wait) {
			return
		}
	}
}
