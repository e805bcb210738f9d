package mirror_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/mirror"
)

// TestHangingMirrorCostsOnlyCopies sends more requests than the queue holds while
// the mirror answers none; then it answers.
func TestHangingMirrorCostsOnlyCopies(t *testing.T) {
	t.Parallel()
	url, arrived, release := newHanging(t)
	q := newQueue(t, small())
	site := front(t, newMirror(t, q, small(), url, mirror.Settings{Timeout: time.Minute}), nil)
	for i := range 10 {
		// Each comes back, though no copy does.
		if status := send(t, "POST", site, strings.NewReader("hello")); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		if i < small().Concurrency {
			await(t, arrived, "the copy")
		}
	}
	awaitStats(t, q, mirror.Stats{Waiting: 3, Dropped: mirror.Dropped{QueueFull: 5}})
	release()
	awaitStats(t, q, mirror.Stats{Sent: 5, Dropped: mirror.Dropped{QueueFull: 5}})
}

// TestDestinationsDoNotStarveEachOther has as many hanging ones as can be without
// taking all workers.
func TestDestinationsDoNotStarveEachOther(t *testing.T) {
	t.Parallel()
	url, arrived, _ := newHanging(t)
	healthy, got := newReceiver(t)
	limits := mirror.Limits{Copies: 100, Memory: 1 << 20, Concurrency: 4}
	share := mirror.Limits{Copies: 10, Memory: 1 << 20, Concurrency: 2}
	q := newQueue(t, limits)
	slow := front(t, newMirror(t, q, share, url, mirror.Settings{Timeout: time.Minute}), nil)
	fast := front(t, newMirror(t, q, share, healthy, mirror.Settings{}), nil)
	for range 20 {
		send(t, "GET", slow, nil)
	}
	await(t, arrived, "the first copy")
	await(t, arrived, "the second copy")
	for i := range 30 {
		send(t, "GET", fmt.Sprint(fast, "/", i), nil)
		if c := await(t, got, "the other mirror's copy"); c.uri != fmt.Sprint("/", i) {
			t.Errorf("the mirror got %+v", c)
		}
	}
	awaitStats(t, q, mirror.Stats{Sent: 30, Waiting: 10, Dropped: mirror.Dropped{QueueFull: 8}})
}

// TestMemoryIsBounded sends bodies that fit neither the destination's part of the
// memory nor the queue's, and sees that what was taken is given back.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	url, _ := newReceiver(t)
	wide := mirror.Limits{Copies: 10, Memory: 1 << 20, Concurrency: 1}
	narrow := mirror.Limits{Copies: 10, Memory: 20_000, Concurrency: 1}
	for name, limits := range map[string][2]mirror.Limits{"queue": {narrow, wide}, "destination": {wide, narrow}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, limits[0])
			site := front(t, newMirror(t, q, limits[1], url, mirror.Settings{}), nil)
			for i := range int64(20) {
				send(t, "POST", site, strings.NewReader(strings.Repeat("x", 15_000)))
				send(t, "POST", site, unknownLength{strings.NewReader(strings.Repeat("x", 30_000))})
				awaitStats(t, q, mirror.Stats{Sent: i + 1, Dropped: mirror.Dropped{QueueFull: i + 1}})
			}
		})
	}
}

func TestCloseIsPromptAndCounts(t *testing.T) {
	t.Parallel()
	url, arrived, _ := newHanging(t)
	q := newQueue(t, small())
	m := newMirror(t, q, small(), url, mirror.Settings{Timeout: time.Minute})
	inFlight, proceed := make(chan struct{}), make(chan struct{})
	site := front(t, m, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			close(inFlight)
			<-proceed
		}
		_, _ = r.Body.Read(make([]byte, 10))
	})
	for range 5 {
		send(t, "GET", site, nil)
	}
	await(t, arrived, "a copy")
	await(t, arrived, "a copy")
	var held sync.WaitGroup
	held.Go(func() { send(t, "POST", site+"/held", strings.NewReader("hello")) })
	await(t, inFlight, "the request in flight")

	q.Close() // comes back, though the mirror answers nothing
	want := mirror.Stats{Dropped: mirror.Dropped{Shutdown: 5}}
	if got := q.Stats(); got != want {
		t.Errorf("the counts are %+v, want %+v", got, want)
	}
	close(proceed)
	held.Wait()
	want.Dropped.Shutdown++
	awaitStats(t, q, want)
	q.Close()
}

// TestCounts has many requests at once, closes the queue meanwhile, and misses
// none of them in the counts.
func TestCounts(t *testing.T) {
	t.Parallel()
	url, _ := newReceiver(t)
	q := mirror.NewQueue(mirror.Limits{Copies: 20, Memory: 2 << 20, Concurrency: 4}, nopLog)
	share := mirror.Limits{Copies: 10, Memory: 1 << 20, Concurrency: 3}
	mirrors := []*mirror.Mirror{
		newMirror(t, q, share, url, mirror.Settings{BodyMax: 9000}),
		newMirror(t, q, share, url, mirror.Settings{}),
	}
	var begun atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-stop:
					return
				default:
				}
				r, err := http.NewRequest("POST", "/", unknownLength{strings.NewReader(strings.Repeat("x", j%200*100))})
				if err != nil {
					t.Error(err)
					return
				}
				r.ContentLength = -1 // as a server has it
				begun.Add(1)
				end := mirrors[(i+j)%2].Begin(r)
				for buf := make([]byte, 1000); err == nil && j%7 > 0; {
					_, err = r.Body.Read(buf)
				}
				end()
			}
		})
	}
	reached := func(ok func(mirror.Stats) bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !ok(q.Stats()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("the counts don't get there: %+v", q.Stats())
				return
			}
		}
	}
	reached(func(s mirror.Stats) bool {
		return s.Sent > 100 && s.Dropped.TooLarge > 0 && s.Dropped.Incomplete > 0 && s.Dropped.QueueFull > 0
	})
	q.Close()
	reached(func(s mirror.Stats) bool { return s.Dropped.Shutdown > 100 })
	close(stop)
	wg.Wait()
	if s := q.Stats(); s.Sent+s.Failed+s.Dropped.Total() != begun.Load() || s.Waiting != 0 {
		t.Errorf("of %d requests are counted %+v", begun.Load(), s)
	}
}

func TestFailuresAreLoggedOnce(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	logger := zap.New(core)
	q := mirror.NewQueue(small(), func() *zap.Logger { return logger })
	t.Cleanup(q.Close)
	url, _, _ := newHanging(t)
	site := front(t, newMirror(t, q, mirror.Limits{Copies: 1, Memory: 1 << 20, Concurrency: 1}, url, mirror.Settings{Timeout: time.Second}), nil)
	for range 10 {
		send(t, "GET", site, nil)
	}
	// On a slow machine a copy has failed before the last request comes, and one more
	// finds a place.
	awaitStatsThat(t, q, "several copies have failed", func(s mirror.Stats) bool {
		return s.Failed >= 2 && s.Failed+s.Dropped.QueueFull == 10
	})
	if logs.Len() != 1 {
		t.Errorf("there are %d lines: %v", logs.Len(), logs.All())
	}
}
