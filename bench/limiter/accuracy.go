package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// epoch is where the times of accuracy begin: an aligned window.
var epoch = time.Unix(1_800_000_000, 0).Truncate(24 * time.Hour)

// clocked is a limiter of one key that is told the time. Only those can be compared
// with an exact log over hours of traffic.
type clocked struct {
	name  string
	start func() (func(at time.Duration) bool, error)
}

func clockedLimiters() []clocked {
	return []clocked{
		{"isekai, Limiter.Allow", func() (func(time.Duration) bool, error) {
			now := epoch
			l := ratelimit.New(ratelimit.Config{Now: func() time.Time { return now }})
			return func(at time.Duration) bool {
				now = epoch.Add(at)
				return l.Allow(rule, "route:1", "key", 1).Allowed
			}, nil
		}},
		{named("x/time/rate", "golang.org/x/time"), func() (func(time.Duration) bool, error) {
			b := newBuckets()
			return func(at time.Duration) bool { return b.allow(epoch.Add(at), "key") }, nil
		}},
		{named("throttled", "github.com/throttled/throttled/v2"), startClockedThrottled},
	}
}

func startClockedThrottled() (func(time.Duration) bool, error) {
	store, err := memstore.New(0)
	if err != nil {
		return nil, fmt.Errorf("making throttled's store: %w", err)
	}
	now := epoch
	store.SetTimeNow(func() time.Time { return now })
	l, err := throttled.NewGCRARateLimiterCtx(throttled.WrapStoreWithContext(store), quota())
	if err != nil {
		return nil, fmt.Errorf("making throttled's limiter: %w", err)
	}
	ctx := context.Background()
	return func(at time.Duration) bool {
		now = epoch.Add(at)
		limited, _, err := l.RateLimitCtx(ctx, "key", 1)
		return !limited && err == nil
	}, nil
}

// accuracy is how one limiter compares with an exact log.
type accuracy struct {
	name string

	// worst is, for a kind of traffic, the error that is furthest from 0: 0.02 is
	// 2 % more admitted than by the log.
	worst map[string]float64

	// most is how many were admitted in any one window, of any traffic.
	most int
}

func accuracies() ([]accuracy, error) {
	var all []accuracy
	arrivals := makeArrivals()
	for _, c := range clockedLimiters() {
		a := accuracy{name: c.name, worst: make(map[string]float64)}
		for _, traffic := range arrivals {
			allow, err := c.start()
			if err != nil {
				return nil, err
			}
			off, most := compare(traffic.at, allow)
			if math.Abs(off) > math.Abs(a.worst[traffic.kind]) {
				a.worst[traffic.kind] = off
			}
			a.most = max(a.most, most)
		}
		all = append(all, a)
	}
	return all, nil
}

// compare asks allow and an exact log at the same times. It returns by which part
// allow admits more, and the most that it admits in any window.
func compare(at []time.Duration, allow func(time.Duration) bool) (off float64, most int) {
	var exact, own exactLog
	for _, t := range at {
		exact.allow(t)
		if allow(t) {
			own = append(own, t)
			most = max(most, own.in(t))
		}
	}
	return float64(len(own))/float64(len(exact)) - 1, most
}
