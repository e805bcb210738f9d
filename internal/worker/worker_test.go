package worker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/internal/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStopJoinsWorkers(t *testing.T) {
	t.Parallel()
	g := worker.New(zap.NewNop)
	ended := false
	g.Go("waiter", func(ctx context.Context) {
		<-ctx.Done()
		ended = true
	})
	g.Stop()
	if !ended {
		t.Fatal("Stop returned before the worker had ended")
	}
	g.Stop()
}

func TestEveryRunsOncePerInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := worker.New(zap.NewNop)
		var runs int
		g.Every("counter", time.Minute, func(context.Context) { runs++ })
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		g.Stop()
		if runs != 5 {
			t.Fatalf("ran %d times in 5 intervals", runs)
		}
	})
}

func TestPanicIsLoggedAndTickerGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.ErrorLevel)
		g := worker.New(func() *zap.Logger { return zap.New(core) })
		var runs int
		g.Every("fragile", time.Second, func(context.Context) {
			runs++
			panic("boom")
		})
		g.Go("one shot", func(context.Context) { panic("once") })
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		g.Stop()
		if runs != 3 {
			t.Errorf("ran %d times, want 3", runs)
		}
		if got := logs.FilterMessage("background worker panicked").Len(); got != 4 {
			t.Errorf("logged %d panics, want 4", got)
		}
	})
}
