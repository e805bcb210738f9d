package gateway

import (
	"context"

	"github.com/isekai-gateway/isekai/store"
)

// Logs returns up to limit requests that match, newest first, from the store. With
// before, only those that come after it in that order. Errors: ErrStoreDown.
func (g *Gateway) Logs(ctx context.Context, filter store.LogFilter, before *store.LogCursor, limit int) ([]*store.RequestLog, error) {
	rows, err := g.store.Logs(ctx, filter, before, limit)
	return rows, g.storeError(err)
}
