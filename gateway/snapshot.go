package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/snapshot"
	"github.com/isekai-gateway/isekai/store"
)

const (
	// snapshotShare is the least part of the time in which no snapshot is written, as a
	// multiple of what writing one takes: that of a large table takes a while.
	snapshotShare = 4

	// A writer of snapshots works and rests in turns, so that it takes a fifth of a
	// processor at most. Without, requests on a machine that has but one wait behind it
	// again and again.
	snapshotTurn = 250 * time.Microsecond
	snapshotRest = time.Millisecond

	// touchInterval is how precisely a snapshot tells how old it is.
	touchInterval = time.Minute

	// coldStartPatience bounds how long a start waits for the store while there may be
	// a snapshot. It is less than what a start of Caddy waits for the routes.
	coldStartPatience = 2 * time.Second
)

// firstSync reads the routes as soon as the gateway is opened, from the store or else
// from the snapshot.
func (g *Gateway) firstSync(ctx context.Context) {
	if g.cfg.Snapshot == "" {
		// A store that is already in use is read at once. What is wrong with another
		// one is told when it is prepared.
		_ = g.sync(ctx)
		return
	}
	patient, cancel := context.WithTimeout(ctx, coldStartPatience)
	defer cancel()
	err := g.sync(patient)
	if err == nil || ctx.Err() != nil {
		return
	}
	saved, unread := snapshot.Read(g.cfg.Snapshot, g.cfg.SnapshotKey)
	switch {
	case errors.Is(unread, fs.ErrNotExist):
		return
	case unread != nil:
		g.badSnapshot = unread
		return
	}
	g.noteStore(err)
	g.health.Lock()
	g.health.snapshot, g.health.current = saved.SavedAt, saved.CurrentAt
	g.health.Unlock()
	// Numbers of revisions may have gone back and up again meanwhile.
	g.stale.Store(true)
	g.cfg.Log().Warn("serving the routes of the snapshot, since the store does not answer",
		zap.String("file", g.cfg.Snapshot), zap.Time("saved_at", saved.SavedAt), zap.Int64("revision", saved.Revision))
	g.Credentials.restore(saved.Credentials)
	g.publish(nil, routing.NewTable(saved.Routes, saved.Revision), ids(saved.Routes))
}

// refuseSnapshot tells of a snapshot that can't be used and puts it out of the way of
// the next one.
func (g *Gateway) refuseSnapshot() {
	if g.badSnapshot == nil {
		return
	}
	log := g.cfg.Log().With(zap.String("file", g.cfg.Snapshot))
	if errors.Is(g.badSnapshot, snapshot.ErrCorrupt) || errors.Is(g.badSnapshot, snapshot.ErrFormat) {
		if aside, err := snapshot.SetAside(g.cfg.Snapshot); err == nil {
			log = log.With(zap.String("renamed_to", aside))
		}
	}
	log.Error("the snapshot is not used", zap.Error(g.badSnapshot))
}

// keepSnapshot writes every table that is known to be the store's into the file.
func (g *Gateway) keepSnapshot(ctx context.Context) {
	for _, stage := range []chan struct{}{g.begun, g.attempted} {
		select {
		case <-stage:
		case <-ctx.Done():
			return
		}
	}
	g.refuseSnapshot()
	k := keeper{g: g}
	touch := time.NewTicker(touchInterval)
	defer touch.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			k.write(last, nil) // what the last moment has brought
			return
		case <-touch.C:
			k.write(ctx, restful(ctx)) // what could not be written before
			k.touch()
		case <-g.saved:
			if worker.Sleep(ctx, max(g.cfg.SnapshotDelay, snapshotShare*k.took)) {
				k.write(ctx, restful(ctx))
			}
		}
	}
}

// keeper is the state of keepSnapshot.
type keeper struct {
	g       *Gateway
	written *routing.Table
	known   []*store.Credential
	took    time.Duration
	failing bool
}

// restful returns what has its caller rest for most of the time, until ctx is done.
func restful(ctx context.Context) func() {
	woke := time.Now()
	return func() {
		if time.Since(woke) >= snapshotTurn && worker.Sleep(ctx, snapshotRest) {
			woke = time.Now()
		}
	}
}

// write writes the table, unless it was. Between the lines it calls rest, if not nil.
func (k *keeper) write(ctx context.Context, rest func()) {
	table := k.g.Table()
	if table == nil || table == k.written || k.g.stale.Load() {
		return
	}
	if k.g.credentialsChanged.Swap(false) {
		known, err := k.g.store.LiveCredentials(ctx, maxCredentials)
		if err != nil {
			// With the old ones, a key that was revoked might come back to life.
			k.g.credentialsChanged.Store(true)
			k.note(fmt.Errorf("reading credentials: %w", err))
			return
		}
		k.known = known
	}
	began := time.Now()
	err := snapshot.Write(k.g.cfg.Snapshot, snapshot.Contents{
		Revision: table.Revision(), Len: table.Len(), Credentials: k.known,
		Routes: func(yield func(*store.Route) bool) {
			for row := range table.All() {
				if !yield(row) {
					return
				}
			}
		},
	}, k.g.cfg.SnapshotKey, rest)
	k.took = time.Since(began)
	if err == nil {
		k.written = table
	}
	k.note(err)
}

// touch notes that the table that was written is the store's still.
func (k *keeper) touch() {
	if k.written != nil && k.written == k.g.Table() && k.g.StoreUp() {
		k.note(snapshot.Touch(k.g.cfg.Snapshot))
	}
}

// note logs when snapshots begin to fail, and when they work again.
func (k *keeper) note(err error) {
	switch log := k.g.cfg.Log(); {
	case err != nil && !k.failing:
		log.Error("the snapshot can't be written; a start without the store would have no routes, or old ones", zap.Error(err))
	case err == nil && k.failing:
		log.Info("the snapshot can be written again")
	}
	k.failing = err != nil
}

// tableChanged has the snapshot written.
func (g *Gateway) tableChanged() {
	select {
	case g.saved <- struct{}{}:
	default:
	}
}
