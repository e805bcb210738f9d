package ratelimit_test

import (
	"testing"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/backendtest"
)

func TestLimiterIsABackend(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, func(*testing.T) (ratelimit.Backend, backendtest.Clock) {
		c := newClock()
		c.Set(backendtest.Epoch)
		return ratelimit.New(ratelimit.Config{Now: c.Now}), c
	})
}
