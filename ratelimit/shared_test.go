package ratelimit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// remote is a server of which a test says how it fails. What it counts is real.
type remote struct {
	*ratelimit.Limiter
	mu   sync.Mutex
	fail func(ctx context.Context) error
}

func newRemote() *remote { return &remote{Limiter: ratelimit.New(ratelimit.Config{})} }

func (r *remote) failing(fail func(ctx context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}

func (r *remote) check(ctx context.Context) error {
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(ctx)
}

func (r *remote) Take(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge) ([]ratelimit.Decision, bool, error) {
	if err := r.check(ctx); err != nil {
		return dst, false, err
	}
	return r.Limiter.Take(ctx, dst, charges)
}

func (r *remote) Peek(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge) ([]ratelimit.Decision, error) {
	if err := r.check(ctx); err != nil {
		return dst, err
	}
	return r.Limiter.Peek(ctx, dst, charges)
}

func (r *remote) Reset(ctx context.Context, charges []ratelimit.Charge) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	return r.Limiter.Reset(ctx, charges)
}

// Ways to fail.
func refusing(context.Context) error { return errors.New("connection refused") }

func slow(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func panicking(context.Context) error { panic("a bug") }

var two = []ratelimit.Charge{{Rule: ratelimit.Rule{Name: "r", Limit: 2, Window: time.Hour}, Scope: "s", Key: "k", Cost: 1}}

func mustTake(t *testing.T, b ratelimit.Backend) (ratelimit.Decision, bool) {
	t.Helper()
	before := time.Now()
	d, allowed, err := b.Take(t.Context(), nil, two)
	if err != nil {
		t.Fatalf("taking: %v", err)
	}
	if took := time.Since(before); took > 50*time.Millisecond {
		t.Errorf("it took %v", took) // of the bubble's time
	}
	return d[0], allowed
}

func TestSharedAsksTheServer(t *testing.T) {
	t.Parallel()
	r, local := newRemote(), ratelimit.New(ratelimit.Config{})
	g := ratelimit.NewGuard(r, 0, zap.NewNop)
	s := ratelimit.NewShared(g, local, 0, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a reset stream counts too
	for i := range 3 {
		decisions, allowed, err := s.Take(ctx, make([]ratelimit.Decision, 1), two)
		if err != nil || allowed != (i < 2) || len(decisions) != 2 || decisions[1].Remaining != max(1-i, 0) {
			t.Errorf("take %d: %v %+v %v", i, allowed, decisions, err)
		}
	}
	if d, err := s.Peek(ctx, nil, two); err != nil || d[0].Remaining != 0 {
		t.Errorf("peeking: %+v, %v", d, err)
	}
	if keys := local.Stats().Keys; keys != 0 {
		t.Errorf("%d keys are in memory too", keys)
	}
	if err := s.Reset(ctx, two); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Peek(ctx, nil, two); err != nil || d[0].Remaining != 2 {
		t.Errorf("after the reset: %+v, %v", d, err)
	}
	if diff := cmp.Diff(ratelimit.GuardStats{OK: 6, Up: true}, g.Stats()); diff != "" {
		t.Errorf("the counters (-want +got):\n%s", diff)
	}
}

func TestSharedOnError(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context) error{"refusing": refusing, "slow": slow, "panicking": panicking} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRemote()
				r.failing(fail)
				with := func(o ratelimit.OnError) *ratelimit.Shared {
					return ratelimit.NewShared(ratelimit.NewGuard(r, 0, zap.NewNop), ratelimit.New(ratelimit.Config{}), 0, o)
				}
				local := with(ratelimit.OnErrorLocal)
				for i := range 10 {
					if d, allowed := mustTake(t, local); allowed != (i < 2) || d.Limit != 2 {
						t.Errorf("local, take %d: %v %+v", i, allowed, d)
					}
				}
				if d, err := local.Peek(t.Context(), nil, two); err != nil || d[0].Remaining != 0 {
					t.Errorf("local, peeking: %+v, %v", d, err)
				}
				if err := local.Reset(t.Context(), two); !errors.Is(err, ratelimit.ErrUnavailable) {
					t.Errorf("local, resetting: %v", err)
				}
				if _, allowed := mustTake(t, local); !allowed {
					t.Error("local: the reset has not forgotten what is in memory")
				}

				allow := with(ratelimit.OnErrorAllow)
				for range 10 {
					if d, allowed := mustTake(t, allow); !allowed || d != (ratelimit.Decision{Allowed: true, Limit: 2, Remaining: 2}) {
						t.Errorf("allow: %v %+v", allowed, d)
					}
				}
				if d, err := allow.Peek(t.Context(), nil, two); err != nil || d[0].Remaining != 2 {
					t.Errorf("allow, peeking: %+v, %v", d, err)
				}

				deny := with(ratelimit.OnErrorDeny)
				for range 10 {
					if _, allowed, err := deny.Take(t.Context(), nil, two); allowed || !errors.Is(err, ratelimit.ErrUnavailable) {
						t.Errorf("deny: %v, %v", allowed, err)
					}
				}
				if _, err := deny.Peek(t.Context(), nil, two); !errors.Is(err, ratelimit.ErrUnavailable) {
					t.Errorf("deny, peeking: %v", err)
				}
			})
		})
	}
}

func TestSharedRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		r := newRemote()
		g := ratelimit.NewGuard(r, time.Second, func() *zap.Logger { return zap.New(core) })
		s := ratelimit.NewShared(g, ratelimit.New(ratelimit.Config{}), 50*time.Millisecond, ratelimit.OnErrorAllow)
		r.failing(slow)
		for range 20 {
			mustTake(t, s)
		}
		want := ratelimit.GuardStats{Timeouts: 5, Open: 15, Fallbacks: 20}
		if diff := cmp.Diff(want, g.Stats()); diff != "" {
			t.Errorf("the counters while it is slow (-want +got):\n%s", diff)
		}

		// One call tries again, and the server still fails; others do not wait for it.
		r.failing(refusing)
		time.Sleep(time.Second + time.Millisecond)
		for range 5 {
			mustTake(t, s)
		}
		want = ratelimit.GuardStats{Timeouts: 5, Errors: 1, Open: 19, Fallbacks: 25}
		if diff := cmp.Diff(want, g.Stats()); diff != "" {
			t.Errorf("the counters after an attempt (-want +got):\n%s", diff)
		}

		r.failing(nil)
		time.Sleep(time.Second + time.Millisecond)
		for i := range 3 {
			if _, allowed := mustTake(t, s); allowed != (i < 2) {
				t.Errorf("take %d after the recovery is admitted: %v", i, allowed)
			}
		}
		want = ratelimit.GuardStats{OK: 3, Timeouts: 5, Errors: 1, Open: 19, Fallbacks: 25, Up: true}
		if diff := cmp.Diff(want, g.Stats()); diff != "" {
			t.Errorf("the counters after the recovery (-want +got):\n%s", diff)
		}
		var messages []string
		for _, entry := range logs.All() {
			messages = append(messages, entry.Message)
		}
		if diff := cmp.Diff([]string{"the rate limits' backend fails; going on without it", "the rate limits' backend is back"}, messages); diff != "" {
			t.Errorf("the log (-want +got):\n%s", diff)
		}
	})
}

// TestSharedIgnoredContext has a server that never answers and ignores contexts.
func TestSharedIgnoredContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		release := make(chan struct{})
		r.failing(func(context.Context) error {
			<-release
			return nil
		})
		g := ratelimit.NewGuard(r, time.Second, zap.NewNop)
		s := ratelimit.NewShared(g, ratelimit.New(ratelimit.Config{}), 50*time.Millisecond, ratelimit.OnErrorAllow)
		var wg sync.WaitGroup
		const calls = 5000
		for range calls {
			wg.Go(func() { mustTake(t, s) })
		}
		wg.Wait()
		got := g.Stats()
		if got.OK != 0 || got.Timeouts > 4096 || got.Fallbacks != calls || got.Timeouts+got.Busy+got.Open != calls || got.Up {
			t.Errorf("the counters are %+v", got)
		}
		close(release)
		synctest.Wait()
		r.failing(nil)
		time.Sleep(2 * time.Second)
		if mustTake(t, s); !g.Stats().Up {
			t.Error("it has not recovered")
		}
	})
}
