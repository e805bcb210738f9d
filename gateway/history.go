package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/store"
)

// DefaultHistoryRetention is how long gateways of Caddy keep revisions.
const DefaultHistoryRetention = 90 * 24 * time.Hour

const (
	// pruneInterval is how often old revisions are removed.
	pruneInterval = time.Hour

	// pruneTimeout bounds one round of that.
	pruneTimeout = 10 * time.Minute
)

// Revisions returns revisions as store.Histories does; ErrStoreDown if it can't.
func (g *Gateway) Revisions(ctx context.Context, filter store.RevisionFilter, before int64, limit, perRevision int) ([]*store.Revision, error) {
	list, err := g.store.Revisions(ctx, filter, before, limit, perRevision)
	return list, g.storeError(err)
}

// Revision returns one revision as store.Histories does; ErrStoreDown if it can't.
func (g *Gateway) Revision(ctx context.Context, number, after int64, limit int) (*store.Revision, error) {
	r, err := g.store.RevisionChanges(ctx, number, after, limit)
	if err != nil && !errors.Is(err, store.ErrNoRevision) {
		err = g.storeError(err)
	}
	return r, err
}

// DeletedRoute returns a deleted route. store.ErrNotFound if there never was one with
// this id, store.ErrConflict if it is live.
func (g *Gateway) DeletedRoute(ctx context.Context, id int64) (*store.Route, error) {
	row, err := g.store.Row(ctx, id)
	switch {
	case err != nil:
		return nil, g.storeError(err)
	case row.DeletedAt == nil:
		return nil, store.ErrConflict
	}
	return row, nil
}

// keepHistory removes old revisions at once and then every hour, or soon after a
// failure. Until Start nothing is removed.
func (g *Gateway) keepHistory(ctx context.Context) {
	wait(ctx, g.prepared)
	for ctx.Err() == nil {
		pause := pruneInterval
		try, cancel := context.WithTimeout(ctx, pruneTimeout)
		n, err := g.store.PruneHistory(try, time.Now().Add(-g.cfg.HistoryRetention))
		cancel()
		switch {
		case errors.Is(err, store.ErrNotPermitted):
			g.cfg.Log().Warn("the database's role may not remove old revisions, so they are kept; set history_retention 0, and prune as the tables' owner")
			return
		case err != nil:
			pause = time.Minute
			// That the store is down is told by others.
			if ctx.Err() == nil && g.StoreUp() {
				g.cfg.Log().Warn("removing old revisions", zap.Error(err))
			}
		case n > 0:
			g.cfg.Log().Info("removed old revisions", zap.Int("revisions", n))
		}
		if !worker.Sleep(ctx, jitter(pause)) {
			return
		}
	}
}

// sameSpec compares what is stored of two specs. PostgreSQL brings the JSON in it into
// a form of its own, so documents are compared as values.
func sameSpec(a, b *store.Spec) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if errX != nil || errY != nil {
		return false
	}
	return bytes.Equal(x, y) || sameJSON(x, y)
}

func sameJSON(a, b []byte) bool {
	x, errX := CanonicalJSON(a)
	y, errY := CanonicalJSON(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// CanonicalJSON writes a document with its names in order and its numbers in one form,
// whichever database it comes from.
func CanonicalJSON(text []byte) (json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(oneForm(value)); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func oneForm(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, field := range v {
			v[name] = oneForm(field)
		}
	case []any:
		for i, item := range v {
			v[i] = oneForm(item)
		}
	case json.Number:
		// An integer stays as it is, however long: 1e3 and 1000.0 become 1000.
		if strings.ContainsAny(v.String(), ".eE") {
			if f, err := v.Float64(); err == nil {
				return json.Number(strconv.FormatFloat(f, 'f', -1, 64))
			}
		}
	}
	return value
}
