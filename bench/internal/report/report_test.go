package report

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, math.NaN()},
		{"one", []float64{7}, 7},
		{"odd and unsorted", []float64{9, 1, 5}, 5},
		{"even", []float64{8, 2, 4, 100}, 6},
		{"an outlier moves nothing", []float64{3, 3, 1000}, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			before := slices.Clone(test.values)
			if diff := cmp.Diff(test.want, Median(test.values), cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, test.values); diff != "" {
				t.Errorf("the argument was changed: %s", diff)
			}
		})
	}
}

func TestRatio(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		values, base []float64
		want         float64
	}{
		{"itself", []float64{3, 4, 5}, []float64{3, 4, 5}, 1},
		// The medians are 300 and 200, but in most rounds it took twice as long.
		{"pair by pair", []float64{200, 300, 800}, []float64{100, 200, 400}, 2},
		{"no rounds", nil, nil, math.NaN()},
		{"rounds are missing", []float64{1, 2}, []float64{1}, math.NaN()},
		{"nothing to compare with", []float64{1}, []float64{0}, math.NaN()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, Ratio(test.values, test.base), cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		values []float64
		q      float64
		want   float64
	}{
		{"none", nil, 0.5, math.NaN()},
		{"one", []float64{7}, 0.25, 7},
		{"in between", []float64{40, 10, 20, 30}, 0.25, 17.5},
		{"on one", []float64{5, 4, 3, 2, 1}, 0.75, 4},
		{"the least", []float64{2, 1}, 0, 1},
		{"the most", []float64{2, 1}, 1, 2},
		{"beyond", []float64{2, 1}, 7, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, Quantile(test.values, test.q), cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRatios(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff([]float64{2, 0.5}, Ratios([]float64{4, 4}, []float64{2, 8})); diff != "" {
		t.Error(diff)
	}
	if got := Ratios([]float64{4, 4}, []float64{2, 0}); got != nil {
		t.Errorf("with a base of 0: %v", got)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	tests := []struct{ got, want string }{
		{Spread([]float64{431.4, 398, 412}), "412 (398-431)"},
		{Spread(nil), "-"},
		{Middle([]float64{43, 41, 40.04, 42}, 1), "41.5 (40.8-42.2)"},
		{Middle(nil, 1), "-"},
		{Times(1.234), "1.23 x"},
		{Times(math.NaN()), "-"},
		{Verdict(90, 250, 100), "meets the stretch goal"},
		{Verdict(250, 250, 100), "meets the bar, misses the stretch goal"},
		{Verdict(251, 250, 100), "MISSES the bar"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	got := Table([]string{"limiter", "ns"}, [][]string{
		{"ours", "250 (1-2)"},
		{"größer", "3", "beyond the header"},
		{"short"},
	})
	want := "" +
		"| limiter |        ns |\n" +
		"|---------|----------:|\n" +
		"| ours    | 250 (1-2) |\n" +
		"| größer  |         3 |\n" +
		"| short   |           |\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReplaceSection(t *testing.T) {
	t.Parallel()
	const section = "<!-- x: begin -->\nnew\n<!-- x: end -->"
	tests := []struct {
		name, doc, want string
		fails           bool
	}{
		{name: "empty", doc: "", want: section + "\n"},
		{name: "appended", doc: "# Title\n", want: "# Title\n\n" + section + "\n"},
		{name: "replaced", doc: "a\n<!-- x: begin -->\nold\nold\n<!-- x: end -->\nb\n", want: "a\n" + section + "\nb\n"},
		{name: "another's stays", doc: "<!-- y: begin -->\ny\n<!-- y: end -->\n", want: "<!-- y: begin -->\ny\n<!-- y: end -->\n\n" + section + "\n"},
		{name: "no end", doc: "<!-- x: begin -->\n", fails: true},
		{name: "no begin", doc: "<!-- x: end -->\n", fails: true},
		{name: "wrong way round", doc: "<!-- x: end --><!-- x: begin -->", fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ReplaceSection(test.doc, "x", "\nnew\n\n")
			if (err != nil) != test.fails {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWriteSection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	for _, body := range []string{"first", "second"} {
		if err := WriteSection(path, "x", body); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("<!-- x: begin -->\nsecond\n<!-- x: end -->\n", string(got)); diff != "" {
		t.Error(diff)
	}
	if err := WriteSection(t.TempDir(), "x", "a directory"); err == nil {
		t.Error("a directory was written")
	}
}

func TestCPUModel(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, info, want string }{
		{"found", "processor\t: 0\nmodel name\t: A CPU: 3 GHz\nmodel name\t: B\n", "A CPU: 3 GHz"},
		{"not there", "processor\t: 0\nmodel\t: 1\n", "unknown"},
		{"empty", "", "unknown"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := cpuModel(test.info, "unknown"); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
