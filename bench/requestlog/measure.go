package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/isekai-gateway/isekai/store"
)

// routes is how many routes the requests are of.
const routes = 100

// measurements are what a run has found.
type measurements struct {
	written   int
	took      time.Duration
	questions []question
}

// question is a filter of the log and how long its first page took.
type question struct {
	name   string
	filter store.LogFilter
	rows   int
	took   []time.Duration
}

func (q question) median() time.Duration { return q.took[len(q.took)/2] }
func (q question) worst() time.Duration  { return q.took[len(q.took)-1] }

// page is how many rows a question is answered with, the default of the API.
const page = 100

func measure(ctx context.Context, s settings) (*measurements, error) {
	st, err := store.Open(ctx, s.dsn, store.Options{QueryTimeout: time.Minute})
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	defer st.Close()
	if err := st.Migrate(ctx); err != nil {
		return nil, fmt.Errorf("migrating: %w", err)
	}
	now := time.Now().UTC()
	began := now.Add(-24 * time.Hour)
	for _, day := range []time.Time{began, now} { // their partitions
		if err := st.MaintainLogs(ctx, day, 7*24*time.Hour); err != nil {
			return nil, fmt.Errorf("making partitions: %w", err)
		}
	}
	for i := range routes {
		if _, err := st.Create(ctx, store.NewRoute(fmt.Sprintf("/service%d/*", i), "http://10.0.0.1"), store.Author{Actor: "bench"}); err != nil {
			return nil, fmt.Errorf("creating routes: %w", err)
		}
	}
	m := &measurements{written: s.rows}
	if m.took, err = fill(ctx, st, s, began); err != nil {
		return nil, fmt.Errorf("writing the log: %w", err)
	}
	for _, q := range questions(now) {
		for range s.asks {
			start := time.Now()
			rows, err := st.Logs(ctx, q.filter, nil, page)
			if err != nil {
				return nil, fmt.Errorf("asking for %s: %w", q.name, err)
			}
			q.took, q.rows = append(q.took, time.Since(start)), len(rows)
		}
		slices.Sort(q.took)
		m.questions = append(m.questions, q)
	}
	return m, nil
}

// fill writes the requests of a day, evenly spread, and returns how long that took.
func fill(ctx context.Context, st store.Store, s settings, began time.Time) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range s.writers {
		wg.Go(func() {
			writer := uuid.NewString()
			for number := int64(1); ; number++ {
				from := int(next.Add(int64(s.batch))) - s.batch
				if from >= s.rows || ctx.Err() != nil {
					return
				}
				batch := make([]*store.RequestLog, 0, s.batch)
				for i := from; i < min(from+s.batch, s.rows); i++ {
					batch = append(batch, request(i, began.Add(time.Duration(float64(24*time.Hour)*float64(i)/float64(s.rows)))))
				}
				if err := st.InsertLogs(ctx, store.LogBatch{Writer: writer, Number: number, Rows: batch}); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start), context.Cause(ctx)
}

// request makes the i-th request: one of a hundred fails, one of twenty is a known
// consumer's.
func request(i int, at time.Time) *store.RequestLog {
	random := rand.New(rand.NewPCG(uint64(i), 1))
	r := &store.RequestLog{
		RouteID: int64(1 + random.IntN(routes)), Method: "GET", Host: "api.example.com",
		Path: fmt.Sprintf("/service%d/items/%d", random.IntN(routes), random.IntN(1_000_000)), Status: 200,
		Duration: time.Duration(random.ExpFloat64() * float64(20*time.Millisecond)),
		ClientIP: fmt.Sprintf("192.0.2.%d", random.IntN(256)), UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		Upstream: "10.0.0.1:80", BytesOut: random.Int64N(10_000), RequestID: requestID(i), CreatedAt: at,
	}
	switch random.IntN(100) {
	case 0:
		r.Status, r.Error = 502, "dial tcp 10.0.0.1:80: connection refused"
	case 1, 2, 3:
		r.Status = 404
	}
	if random.IntN(20) == 0 {
		r.Consumer = fmt.Sprint("consumer", random.IntN(10))
	}
	return r
}

// requestID is as long as a UUID, and as those of version 7 do, grows.
func requestID(i int) string { return fmt.Sprintf("01930000-%04x-7000-8000-%012x", i>>16, i) }

func questions(now time.Time) []question {
	hour := store.LogFilter{From: now.Add(-time.Hour)}
	with := func(change func(*store.LogFilter)) store.LogFilter {
		f := hour
		change(&f)
		return f
	}
	return []question{
		{name: "all of the last hour", filter: hour},
		{name: "of it, one route's", filter: with(func(f *store.LogFilter) { f.RouteID = 7 })},
		{name: "of it, 5xx", filter: with(func(f *store.LogFilter) { f.StatusFrom, f.StatusTo = 500, 599 })},
		{name: "of it, 404", filter: with(func(f *store.LogFilter) { f.StatusFrom, f.StatusTo = 404, 404 })},
		{name: "of it, one consumer's", filter: with(func(f *store.LogFilter) { f.Consumer = "consumer7" })},
		{name: "of it, one client's", filter: with(func(f *store.LogFilter) { f.ClientIP = "192.0.2.7" })},
		{name: "of it, below a path", filter: with(func(f *store.LogFilter) { f.PathPrefix = "/service7/" })},
		{name: "of it, slower than 100 ms", filter: with(func(f *store.LogFilter) { f.MinLatency = 100 * time.Millisecond })},
		{name: "of it, what nothing matches", filter: with(func(f *store.LogFilter) { f.ClientIP = "203.0.113.1" })},
		{name: "one request of the day, by its id", filter: store.LogFilter{RequestID: requestID(1234)}},
		{name: "5xx of one route, of the day", filter: store.LogFilter{RouteID: 7, StatusFrom: 500, StatusTo: 599}},
	}
}
