package ratelimit

import (
	"context"
	"slices"
	"time"
)

// OnError says what to do with requests while a shared backend cannot be asked.
type OnError string

const (
	// OnErrorLocal counts them in this process's memory, against the same limits.
	// N replicas then admit up to N times a limit. It is the default.
	OnErrorLocal OnError = "local"

	// OnErrorAllow admits them without counting.
	OnErrorAllow OnError = "allow"

	// OnErrorDeny refuses them with ErrUnavailable.
	OnErrorDeny OnError = "deny"
)

// Valid reports whether o is one of the above.
func (o OnError) Valid() bool { return o == OnErrorLocal || o == OnErrorAllow || o == OnErrorDeny }

// The ranges of a Shared's timeout.
const (
	// DefaultTimeout is how long a shared backend may take unless told otherwise.
	DefaultTimeout = 50 * time.Millisecond

	// MaxTimeout is the longest time that it may be given.
	MaxTimeout = time.Minute
)

// Shared is a Backend that asks a server, and knows what to do while the server
// cannot be asked. Its methods return within the timeout. It is safe for concurrent
// use.
//
// A call that took too long may still be charged by the server. So counters can
// have more than was admitted by them, but never less.
type Shared struct {
	guard   *Guard
	local   *Limiter
	timeout time.Duration
	onError OnError
}

// NewShared returns a Backend that asks guard, for up to timeout (0: DefaultTimeout),
// and does what onError (empty: OnErrorLocal) says if that fails. Local is not
// charged while the server answers.
func NewShared(guard *Guard, local *Limiter, timeout time.Duration, onError OnError) *Shared {
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	if onError == "" {
		onError = OnErrorLocal
	}
	return &Shared{guard: guard, local: local, timeout: min(timeout, MaxTimeout), onError: onError}
}

// Take implements Backend. The only error is ErrUnavailable, and only with OnErrorDeny.
func (s *Shared) Take(ctx context.Context, dst []Decision, charges []Charge) ([]Decision, bool, error) {
	// The call may go on when this one has returned.
	asked := slices.Clone(charges)
	a, err := s.guard.call(ctx, s.timeout, func(ctx context.Context) (a answer) {
		a.decisions, a.allowed, a.err = s.guard.remote.Take(ctx, nil, asked)
		return a
	})
	if err == nil {
		return append(dst, a.decisions...), a.allowed, nil
	}
	s.guard.fallbacks.Add(1)
	switch s.onError {
	case OnErrorAllow:
		return appendWhole(dst, charges), true, nil
	case OnErrorDeny:
		return dst, false, ErrUnavailable
	default:
		return s.local.Take(ctx, dst, charges)
	}
}

// Peek implements Backend, with what Take would decide by now.
func (s *Shared) Peek(ctx context.Context, dst []Decision, charges []Charge) ([]Decision, error) {
	asked := slices.Clone(charges)
	a, err := s.guard.call(ctx, s.timeout, func(ctx context.Context) (a answer) {
		a.decisions, a.err = s.guard.remote.Peek(ctx, nil, asked)
		return a
	})
	if err == nil {
		return append(dst, a.decisions...), nil
	}
	switch s.onError {
	case OnErrorAllow:
		return appendWhole(dst, charges), nil
	case OnErrorDeny:
		return dst, ErrUnavailable
	default:
		return s.local.Peek(ctx, dst, charges)
	}
}

// Reset implements Backend. It forgets what is in memory in any case, and returns
// ErrUnavailable if the server could not be told.
func (s *Shared) Reset(ctx context.Context, charges []Charge) error {
	asked := slices.Clone(charges)
	_, err := s.guard.call(ctx, s.timeout, func(ctx context.Context) answer {
		return answer{err: s.guard.remote.Reset(ctx, asked)}
	})
	if localErr := s.local.Reset(ctx, charges); localErr != nil {
		return localErr
	}
	if err != nil {
		return ErrUnavailable
	}
	return nil
}

// appendWhole appends decisions as if nothing had ever been charged.
func appendWhole(dst []Decision, charges []Charge) []Decision {
	for _, c := range charges {
		limit := max(c.Rule.normal().Limit, 0)
		dst = append(dst, Decision{Allowed: true, Limit: limit, Remaining: limit})
	}
	return dst
}

// Interface guards
var (
	_ Backend = (*Shared)(nil)
)
