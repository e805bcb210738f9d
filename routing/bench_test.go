package routing_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// benchRows makes n routes over n/10 hosts, three in four with parameters.
func benchRows(n int) []*store.Route {
	rows := make([]*store.Route, n)
	for i := range rows {
		host := ""
		if n > 1 {
			host = fmt.Sprintf("tenant%d.example.com", i/10)
		}
		path := [...]string{"/api/v1/orders%d/{id}", "/api/v1/users%d/{id}/items/{item}", "/static%d/*", "/health%d"}[i%4]
		rows[i] = row(int64(i+1), "GET", host, fmt.Sprintf(path, i))
	}
	return rows
}

func benchRequests(n int) []*routing.Request {
	rnd := rand.New(rand.NewPCG(1, 1))
	list := make([]*routing.Request, 1<<16)
	for k := range list {
		i := rnd.IntN(n)
		host := ""
		if n > 1 {
			host = fmt.Sprintf("tenant%d.example.com", i/10)
		}
		path := [...]string{"/api/v1/orders%d/42", "/api/v1/users%d/42/items/7", "/static%d/css/a.css", "/health%d"}[i%4]
		list[k] = &routing.Request{Method: "GET", Host: host, Path: fmt.Sprintf(path, i)}
	}
	return list
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 1000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := routing.NewTable(benchRows(n), 1)
			requests := benchRequests(n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if table.Match(requests[i&(len(requests)-1)]) == nil {
					b.Fatal("no match")
				}
			}
		})
	}
}

// BenchmarkMatchOneHost has all routes under one host and one literal segment.
func BenchmarkMatchOneHost(b *testing.B) {
	const n = 100000
	rows := make([]*store.Route, n)
	requests := make([]*routing.Request, n)
	for i := range rows {
		rows[i] = row(int64(i+1), "GET", "", fmt.Sprintf("/api/r%d/{id}", i))
		requests[i] = &routing.Request{Method: "GET", Path: fmt.Sprintf("/api/r%d/42", i)}
	}
	rand.Shuffle(n, func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })
	table := routing.NewTable(rows, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if table.Match(requests[i%n]) == nil {
			b.Fatal("no match")
		}
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rows := benchRows(n)
			var before, after runtime.MemStats
			var table *routing.Table
			for b.Loop() {
				table = routing.NewTable(rows, 1)
			}
			b.StopTimer()
			runtime.GC()
			runtime.ReadMemStats(&before)
			runtime.KeepAlive(table) // until here, and no longer
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(before.HeapAlloc-after.HeapAlloc)/float64(n), "heapB/route")
			runtime.KeepAlive(rows)
		})
	}
}

func BenchmarkApplyOne(b *testing.B) {
	rows := benchRows(100000)
	table := routing.NewTable(rows, 1)
	rnd := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for i := int64(2); b.Loop(); i++ {
		changed := *rows[rnd.IntN(len(rows))]
		changed.Revision = i + 1000000
		table = table.Apply([]*store.Route{&changed}, i)
	}
}

func BenchmarkCanonicalPath(b *testing.B) {
	for _, path := range []string{"/api/v1/orders/42/items", "/caf%C3%A9/a%2Fb", "/caf%c3%a9/%61%20b/é"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := routing.CanonicalPath(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
