package ratelimit

import "context"

// Charge asks for units of one counter.
type Charge struct {
	// Rule is what the counter is held to.
	Rule Rule

	// Scope is what the rule belongs to, e.g. "route:7" or the name of a zone.
	// Counters of different scopes are apart.
	Scope string

	// Key is who is counted, e.g. a client's address.
	Key string

	// Cost is how many units to charge. 0 or less only asks.
	Cost int
}

// Backend keeps counters: this process's memory, or a server that replicas share.
// All methods are safe for concurrent use. A Limiter never fails; a shared backend
// returns an error rather than wait beyond ctx.
//
// Charges of one call must differ in the name or window of their rules, their scope
// or their key, or they would be the same counter.
type Backend interface {
	// Take decides whether every one of charges fits, and only then makes them all.
	// It appends a decision for each to dst, in their order, and reports whether
	// all fit. If not, Allowed tells which would have.
	Take(ctx context.Context, dst []Decision, charges []Charge) (decisions []Decision, allowed bool, err error)

	// Peek appends to dst what Take would decide for each charge with a cost of 0,
	// and changes nothing.
	Peek(ctx context.Context, dst []Decision, charges []Charge) ([]Decision, error)

	// Reset forgets what was charged to the counters of charges.
	Reset(ctx context.Context, charges []Charge) error
}
