// Package worker runs background goroutines that have an owner: a Group starts
// them, stops them and waits until they are gone.
package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Group is a set of goroutines with one life. Make it with New.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	log    func() *zap.Logger
}

// New returns an empty group. The function log is called when there is
// something to log, so that a group that outlives a configuration of Caddy
// doesn't write to that configuration's closed sinks.
func New(log func() *zap.Logger) *Group {
	ctx, cancel := context.WithCancel(context.Background())
	return &Group{ctx: ctx, cancel: cancel, log: log}
}

// Context is done when Stop is called.
func (g *Group) Context() context.Context { return g.ctx }

// Go runs fn on a goroutine of the group. fn must return soon after its context
// is done. A panic in fn is logged and ends that worker only.
func (g *Group) Go(name string, fn func(ctx context.Context)) {
	g.wg.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				g.log().Error("background worker panicked",
					zap.String("worker", name), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			}
		}()
		fn(g.ctx)
	})
}

// Every runs fn on a goroutine of the group once per interval, the first time
// after one interval. A panic in fn is logged and does not end the worker.
func (g *Group) Every(name string, interval time.Duration, fn func(ctx context.Context)) {
	g.Go(name, func(ctx context.Context) {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := guard(ctx, fn); err != nil {
					g.log().Error("background worker panicked", zap.String("worker", name), zap.Error(err))
				}
			}
		}
	})
}

// Stop tells all workers to end and waits until they have. It may be called
// more than once, but no worker may be started after it.
func (g *Group) Stop() {
	g.cancel()
	g.wg.Wait()
}

// Sleep waits for d, and reports whether it has passed before ctx was done.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func guard(ctx context.Context, fn func(ctx context.Context)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	fn(ctx)
	return nil
}
