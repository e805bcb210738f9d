package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// servedWithin bounds the wait for one change: beyond it, something is broken.
const servedWithin = 30 * time.Second

// figures are the times of the samples, in order.
type figures struct {
	all     []time.Duration // until all gateways serve it
	first   []time.Duration // until the first does
	barrier []time.Duration // of WaitApplied, after the write through a gateway
	writes  float64         // all changes per second while it was measured
}

type measurements struct{ idle, loaded figures }

// fleet is the gateways, and who waits for what they serve.
type fleet struct {
	gateways []*gateway.Gateway

	mu      sync.Mutex
	waiting int64 // the id of the route that is waited for
	served  chan time.Time
}

func measure(ctx context.Context, s settings) (*measurements, error) {
	f := &fleet{served: make(chan time.Time, s.replicas)}
	defer f.close()
	for range s.replicas {
		g, err := gateway.Open(gateway.Config{
			DSN: s.dsn, Log: zap.NewNop,
			PollInterval: time.Hour, // what is served was announced
		})
		if err != nil {
			return nil, err
		}
		f.gateways = append(f.gateways, g)
		g.Start(ctx)
		if g.Table() == nil {
			return nil, errors.New("a gateway could not load the routes")
		}
		g.Subscribe(&gateway.Subscriber{Changed: f.changed, CacheStats: func() cache.Stats { return cache.Stats{} }})
	}
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := f.fill(ctx, conn, s.routes); err != nil {
		return nil, err
	}

	m := new(measurements)
	if m.idle, err = f.sample(ctx, conn, s.samples); err != nil {
		return nil, err
	}
	stop, err := startLoad(ctx, s.dsn, s.load)
	if err != nil {
		return nil, err
	}
	m.loaded, err = f.sample(ctx, conn, s.samples)
	writes, failed := stop()
	m.loaded.writes += writes
	return m, errors.Join(err, failed)
}

func (f *fleet) close() {
	for _, g := range f.gateways {
		_ = g.Close()
	}
}

// changed is called by every gateway once it serves something new.
func (f *fleet) changed(added, _ []*routing.Route) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.ContainsFunc(added, func(r *routing.Route) bool { return r.ID == f.waiting }) {
		f.served <- now
	}
}

// fill makes the routes, and waits until all gateways serve them.
func (f *fleet) fill(ctx context.Context, conn *pgx.Conn, routes int) error {
	_, err := conn.Exec(ctx, `INSERT INTO routes (path, target_url)
		SELECT '/route/' || n || '/{id}', 'http://127.0.0.1:1' FROM generate_series(1, $1::int) AS n`, routes)
	if err != nil {
		return fmt.Errorf("making routes: %w", err)
	}
	return f.gateways[0].WaitApplied(ctx, servedWithin)
}

// sample changes one route after the other, and asks the barrier after every fourth.
func (f *fleet) sample(ctx context.Context, conn *pgx.Conn, samples int) (figures, error) {
	var m figures
	began := time.Now()
	for n := range samples {
		// Not in step with anything that happens at regular times.
		select {
		case <-time.After(5*time.Millisecond + rand.N(20*time.Millisecond)):
		case <-ctx.Done():
			return m, ctx.Err()
		}
		first, all, err := f.one(ctx, conn)
		if err != nil {
			return m, err
		}
		m.first, m.all = append(m.first, first), append(m.all, all)
		if n%4 > 0 {
			continue
		}
		took, err := f.write(ctx, n)
		if err != nil {
			return m, err
		}
		m.barrier = append(m.barrier, took)
	}
	m.writes = float64(len(m.all)+2*len(m.barrier)) / time.Since(began).Seconds()
	for _, times := range [][]time.Duration{m.first, m.all, m.barrier} {
		slices.Sort(times)
	}
	return m, nil
}

// one changes a route in plain SQL. The time begins as the commit is sent, so that the
// commit itself is in it.
func (f *fleet) one(ctx context.Context, conn *pgx.Conn) (first, all time.Duration, err error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return 0, 0, err
	}
	var id int64
	if err := tx.QueryRow(ctx, `UPDATE routes SET timeout = timeout % 1000 + 1
		WHERE id = (SELECT id FROM routes WHERE path LIKE '/route/%' ORDER BY random() LIMIT 1) RETURNING id`).Scan(&id); err != nil {
		return 0, 0, fmt.Errorf("changing a route: %w", err)
	}
	f.mu.Lock()
	f.waiting = id
	f.mu.Unlock()
	began := time.Now()
	if err := tx.Commit(ctx); err != nil {
		return 0, 0, err
	}
	for i := range f.gateways {
		select {
		case at := <-f.served:
			all = max(all, at.Sub(began))
			if i == 0 {
				first = at.Sub(began)
			}
		case <-time.After(servedWithin):
			return 0, 0, fmt.Errorf("route %d is not served after %s", id, servedWithin)
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	f.mu.Lock()
	f.waiting = 0
	f.mu.Unlock()
	return first, all, nil
}

// write makes a route through a gateway, as the API does, and returns how long the
// barrier took after it.
func (f *fleet) write(ctx context.Context, n int) (time.Duration, error) {
	g := f.gateways[n%len(f.gateways)]
	row, _, err := g.Create(ctx, store.NewRoute("/barrier", "http://127.0.0.1:1"), store.Author{Actor: "bench"})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := g.WaitApplied(ctx, servedWithin); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, g.Delete(ctx, row.ID, 0, store.Author{Actor: "bench"})
}

// startLoad changes routes of its own at a steady rate until the returned function is
// called, which tells the rate that it came to.
func startLoad(ctx context.Context, dsn string, perSecond int) (stop func() (rate float64, err error), err error) {
	ctx, cancel := context.WithCancel(ctx)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if _, err := conn.Exec(ctx, "INSERT INTO routes (path, target_url) VALUES ('/load', 'http://127.0.0.1:1')"); err != nil {
		cancel()
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	var (
		done   sync.WaitGroup
		writes atomic.Int64
		failed error
		began  = time.Now()
	)
	done.Go(func() {
		ticker := time.NewTicker(time.Second / time.Duration(perSecond))
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if _, err := conn.Exec(ctx, "UPDATE routes SET timeout = timeout % 1000 + 1 WHERE path = '/load'"); err != nil {
				if ctx.Err() == nil {
					failed = fmt.Errorf("writing at load: %w", err)
				}
				return
			}
			writes.Add(1)
		}
	})
	return func() (float64, error) {
		cancel()
		done.Wait()
		rate := float64(writes.Load()) / time.Since(began).Seconds()
		return rate, errors.Join(failed, conn.Close(context.WithoutCancel(ctx)))
	}, nil
}
