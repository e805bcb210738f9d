package main

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
)

// BenchmarkMatch is the part of a run that changes to the table are compared by.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		hosts := min(1000, n)
		table := routing.NewTable(makeRows(n, hosts), 1)
		for _, t := range traffics {
			if n == 1 && t.miss {
				continue
			}
			b.Run(fmt.Sprintf("%d/%s", n, t.name), func(b *testing.B) {
				requests := makeRequests(t, 1_000_000, n, hosts)
				b.ReportAllocs()
				// Other processes of the machine take time, but not this thread's.
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				runtime.GC()
				b.ResetTimer()
				began := threadTime()
				for i := range b.N {
					if (table.Match(&requests[i%len(requests)]) == nil) != t.miss {
						b.Fatal("a match is wrong")
					}
				}
				b.ReportMetric(float64(threadTime()-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	rows := makeRows(100_000, 1000)
	b.ReportAllocs()
	for b.Loop() {
		routing.NewTable(rows, 1)
	}
}
