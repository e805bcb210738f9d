package gateway

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

const (
	// reportPause is the least time between two reports. Tables change no more often than
	// that under a stream of changes, so a barrier is hardly ever held up by it.
	reportPause = debounce

	// forgetInterval is how often rows of replicas that are long gone are removed.
	forgetInterval = 10 * time.Minute
)

// reporter keeps this gateway's row among the store's replicas.
type reporter struct {
	changed chan struct{} // holds one token while there is something to report

	mu       sync.Mutex // held while a report is written, so that none overtakes another
	row      store.Replica
	of       *routing.Table // which row.Failed is of
	reported bool           // row is in the store
	failing  bool
}

// ID returns the UUID that this gateway has among the replicas. Every Open makes
// another one.
func (g *Gateway) ID() string { return g.reporter.row.ID }

// Replicas returns the gateways on this store and the revision of its last change.
// Errors: ErrStoreDown.
func (g *Gateway) Replicas(ctx context.Context) ([]*store.Replica, int64, error) {
	list, revision, err := g.store.Replicas(ctx)
	return list, revision, g.storeError(err)
}

// reportApplied has the reporter look at the table.
func (g *Gateway) reportApplied() {
	select {
	case g.reporter.changed <- struct{}{}:
	default:
	}
}

// reportReplica writes the row at every heartbeat, and as soon as another revision is
// served.
func (g *Gateway) reportReplica(ctx context.Context) {
	select {
	case <-g.prepared:
	case <-ctx.Done():
		return
	}
	var forgotten time.Time
	for due := true; ; {
		g.report(ctx, due)
		if time.Since(forgotten) >= forgetInterval {
			forgotten = time.Now()
			g.forgetReplicas(ctx)
		}
		if !worker.Sleep(ctx, reportPause) {
			return
		}
		timer := time.NewTimer(jitter(g.cfg.ReplicaInterval))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			due = true
		case <-g.reporter.changed:
			timer.Stop()
			due = false // a new revision makes it a heartbeat all the same
		}
	}
}

// forgetReplicas removes the rows of those that are long gone.
func (g *Gateway) forgetReplicas(ctx context.Context) {
	g.reporter.mu.Lock()
	defer g.reporter.mu.Unlock()
	g.noteReport(ctx, g.store.ForgetReplica(ctx, noReplica))
}

// noReplica is the UUID of nobody.
const noReplica = "00000000-0000-0000-0000-000000000000"

// report writes the row if it says something new, or always.
func (g *Gateway) report(ctx context.Context, always bool) {
	r := &g.reporter
	r.mu.Lock()
	defer r.mu.Unlock()
	table := g.Table()
	if !always && (table == r.of || table == nil) {
		return
	}
	if table != nil && table != r.of {
		r.row.Revision, r.row.Failed = table.Revision(), failedRoutes(table)
	}
	// One that is given up may still arrive, after Close has removed the row.
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(closeTimeout, cancel) })()
	err := g.store.ReportReplica(writing, &r.row)
	if err == nil {
		r.of, r.reported = table, true
	}
	g.noteReport(ctx, err)
}

// noteReport logs when the database begins to take no reports, and when it does again.
// Whether the store is up is for others to say: reports are writes, which fail alone
// when a disk is full.
func (g *Gateway) noteReport(ctx context.Context, err error) {
	r := &g.reporter
	switch {
	case ctx.Err() != nil:
	case err != nil && !r.failing:
		r.failing = true
		g.cfg.Log().Warn("this replica can't report its state to the store", zap.Error(err))
	case err == nil && r.failing:
		r.failing = false
		g.cfg.Log().Info("this replica reports its state to the store again")
	}
}

// leaveReplicas removes the row, so that nobody waits for this gateway.
func (g *Gateway) leaveReplicas(ctx context.Context) {
	g.reporter.mu.Lock()
	defer g.reporter.mu.Unlock()
	if !g.reporter.reported || !g.StoreUp() {
		return
	}
	if err := g.store.ForgetReplica(ctx, g.reporter.row.ID); err != nil {
		g.cfg.Log().Warn("leaving the replicas", zap.Error(err))
	}
}

func failedRoutes(table *routing.Table) []store.FailedRoute {
	var failed []store.FailedRoute
	for row, problem := range table.Problems() {
		failed = append(failed, store.FailedRoute{ID: row.ID, Error: shorten(problem.Error())})
		if len(failed) == store.MaxFailedRoutes {
			break
		}
	}
	return failed
}

// shorten bounds what one error takes of a row.
func shorten(text string) string {
	const most = 500
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}
