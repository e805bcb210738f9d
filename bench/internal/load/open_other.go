//go:build !linux

package load

import (
	"context"
	"errors"
)

// RunOpen sends requests at a constant rate, for which it needs Linux's timers.
func RunOpen(context.Context, OpenJob, func() error) (*OpenOutcome, error) {
	return nil, errors.New("a constant rate needs Linux")
}
