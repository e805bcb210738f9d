package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every contender is configured to the same quota: it admits a key's first 100 of
// one moment, refuses the next, and does not mix it up with another key.
func TestContendersAreComparable(t *testing.T) {
	ctx, stop, err := startCaddy()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, c := range append(libraries(1000), handlers(ctx)...) {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			limiter, err := c.start()
			if err != nil {
				t.Fatal(err)
			}
			defer limiter.stop()
			allow, other := limiter.worker(), limiter.worker()
			for i := range limit {
				if !allow("192.0.2.1") {
					t.Fatalf("request %d is refused", i+1)
				}
			}
			// A bucket has one more after a hundredth of the window.
			if refused := !other("192.0.2.1"); !refused && time.Since(began) < window/limit/2 {
				t.Errorf("request %d is admitted", limit+1)
			}
			if !other("192.0.2.2") {
				t.Error("another key is refused")
			}
		})
	}
}

func TestExactLog(t *testing.T) {
	t.Parallel()
	var log exactLog
	for i := range limit {
		if !log.allow(time.Duration(i)) {
			t.Fatalf("request %d is refused", i+1)
		}
	}
	tests := []struct {
		at   time.Duration
		want bool
	}{
		{limit, false},
		{window - 1, false},
		{window, true}, // the one at 0 no longer counts
		{window, false},
		{window + 1, true},
	}
	for _, test := range tests {
		if got := log.allow(test.at); got != test.want {
			t.Errorf("at %v: %v, want %v", test.at, got, test.want)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	var log exactLog
	tests := []struct {
		name  string
		allow func(time.Duration) bool
		off   float64
		most  int
	}{
		{"an exact log has no error", log.allow, 0, limit},
		{"without a limit", func(time.Duration) bool { return true }, 1, 2 * limit},
		{"nothing admitted", func(time.Duration) bool { return false }, -1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			off, most := compare(spread(2*limit, 0, time.Second), test.allow)
			if math.Abs(off-test.off) > 1e-9 || most != test.most {
				t.Errorf("got %+.2f and %d, want %+.2f and %d", off, most, test.off, test.most)
			}
		})
	}
}

func TestArrivalsAreInOrder(t *testing.T) {
	t.Parallel()
	kinds := map[string]int{}
	for i, a := range makeArrivals() {
		kinds[a.kind]++
		for j := 1; j < len(a.at); j++ {
			if a.at[j] < a.at[j-1] {
				t.Fatalf("arrivals %d, %s: %v comes after %v", i, a.kind, a.at[j], a.at[j-1])
			}
		}
	}
	for _, kind := range arrivalKinds {
		if kinds[kind] == 0 {
			t.Errorf("no traffic is %s", kind)
		}
	}
}

func TestTraffics(t *testing.T) {
	t.Parallel()
	const keys = 10_000
	distinct := map[string]int{}
	all := makeKeys(keys)
	known := make(map[string]bool)
	for _, key := range all {
		known[key] = true
	}
	for _, traffic := range makeTraffics(all) {
		seen := make(map[string]bool)
		for i := range traffic.len() {
			key := traffic.key(i)
			if !known[key] {
				t.Fatalf("%s: there is no key %q", traffic.name, key)
			}
			seen[key] = true
		}
		distinct[traffic.name] = len(seen)
	}
	if distinct["hot"] != 1 || distinct["uniform"] != keys || distinct["zipf"] < 2 {
		t.Errorf("distinct keys: %v", distinct)
	}
	texts := make(map[string]bool)
	for _, key := range makeKeys(70_000) {
		texts[key] = true
	}
	if len(texts) != 70_000 {
		t.Errorf("%d texts of 70000 are distinct", len(texts))
	}
}

// A whole run in small, through the command line.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	args := []string{"-rounds", "2", "-keys", "2000", "-decisions", "4000", "-results", path}
	if err := run(t.Context(), args); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<!-- limiter: begin -->", "<!-- limiter: end -->",
		"`go run ./limiter -rounds 2 -keys 2000 -decisions 4000 -results ...`",
		"| isekai, Limiter.Allow ", "| caddy-ratelimit", "| throttled", "| go-limiter", "| ulule/limiter", "| x/time/rate",
		"of 2 rounds", "* Load average before it: ", "1.00 x", "* Error: ",
	} {
		if !strings.Contains(string(written), want) {
			t.Errorf("%q is missing in:\n%s", want, written)
		}
	}
	if strings.Contains(string(written), "NaN") {
		t.Errorf("a number is missing in:\n%s", written)
	}
}

func TestRunRefusesBadFlags(t *testing.T) {
	t.Parallel()
	tests := [][]string{
		{"-rounds", "0"},
		{"-keys", "1"},
		{"-decisions", "0"},
		{"-rounds", "many"},
	}
	for _, args := range tests {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}
