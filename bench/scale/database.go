package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/stats"
	"github.com/isekai-gateway/isekai/store"
)

// databaseFigures are of routes in PostgreSQL, in this process.
type databaseFigures struct {
	insert  time.Duration   // of all routes, as one revision
	load    []time.Duration // store.Load, sorted
	heap    float64         // bytes per loaded route, rows and table
	changes []time.Duration // store.Changes of one route, sorted
	served  []time.Duration // from the commit to a gateway's table, sorted
}

// sizeFigures are what capacity is planned by.
type sizeFigures struct {
	logRow   float64 // bytes of a row of the request log, with indexes
	logHeap  float64 // of these, the table's own
	series   int
	document int // bytes of a minute's statistics with so many routes
}

var bench = store.Author{Actor: "bench", Source: "bench"}

// fill puts routes into an empty database as one revision.
func fill(ctx context.Context, dsn string, rows []*store.Route) (time.Duration, error) {
	st, err := store.Open(ctx, dsn, store.Options{QueryTimeout: 5 * time.Minute})
	if err != nil {
		return 0, fmt.Errorf("opening store: %w", err)
	}
	defer st.Close()
	if err := st.Migrate(ctx); err != nil {
		return 0, fmt.Errorf("migrating: %w", err)
	}
	created := make([]*store.Route, len(rows))
	for i, row := range rows {
		copied := *row
		copied.ID = 0
		if copied.MatchKey, err = routing.MatchKey(row); err != nil {
			return 0, fmt.Errorf("making routes: %w", err)
		}
		created[i] = &copied
	}
	revision, err := st.Revision(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := st.Apply(ctx, store.Edits{Create: created}, revision, bench); err != nil {
		return 0, fmt.Errorf("inserting routes: %w", err)
	}
	return time.Since(began), nil
}

func measureDatabase(ctx context.Context, s settings, dsn string) (*databaseFigures, error) {
	f := new(databaseFigures)
	st, err := store.Open(ctx, dsn, store.Options{QueryTimeout: time.Minute})
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	defer st.Close()
	for range s.rounds {
		before := heapInUse()
		began := time.Now()
		rows, revision, err := st.Load(ctx)
		if err != nil {
			return nil, fmt.Errorf("loading: %w", err)
		}
		f.load = append(f.load, time.Since(began))
		table := routing.NewTable(rows, revision)
		rows = nil //nolint:ineffassign,wastedassign // so that only the table holds them, as in a gateway
		f.heap = (heapInUse() - before) / float64(table.Len())
		runtime.KeepAlive(table)
	}
	slices.Sort(f.load)
	if f.served, err = measureServed(ctx, s, dsn); err != nil {
		return nil, err
	}
	revision, err := st.Revision(ctx)
	if err != nil {
		return nil, err
	}
	for range s.applies {
		began := time.Now()
		if _, err := st.Changes(ctx, revision-1); err != nil {
			return nil, fmt.Errorf("reading a change: %w", err)
		}
		f.changes = append(f.changes, time.Since(began))
	}
	slices.Sort(f.changes)
	return f, nil
}

// measureServed changes routes in plain SQL and waits until a gateway's table has them.
func measureServed(ctx context.Context, s settings, dsn string) ([]time.Duration, error) {
	g, err := gateway.Open(gateway.Config{DSN: dsn, Log: zap.NewNop, PollInterval: time.Hour})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	g.Start(ctx)
	if g.Table() == nil {
		return nil, errors.New("a gateway could not load the routes")
	}
	if err := g.WaitApplied(ctx, time.Minute); err != nil {
		return nil, err
	}
	served := make(chan time.Time, 1)
	defer g.Subscribe(&gateway.Subscriber{
		Changed:    func(_, _ []*routing.Route) { served <- time.Now() },
		CacheStats: func() cache.Stats { return cache.Stats{} },
	})()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var times []time.Duration
	for i := range s.applies {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := tx.Exec(ctx, "UPDATE routes SET timeout = timeout % 1000 + 1 WHERE id = $1", 1+i*7919%s.routes); err != nil {
			return nil, fmt.Errorf("changing a route: %w", err)
		}
		began := time.Now()
		if err := tx.Commit(ctx); err != nil {
			return nil, err
		}
		select {
		case at := <-served:
			times = append(times, at.Sub(began))
		case <-time.After(time.Minute):
			return nil, errors.New("a change is not served after a minute")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	slices.Sort(times)
	return times, nil
}

// measureSizes writes request log rows, and a minute's statistics of as many routes as
// are counted apart by default.
func measureSizes(ctx context.Context, s settings, dsn string) (*sizeFigures, error) {
	st, err := store.Open(ctx, dsn, store.Options{QueryTimeout: time.Minute})
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	defer st.Close()
	now := time.Now().UTC()
	if err := st.MaintainLogs(ctx, now, 7*24*time.Hour); err != nil {
		return nil, fmt.Errorf("making partitions: %w", err)
	}
	writer := uuid.NewString()
	for from := 0; from < s.logRows; from += 1000 {
		batch := make([]*store.RequestLog, 0, 1000)
		for i := from; i < min(from+1000, s.logRows); i++ {
			batch = append(batch, &store.RequestLog{
				RouteID: int64(1 + i%s.routes), Method: "GET", Host: "tenant17.example.com", Path: fmt.Sprintf("/api/v1/orders%d/%d", i%s.routes, i),
				Status: 200, Duration: time.Duration(i%5000) * time.Microsecond, ClientIP: fmt.Sprintf("192.0.2.%d", i%256),
				UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
				Upstream:  "10.0.17.4:8080", BytesOut: int64(i % 10_000), RequestID: fmt.Sprintf("01993f2a-7b1c-7000-8000-%012x", i), CreatedAt: now,
			})
		}
		if err := st.InsertLogs(ctx, store.LogBatch{Writer: writer, Number: int64(from/1000 + 1), Rows: batch}); err != nil {
			return nil, fmt.Errorf("writing the log: %w", err)
		}
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var all, heap int64
	err = conn.QueryRow(ctx, `SELECT sum(pg_total_relation_size(inhrelid))::bigint, sum(pg_relation_size(inhrelid))::bigint
		FROM pg_inherits WHERE inhparent = 'request_logs'::regclass`).Scan(&all, &heap)
	if err != nil {
		return nil, fmt.Errorf("measuring the log: %w", err)
	}
	f := &sizeFigures{logRow: float64(all) / float64(s.logRows), logHeap: float64(heap) / float64(s.logRows), series: stats.DefaultMaxSeries}
	recorder := stats.NewRecorder(stats.Config{})
	for id := range f.series {
		for k := range 60 { // one a second, of various durations
			recorder.Observe(int64(id+1), &stats.Request{
				Method: "GET", Status: 200 + k/59*300, Took: time.Duration(1+id%7+k*k/40) * time.Millisecond, BytesOut: int64(1000 + k),
			})
		}
	}
	document, err := recorder.Last().Document()
	f.document = len(document)
	return f, err
}
