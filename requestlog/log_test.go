package requestlog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database is a store that can be made to fail or to hang, which a real one does not
// do when a test wants it to.
type database struct {
	mu      sync.Mutex
	rows    []string
	batches []int
	err     error
	lost    bool // what fails was written all the same
	last    map[string]int64
	gate    chan struct{} // if not nil, every insert waits for it
}

func (d *database) InsertLogs(ctx context.Context, batch store.LogBatch) error {
	d.mu.Lock()
	gate := d.gate
	d.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil && !d.lost {
		return d.err
	}
	if batch.Number <= d.last[batch.Writer] {
		return d.err
	}
	if d.last == nil {
		d.last = make(map[string]int64)
	}
	d.last[batch.Writer] = batch.Number
	for _, r := range batch.Rows {
		d.rows = append(d.rows, r.Path)
	}
	d.batches = append(d.batches, len(batch.Rows))
	return d.err
}

func (d *database) MaintainLogs(context.Context, time.Time, time.Duration) error { return nil }

func (d *database) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *database) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.rows)
}

func open(t *testing.T, cfg requestlog.Config, d *database) (*requestlog.Log, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	l := requestlog.New(cfg, d, func() *zap.Logger { return zap.New(core) })
	t.Cleanup(l.Close)
	return l, logs
}

func add(l *requestlog.Log, n int) {
	for i := range n {
		l.Add(&store.RequestLog{Path: fmt.Sprint("/", i)})
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it never happened: %s", what)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	d := new(database)
	l, _ := open(t, requestlog.Config{Batch: 10, FlushInterval: 10 * time.Millisecond}, d)
	add(l, 25) // before Start: nothing is written, nothing is lost
	if d.count() != 0 {
		t.Fatal("written before Start")
	}
	l.Start()
	eventually(t, "all is written", func() bool { return d.count() == 25 })
	for i, n := range d.batches {
		if n > 10 {
			t.Errorf("batch %d has %d rows", i, n)
		}
	}
	for i, path := range d.rows {
		if path != fmt.Sprint("/", i) {
			t.Fatalf("row %d is %s", i, path)
		}
	}
	if s := l.Stats(); s.Written != 25 || s.Dropped != 0 || s.Queued != 0 {
		t.Errorf("stats %+v", s)
	}
}

// Whole batches are written without waiting for the interval, also when nothing comes
// any more that would remind the writer of them.
func TestWholeBatchesDoNotWait(t *testing.T) {
	t.Parallel()
	d := &database{gate: make(chan struct{})}
	l, _ := open(t, requestlog.Config{Batch: 10, FlushInterval: time.Hour}, d)
	l.Start()
	add(l, 10)
	eventually(t, "the first batch is taken", func() bool { return l.Stats().Queued == 0 })
	add(l, 50)
	close(d.gate)
	eventually(t, "all is written", func() bool { return d.count() == 60 })
}

// A queue that is smaller than a batch is written before it is full.
func TestSmallQueue(t *testing.T) {
	t.Parallel()
	d := new(database)
	l, _ := open(t, requestlog.Config{Queue: 4, Batch: 1000, FlushInterval: time.Hour}, d)
	l.Start()
	add(l, 2)
	eventually(t, "half of it is written", func() bool { return d.count() == 2 })
}

func TestFullQueueDrops(t *testing.T) {
	t.Parallel()
	d := &database{gate: make(chan struct{})}
	l, _ := open(t, requestlog.Config{Queue: 100, Batch: 10, FlushInterval: time.Millisecond}, d)
	l.Start()
	add(l, 1000) // never blocks, though the database hangs
	s := l.Stats()
	if s.Queued > 100 || s.Dropped < 1000-100-10 {
		t.Errorf("stats %+v", s)
	}
	close(d.gate)
	eventually(t, "what was queued is written", func() bool { return l.Stats().Queued == 0 && uint64(d.count())+l.Stats().Dropped == 1000 })
}

func TestFailuresAreRetriedAndToldOnce(t *testing.T) {
	t.Parallel()
	d := &database{err: errors.New("down")}
	l, logs := open(t, requestlog.Config{Batch: 10, FlushInterval: time.Millisecond}, d)
	l.Start()
	add(l, 30)
	eventually(t, "two writes have failed", func() bool { return l.Stats().Failed >= 2 })
	if !l.Stats().Failing {
		t.Error("not said to be failing")
	}
	d.fail(nil)
	eventually(t, "all is written", func() bool { return d.count() == 30 })
	if s := l.Stats(); s.Failing || s.Dropped != 0 {
		t.Errorf("stats %+v", s)
	}
	eventually(t, "the recovery is told", func() bool { return logs.FilterMessage("the request log is written again").Len() == 1 })
	if n := logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 1 {
		t.Errorf("%d lines about the failure", n)
	}
}

// A batch whose answer was lost is sent again as the same batch, by Close too.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(l *requestlog.Log, d *database){
		"the database recovers": func(_ *requestlog.Log, d *database) { d.fail(nil) },
		"the log is closed":     func(l *requestlog.Log, d *database) { d.fail(nil); l.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &database{err: context.DeadlineExceeded, lost: true}
			l, _ := open(t, requestlog.Config{Batch: 10, FlushInterval: time.Millisecond}, d)
			l.Start()
			add(l, 5)
			eventually(t, "a write has failed", func() bool { return l.Stats().Failed >= 1 })
			add(l, 30)
			end(l, d)
			eventually(t, "all is written", func() bool { s := l.Stats(); return s.Written == 35 && s.Queued == 0 })
			if n := d.count(); n != 35 {
				t.Errorf("%d rows of 35 requests", n)
			}
		})
	}
}

