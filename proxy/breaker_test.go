package proxy

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// ask sends a request through the breaker, and reports whether it let it through.
func ask(b *breaker, outcome error) bool {
	done, ok := b.admit()
	if ok {
		done(outcome)
	}
	return ok
}

func TestBreakerOpensAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(&store.CircuitBreaker{FailureRatio: 0.5, MinRequests: 10, Window: 10, OpenFor: 5, Probes: 2})
		for range 9 {
			ask(b, errFailed)
		}
		if b.state() != "closed" {
			t.Fatal("it opened below the minimum of requests")
		}
		ask(b, errFailed)
		if b.state() != "open" || b.opened.Load() != 1 {
			t.Fatalf("it is %s, opened %d times", b.state(), b.opened.Load())
		}
		if ask(b, nil) {
			t.Error("it lets a request through while open")
		}
		time.Sleep(3 * time.Second)
		if wait := b.wait(time.Now()); wait != 2*time.Second {
			t.Errorf("it says to wait %s", wait)
		}
		time.Sleep(2*time.Second + time.Millisecond)
		one, ok1 := b.admit()
		two, ok2 := b.admit()
		if _, third := b.admit(); !ok1 || !ok2 || third || b.state() != "half-open" {
			t.Fatalf("probes: %v %v %v, %s", ok1, ok2, third, b.state())
		}
		// A probe that says nothing makes room for another.
		one(errNoJudge)
		one, ok := b.admit()
		if !ok {
			t.Fatal("no probe in the place of one without outcome")
		}
		one(nil)
		if b.state() != "half-open" {
			t.Fatal("it closed after one probe of two")
		}
		two(nil)
		if b.state() != "closed" || b.wait(time.Now()) != 0 {
			t.Fatalf("it is %s after its probes", b.state())
		}
	})
}

func TestBreakerReopens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(&store.CircuitBreaker{MinRequests: 1, OpenFor: 1})
		ask(b, errFailed)
		time.Sleep(time.Second + time.Millisecond)
		ask(b, errFailed)
		if b.state() != "open" || b.opened.Load() != 2 {
			t.Errorf("it is %s, opened %d times", b.state(), b.opened.Load())
		}
	})
}

func TestBreakerWindowSlides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(&store.CircuitBreaker{MinRequests: 10, Window: 10})
		for range 9 {
			ask(b, errFailed)
		}
		time.Sleep(11 * time.Second)
		ask(b, errFailed)
		if b.state() != "closed" {
			t.Error("failures count that have left the window")
		}
	})
}

func TestBreakerJudge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		settings store.CircuitBreaker
		status   int
		latency  time.Duration
		failed   bool
	}{
		{name: "success", status: 200},
		{name: "client's fault", status: 404},
		{name: "5xx", status: 500, failed: true},
		{name: "a status that is named", settings: store.CircuitBreaker{Statuses: []int{429}}, status: 429, failed: true},
		{name: "5xx if others are named", settings: store.CircuitBreaker{Statuses: []int{429}}, status: 500},
		{name: "slow but unbounded", status: 200, latency: time.Hour},
		{name: "slow", settings: store.CircuitBreaker{Slow: 0.5}, status: 200, latency: 500 * time.Millisecond, failed: true},
		{name: "not slow", settings: store.CircuitBreaker{Slow: 0.5}, status: 200, latency: 499 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := newBreaker(&tt.settings).judge(tt.status, tt.latency); (err != nil) != tt.failed {
				t.Errorf("judged %v", err)
			}
		})
	}
}
