package slide_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/internal/slide"
)

// used is the arithmetic in other words: at is how far into a window that follows
// the reading's, or into its own.
func used(r slide.Reading, window, now int64) int64 {
	previous, current := r.Previous, r.Current
	for w := r.Now / window; w < now/window; w++ {
		previous, current = current, 0
	}
	n := current
	for weighted := previous * (window - now%window); weighted > 0; weighted -= window {
		n++
	}
	return n
}

// TestDecideAgainstStepping steps through time, millisecond by millisecond.
func TestDecideAgainstStepping(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		c := slide.Counter{Window: 1 + random.Int64N(60), Limit: 1 + random.Int64N(12), Cost: random.Int64N(14)}
		r := slide.Reading{
			Now:      1000*c.Window + random.Int64N(c.Window),
			Previous: random.Int64N(c.Limit + 3), Current: random.Int64N(c.Limit + 3),
		}
		r.Fits = used(r, c.Window, r.Now)+c.Cost <= c.Limit
		d := c.Decide(r, r.Fits)
		after := r
		if r.Fits {
			after.Current += c.Cost
		}
		if want := max(c.Limit-used(after, c.Window, r.Now), 0); int64(d.Remaining) != want {
			t.Fatalf("%+v %+v: remaining is %d, want %d", c, r, d.Remaining, want)
		}
		until := func(room int64) time.Duration {
			for ms := int64(1); ; ms++ {
				if used(after, c.Window, r.Now+ms) <= room {
					return time.Duration(ms) * time.Millisecond
				}
			}
		}
		var reset, retry time.Duration
		if int64(d.Remaining) < c.Limit {
			reset = until(c.Limit - int64(d.Remaining) - 1)
		}
		if !r.Fits {
			retry = until(max(c.Limit-c.Cost, 0))
		}
		if d.Reset != reset || d.RetryAfter != retry {
			t.Fatalf("%+v %+v: reset %v and retry after %v, want %v and %v", c, r, d.Reset, d.RetryAfter, reset, retry)
		}
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	rule := ratelimit.Rule{Name: "r", Limit: 5, Window: time.Second}
	charge := func(edit func(*ratelimit.Charge)) ratelimit.Charge {
		c := ratelimit.Charge{Rule: rule, Scope: "s", Key: "k", Cost: 1}
		edit(&c)
		return c
	}
	charges := []ratelimit.Charge{
		charge(func(*ratelimit.Charge) {}),
		charge(func(c *ratelimit.Charge) { c.Rule.Limit = 0 }),
		charge(func(c *ratelimit.Charge) { c.Rule.Name = "r2" }),
		charge(func(c *ratelimit.Charge) { c.Rule.Window = time.Minute }),
		charge(func(c *ratelimit.Charge) { c.Scope, c.Key = "sk", "" }),
		charge(func(c *ratelimit.Charge) { c.Scope, c.Key = "", "sk" }),
		charge(func(c *ratelimit.Charge) { c.Rule.Limit = 7 }),
	}
	dst, counters := slide.Plan(make([]ratelimit.Decision, 2), charges, true)
	if len(dst) != 2+len(charges) || len(counters) != len(charges)-1 {
		t.Fatalf("%d decisions and %d counters", len(dst), len(counters))
	}
	ids, tags := make(map[string]int), make(map[string]int)
	for i, c := range counters {
		if i > 0 && bytes.Compare(counters[i-1].ID, c.ID) > 0 {
			t.Error("the counters are not in the order of their IDs")
		}
		ids[string(c.ID)]++
		tags[string(c.Tag)]++
	}
	// A limit is no part of it, or a change would forget what was used.
	if len(ids) != len(charges)-2 || len(tags) != 3 {
		t.Errorf("there are %d IDs and %d tags", len(ids), len(tags))
	}
	if _, asked := slide.Plan(nil, charges, false); asked[0].Cost != 0 {
		t.Error("asking has a cost")
	}
}
