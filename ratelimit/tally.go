package ratelimit

import "sync/atomic"

// Tally counts what became of requests that were checked against limits. The zero
// value is ready. All methods are safe for concurrent use.
type Tally struct{ allowed, limited, dryRun atomic.Uint64 }

// Allowed counts a request that all limits admitted.
func (t *Tally) Allowed() { t.allowed.Add(1) }

// Limited counts a request that was refused.
func (t *Tally) Limited() { t.limited.Add(1) }

// DryRun counts a request that would have been refused but for dry_run.
func (t *Tally) DryRun() { t.dryRun.Add(1) }

// TallyStats is a snapshot of a Tally.
type TallyStats struct {
	Allowed uint64 // admitted
	Limited uint64 // refused
	DryRun  uint64 // over a limit that only reports
}

// Snapshot returns the counts now.
func (t *Tally) Snapshot() TallyStats {
	return TallyStats{Allowed: t.allowed.Load(), Limited: t.limited.Load(), DryRun: t.dryRun.Load()}
}
