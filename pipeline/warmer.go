package pipeline

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/routing"
)

// warmer keeps the forwarders of routes whose targets are actively asked for their
// health, so that they are asked also while no request comes. The zero value is
// ready; it does nothing before start.
type warmer struct {
	mu      sync.Mutex
	adding  map[*routing.Route]struct{} // whose forwarder is to be held
	going   map[*routing.Route]struct{} // whose forwarder is to be let go
	held    map[*routing.Route]*proxy.Forwarder
	wake    chan struct{}
	stop    context.CancelFunc
	working sync.WaitGroup
	closed  bool
}

// add has the route's forwarder held, if its targets are to be asked.
func (w *warmer) add(route *routing.Route) {
	u := route.Spec().Upstream
	if !route.Enabled() || u == nil || u.Health == nil || u.Health.Active == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	delete(w.going, route)
	w.plan(&w.adding, route)
}

// drop has the route's forwarder let go.
func (w *warmer) drop(route *routing.Route) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.adding, route)
	if _, held := w.held[route]; held {
		w.plan(&w.going, route)
	}
}

// plan must be called with the lock held.
func (w *warmer) plan(list *map[*routing.Route]struct{}, route *routing.Route) {
	if *list == nil {
		*list = make(map[*routing.Route]struct{})
	}
	(*list)[route] = struct{}{}
	if w.wake != nil {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// start does what was planned, and from now on at once, on a goroutine of its own:
// making a forwarder takes longer than whoever tells of a route can wait.
func (w *warmer) start(s *Set) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.wake != nil {
		return
	}
	w.wake = make(chan struct{}, 1)
	w.wake <- struct{}{}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.working.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-w.wake:
				w.work(ctx, s)
			}
		}
	})
}

// work does what is planned. What is new comes first, so that a pool that a changed
// route goes on using stays in use.
func (w *warmer) work(ctx context.Context, s *Set) {
	for ctx.Err() == nil {
		w.mu.Lock()
		for route := range w.adding {
			w.mu.Unlock()
			w.hold(s, route)
			w.mu.Lock()
			break
		}
		if len(w.adding) > 0 {
			w.mu.Unlock()
			continue
		}
		gone := w.going
		w.going = nil
		var released []*proxy.Forwarder
		for route := range gone {
			if f := w.held[route]; f != nil {
				released = append(released, f)
				delete(w.held, route)
			}
		}
		w.mu.Unlock()
		for _, f := range released {
			w.release(s, f)
		}
		return
	}
}

// hold makes the forwarder of a route that is planned to be held.
func (w *warmer) hold(s *Set, route *routing.Route) {
	var f *proxy.Forwarder
	row := route.Row()
	target, err := check(row, s.compiler.plugins, s.compiler.policy, s.compiler.methods())
	if err == nil {
		err = proxy.Serialize(func() (err error) {
			f, err = s.compiler.forwarders.Acquire(target, row.Upstream, row.PreserveHost)
			return err
		})
	}
	if err != nil {
		s.logger.Error("targets can't be asked for their health", zap.Int64("route", route.ID), zap.Error(err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, wanted := w.adding[route]
	delete(w.adding, route)
	switch {
	case f == nil:
	case wanted && w.held[route] == nil:
		if w.held == nil {
			w.held = make(map[*routing.Route]*proxy.Forwarder)
		}
		w.held[route] = f
	default:
		// It was dropped meanwhile.
		w.working.Go(func() { w.release(s, f) })
	}
}

func (w *warmer) release(s *Set, f *proxy.Forwarder) {
	if err := f.Release(); err != nil {
		s.logger.Warn("giving back a forwarder", zap.Error(err))
	}
}

// each calls fn with what is held.
func (w *warmer) each(fn func(*routing.Route, *proxy.Forwarder)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for route, f := range w.held {
		fn(route, f)
	}
}

// close lets go of everything and joins the worker.
func (w *warmer) close(s *Set) {
	w.mu.Lock()
	w.closed = true
	stop := w.stop
	w.mu.Unlock()
	if stop != nil {
		stop()
		w.working.Wait()
	}
	for _, f := range w.held {
		w.release(s, f)
	}
	w.held, w.adding, w.going = nil, nil, nil
}
