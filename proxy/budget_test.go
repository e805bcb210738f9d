package proxy

import (
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	ten, none := 10.0, 0.0
	start := time.Unix(1_000_000, 0)
	tests := []struct {
		name     string
		retry    *store.Retry
		requests int
		want     int
	}{
		{name: "the minimum, without requests", want: 30},
		{name: "the minimum, with few requests", requests: 100, want: 30},
		{name: "a fifth of many requests", requests: 1000, want: 200},
		{name: "a tenth", retry: &store.Retry{BudgetPercent: &ten}, requests: 1000, want: 100},
		{name: "no minimum", retry: &store.Retry{BudgetMin: &none}, requests: 100, want: 20},
		{name: "nothing", retry: &store.Retry{BudgetMin: &none, BudgetPercent: &none}, requests: 1000, want: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBudget(tt.retry)
			// Spread over the window, so that every second is used.
			for i := range tt.requests {
				b.request(start.Add(time.Duration(i) * budgetSeconds * time.Second / time.Duration(tt.requests)))
			}
			now := start.Add(budgetSeconds*time.Second - time.Millisecond)
			taken := 0
			for b.take(now) {
				taken++
			}
			if taken != tt.want {
				t.Errorf("%d retries of %d requests, want %d", taken, tt.requests, tt.want)
			}
			if b.take(now.Add(-time.Hour)) {
				t.Error("a clock that goes back gives the budget anew")
			}
			// All of it has left the window.
			later := now.Add(2 * budgetSeconds * time.Second)
			again := 0
			for b.take(later) {
				again++
			}
			if want := int(b.minimum); again != want {
				t.Errorf("%d retries after the window, want %d", again, want)
			}
		})
	}
}

func TestBudgetSlides(t *testing.T) {
	t.Parallel()
	none := 0.0
	b := newBudget(&store.Retry{BudgetMin: &none})
	start := time.Unix(1_000_000, 0)
	var sent, retried int
	for second := range 60 {
		now := start.Add(time.Duration(second) * time.Second)
		for range 50 {
			b.request(now)
			sent++
			if b.take(now) {
				retried++
			}
		}
	}
	if share := float64(retried) / float64(sent); share > 0.201 || share < 0.19 {
		t.Errorf("%d of %d requests retried", retried, sent)
	}
}
