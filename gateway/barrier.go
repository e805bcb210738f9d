package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// Of the looks at the other replicas while somebody waits for them. The waits grow.
const (
	firstBarrierWait = 2 * time.Millisecond
	maxBarrierWait   = 50 * time.Millisecond

	// barrierGrace is how long a look may take that begins as the time is up.
	barrierGrace = time.Second
)

// NotAppliedError says that a change is committed, but not known to be served by every
// live replica.
type NotAppliedError struct {
	Revision int64            // of the change, or a later one; 0 if not known
	Laggards []*store.Replica // the live replicas that serve an earlier one
	Cause    error            // why that is not known, if it is not
}

func (e *NotAppliedError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("whether all replicas serve revision %d is not known: %v", e.Revision, e.Cause)
	}
	return fmt.Sprintf("%d replica(s) do not serve revision %d yet", len(e.Laggards), e.Revision)
}

// Unwrap returns the cause.
func (e *NotAppliedError) Unwrap() error { return e.Cause }

// WaitApplied waits until every live replica serves all that is committed when it is
// called, for at most timeout; it looks once in any case. A replica that has been silent
// for store.ReplicaTimeout is not live. The error is a *NotAppliedError.
//
// It looks by itself rather than being notified: replicas report to their table whether
// somebody waits or not, and a notification from each of them to all others, at every
// change, would cost the database much more than the few looks of who waits.
func (g *Gateway) WaitApplied(ctx context.Context, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout+barrierGrace)
	defer cancel()
	revision, err := g.store.Revision(ctx)
	if err != nil {
		return &NotAppliedError{Cause: err}
	}
	for wait := firstBarrierWait; ; wait = min(wait*3/2, maxBarrierWait) {
		laggards, err := g.laggards(ctx, revision)
		if err != nil {
			return &NotAppliedError{Revision: revision, Cause: err}
		}
		if len(laggards) == 0 {
			return nil
		}
		rest := time.Until(deadline)
		if rest <= 0 {
			return &NotAppliedError{Revision: revision, Laggards: laggards}
		}
		timer := time.NewTimer(min(wait, rest))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &NotAppliedError{Revision: revision, Laggards: laggards, Cause: ctx.Err()}
		}
	}
}

// laggards returns the live replicas that serve less than the revision. Whoever waits at
// the same time shares one look, also one that began before: a replica that had reported
// the revision then has it now.
func (g *Gateway) laggards(ctx context.Context, revision int64) ([]*store.Replica, error) {
	look := g.looks.DoChan("", func() (any, error) {
		return g.store.LiveReplicas(context.WithoutCancel(ctx)) // the store bounds it
	})
	select {
	case found := <-look:
		if found.Err != nil {
			return nil, found.Err
		}
		var list []*store.Replica
		for _, r := range found.Val.([]*store.Replica) {
			if r.Revision < revision {
				list = append(list, r)
			}
		}
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
