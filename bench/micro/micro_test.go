package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sampleOutput = `goos: linux
pkg: github.com/isekai-gateway/isekai/bench/micro
BenchmarkRouting/set=1,000_routes/lib=isekai,_Table.Match/op=hit-2         	 1000	       100.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkRouting/set=1,000_routes/lib=isekai,_Table.Match/op=miss-2        	 1000	        50.0 ns/op	       0 B/op	       0 allocs/op
BenchmarkRouting/set=1,000_routes/lib=fox/op=hit-2                         	 1000	       200.0 ns/op	      16 B/op	       1 allocs/op
BenchmarkCache/set=small/lib=isekai,_cache/op=read-2                       	 1000	       60.00 ns/op	        75.00 hits,%
PASS
`

func TestParseAndRender(t *testing.T) {
	t.Parallel()
	all, err := parse(strings.NewReader(strings.Repeat(sampleOutput, leastRounds)))
	if err != nil {
		t.Fatal(err)
	}
	var cells []cell
	for _, r := range all {
		cells = append(cells, r.cell)
		if n := len(r.values[unitTime]); n != leastRounds {
			t.Errorf("%+v has %d values", r.cell, n)
		}
	}
	want := []cell{
		{"Routing", "1,000 routes", "hit", "isekai, Table.Match"},
		{"Routing", "1,000 routes", "miss", "isekai, Table.Match"},
		{"Routing", "1,000 routes", "hit", "fox"},
		{"Cache", "small", "read", "isekai, cache"},
	}
	if diff := cmp.Diff(want, cells, cmp.AllowUnexported(cell{})); diff != "" {
		t.Fatal(diff)
	}
	text := render(settings{rounds: 6, time: time.Second}, all, runInfo{command: "go run ./micro", began: time.Unix(0, 0), load: "0.50"})
	flat := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"* Load average before it: 0.50", "* Date: 1970-01-01", "* Command: `go run ./micro`",
		"#### 1,000 routes | library | hit, ns | ratio | B/op | allocs/op | miss, ns | ratio | B/op | allocs/op |",
		"| isekai, Table.Match | 100 ± 0 % | 1.00 x | 0 | 0 | 50.0 ± 0 % | 1.00 x | 0 | 0 |",
		"| fox | 200 ± 0 % | 2.00 x | 16.0 | 1.00 | - | - | - | - |",
		"#### Small | library | read, ns | ratio | B/op | allocs/op | hits,% |",
		"| isekai, cache | 60.0 ± 0 % | 1.00 x | - | - | 75.0 |",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Pipeline") {
		t.Error("there is a section about what was not measured")
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Routing/lib=fox", "Routing/op=hit", "Routing/lib=fox/op=hit/other=x", "Routing/lib=fox/op=hit/plain"} {
		if _, err := parse(strings.NewReader("Benchmark" + name + " 1 1 ns/op\n")); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := parse(strings.NewReader("BenchmarkRouting/lib=fox/op=hit 1 many ns/op\n")); err == nil {
		t.Error("a value that is none was accepted")
	}
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	near := []float64{100, 101, 99, 100, 102, 98, 100, 101}
	overlapping := []float64{101, 99, 100, 101, 98, 102, 100, 100}
	twice := []float64{200, 201, 199, 200, 202, 198, 200, 201}
	tests := []struct{ name, got, want string }{
		{"bounds", summary(near, 1), "100 ± 2 %"},
		{"scaled", summary(near, 0.001), "0.10 ± 2 %"},
		{"too few for bounds", summary(near[:3], 1), "100"},
		{"none", summary(nil, 1), "-"},
		{"twice", ratio(twice, near), "2.00 x"},
		{"no difference", ratio(overlapping, near), "~"},
		{"itself", ratio(near, near), "1.00 x"},
		{"too few to prove", ratio(twice[:2], near[:2]), "2.00 x"},
		{"of nothing", ratio(near, nil), "-"},
		{"of zero", ratio(near, []float64{0}), "-"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, test.got, test.want)
		}
	}
	if near[0] != 100 || near[1] != 101 {
		t.Error("the values were sorted")
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-count", "0"}, {"-time", "0s"}, {"-unknown"}} {
		if err := run(context.Background(), args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// The whole program, for one subject: it builds the benchmarks, runs them in rounds, and
// writes a section.
func TestWholeBenchmark(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs benchmarks")
	}
	results := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := run(t.Context(), []string{"-count", "2", "-time", "1ms", "-bench", "Log|Pipeline", "-results", results}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(results)
	if err != nil {
		t.Fatal(err)
	}
	for _, lib := range queues() {
		if !strings.Contains(string(text), "\n| "+lib.name+" ") {
			t.Errorf("no row of %s in\n%s", lib.name, text)
		}
	}
	if !strings.Contains(string(text), "\n| the plugin alone ") || strings.Contains(string(text), "### Routing") {
		t.Errorf("results:\n%s", text)
	}
	if err := run(t.Context(), []string{"-count", "1", "-time", "1ms", "-bench", "NoneSuch", "-results", "-"}); err == nil {
		t.Error("no benchmark was no error")
	}
}