func TestCloseWritesTheRest(t *testing.T) {
	t.Parallel()
	d := new(database)
	l, _ := open(t, requestlog.Config{Batch: 7, FlushInterval: time.Hour}, d)
	l.Start()
	add(l, 20)
	l.Close()
	if d.count() != 20 {
		t.Errorf("%d of 20 are written", d.count())
	}
}

func TestCloseWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	d := &database{err: errors.New("down")}
	l, _ := open(t, requestlog.Config{FlushInterval: time.Hour}, d)
	l.Start()
	add(l, 20)
	l.Close()
	if s := l.Stats(); s.Dropped != 20 || s.Queued != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestTails(t *testing.T) {
	t.Parallel()
	l, _ := open(t, requestlog.Config{}, new(database))
	all, ok := l.Tail(nil)
	if !ok {
		t.Fatal("no tail")
	}
	some, _ := l.Tail(func(r *store.RequestLog) bool { return r.Path == "/3" })
	add(l, 5)
	for i := range 5 {
		if r := <-all.Records(); r.Path != fmt.Sprint("/", i) {
			t.Errorf("record %d is %s", i, r.Path)
		}
	}
	if r := <-some.Records(); r.Path != "/3" || len(some.Records()) != 0 {
		t.Errorf("got %s, and %d more", r.Path, len(some.Records()))
	}
	add(l, 1000) // nobody reads
	kept := len(all.Records())
	if skipped := all.Skipped(); kept == 0 || skipped != uint64(1000-kept) || all.Skipped() != 0 {
		t.Errorf("kept %d, skipped %d", kept, skipped)
	}
	some.Close()
	some.Close()
	for i := range requestlog.MaxTails - 1 {
		if _, ok := l.Tail(nil); !ok {
			t.Fatalf("tail %d is refused", i)
		}
	}
	if _, ok := l.Tail(nil); ok {
		t.Error("there are more tails than may be")
	}
	l.Close()
	<-all.Done()
	if _, ok := l.Tail(nil); ok {
		t.Error("a tail of a closed log")
	}
}

// A million requests without a store take the memory of the queue, and no more.
func TestMemoryIsBounded(t *testing.T) {
	l := requestlog.New(requestlog.Config{}, &database{err: errors.New("down")}, zap.NewNop)
	l.Start()
	defer l.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const requests = 1_000_000
	for i := range requests {
		l.Add(&store.RequestLog{
			Method: "GET", Host: "api.example.com", Path: fmt.Sprintf("/orders/%d", i), Status: 200,
			ClientIP: "192.0.2.1", UserAgent: "curl/8", RequestID: fmt.Sprintf("%036d", i), CreatedAt: time.Now(),
		})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	stats := l.Stats()
	if stats.Dropped < requests-requestlog.DefaultQueue-requestlog.DefaultBatch || stats.Queued > requestlog.DefaultQueue {
		t.Errorf("%+v", stats)
	}
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if perRecord := grown / requestlog.DefaultQueue; perRecord > 700 {
		t.Errorf("the heap has grown by %d KB, %d bytes for each of the queue's records", grown>>10, perRecord)
	}
}
