package main

import (
	"strings"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

func TestMeasureAndRender(t *testing.T) {
	t.Parallel()
	s := settings{dsn: pgtest.New(t), replicas: 2, routes: 20, samples: 10, load: 50}
	m, err := measure(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []figures{m.idle, m.loaded} {
		if len(f.all) != s.samples || len(f.first) != s.samples || len(f.barrier) != 3 || f.writes <= 0 {
			t.Errorf("got %+v", f)
		}
		for i := range f.all {
			if f.first[i] <= 0 || f.all[i] < f.first[i] {
				t.Errorf("sample %d: the first after %s, all after %s", i, f.first[i], f.all[i])
			}
		}
	}
	text := render(s, m, runInfo{command: "x", began: time.Now(), load: "0", server: "a server"})
	for _, want := range []string{"2 gateways, 20 routes, 10 changes", "idle, ", "at load, ", "barrier", "50 ms"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

func TestMilliseconds(t *testing.T) {
	t.Parallel()
	var times []time.Duration
	for n := range 100 {
		times = append(times, time.Duration(n+1)*time.Millisecond)
	}
	for p, want := range map[float64]float64{.5: 50, .99: 99, 1: 100, .001: 1} {
		if got := milliseconds(times, p); got != want {
			t.Errorf("the %g quantile is %g, want %g", p, got, want)
		}
	}
}
