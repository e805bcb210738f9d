package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/peers"
)

// window is a time in which something went on.
type window struct {
	from, to time.Time
	cut      bool // it went on, or would have, when nobody looked any more
}

// event does something to a gateway that is under load, and returns when. It ends early,
// without an error, when ctx is done.
type event struct {
	// before is done before the load, which is going to last so long. It may be nil.
	before func(ctx context.Context, at *peers.Running, lasts time.Duration) error

	// during is done while the load runs. Every round makes routes of its own.
	during func(ctx context.Context, at *peers.Running, round int) ([]window, error)
}

// is reports whether there is anything.
func (e event) is() bool { return e.during != nil }

// imported is how many routes an import has.
const imported = 1000

// pause is between an import and the next one.
const pause = time.Second

// echo is how long after its end an event's requests still count as such: those that
// wait behind others.
const echo = 50 * time.Millisecond

// importAtOnce makes routes by single requests to the API.
var importAtOnce = event{during: func(ctx context.Context, at *peers.Running, round int) ([]window, error) {
	return again(ctx, func(ctx context.Context, n int) error {
		routes := make([]map[string]any, imported)
		for i := range routes {
			routes[i] = newRoute(round, n, i)
		}
		return peers.Import(ctx, at.Admin, routes)
	})
}}

// importOneByOne makes them by a request each.
var importOneByOne = event{during: func(ctx context.Context, at *peers.Running, round int) ([]window, error) {
	return again(ctx, func(ctx context.Context, n int) error {
		for i := range imported {
			if err := peers.Create(ctx, at.Admin, newRoute(round, n, i)); err != nil {
				return err
			}
		}
		return nil
	})
}}

func newRoute(round, n, i int) map[string]any {
	return map[string]any{
		"path": fmt.Sprintf("/import/%d/%d/%d/{id}", round, n, i), "target_url": "http://127.0.0.1:9", "rate_limit": 100,
	}
}

// again does something, with a pause behind it, until ctx is done. What is not complete
// then has gone on until then.
func again(ctx context.Context, do func(ctx context.Context, n int) error) ([]window, error) {
	var all []window
	for n := 0; ctx.Err() == nil; n++ {
		from := time.Now()
		err := do(ctx, n)
		all = append(all, window{from, time.Now(), ctx.Err() != nil})
		if err != nil && ctx.Err() == nil {
			return all, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return all, nil
}

// A gateway writes its snapshot four times as long after a change as writing the last
// one took, and at the earliest after a second (snapshotShare and DefaultSnapshotDelay
// in package gateway). So the change comes before the load.
const (
	snapshotShare    = 4
	snapshotDelay    = time.Second
	snapshotPatience = 2 * time.Minute
)

// writeSnapshot changes a route so early that the snapshot is written in the middle of
// the load.
var writeSnapshot = event{
	before: func(ctx context.Context, at *peers.Running, lasts time.Duration) error {
		// One without load, to know how long it takes.
		if err := peers.Create(ctx, at.Admin, newRoute(-1, int(time.Now().UnixNano()), 0)); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, snapshotPatience)
		defer cancel()
		written, err := watchSnapshot(limited, at)
		if err != nil || len(written) == 0 {
			return errors.Join(errors.New("no snapshot was written"), err)
		}
		took := written[0].to.Sub(written[0].from)
		if err := peers.Create(ctx, at.Admin, newRoute(-2, int(time.Now().UnixNano()), 0)); err != nil {
			return err
		}
		select {
		case <-time.After(max(snapshotDelay, snapshotShare*took) - lasts/2):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	},
	during: func(ctx context.Context, at *peers.Running, round int) ([]window, error) {
		// Of a small table it is written so soon that it may have been before now.
		if err := peers.Create(ctx, at.Admin, newRoute(round, int(time.Now().UnixNano()), 0)); err != nil && ctx.Err() == nil {
			return nil, err
		}
		return watchSnapshot(ctx, at)
	},
}

// watchSnapshot waits until a snapshot is written, or ctx is done, and returns when it
// was: from when the file begins, beside the one that it replaces, until it has its name.
func watchSnapshot(ctx context.Context, at *peers.Running) ([]window, error) {
	pattern := filepath.Join(at.Dir, "."+peers.SnapshotFile+"-*")
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var from time.Time
	for {
		there, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		switch {
		case len(there) > 0 && from.IsZero():
			from = time.Now()
		case len(there) == 0 && !from.IsZero():
			return []window{{from, time.Now(), false}}, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if from.IsZero() {
				return nil, nil
			}
			return []window{{from, time.Now(), true}}, nil
		}
	}
}
