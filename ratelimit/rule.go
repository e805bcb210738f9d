package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// The ranges of a Rule. Limiter takes values outside of them as the nearest
// one inside; Rule.Validate refuses them.
const (
	// MaxLimit is the highest Rule.Limit.
	MaxLimit = 1_000_000_000

	// MaxCost is the most units that a request should cost. Charge.Cost may be more.
	MaxCost = 1_000_000

	// MaxRules is how many rules a request should be held to; so many are decided
	// without taking memory.
	MaxRules = 8

	// MaxKey is the longest text of a Key, and the longest value that should be
	// looked for, in bytes. Requests may come out with longer ones.
	MaxKey = 1024

	// MinWindow is the shortest Rule.Window and its resolution.
	MinWindow = time.Millisecond

	// MaxWindow is the longest Rule.Window.
	MaxWindow = 31 * 24 * time.Hour
)

// ErrInvalidRule is what every error of Rule.Validate matches.
var ErrInvalidRule = errors.New("invalid rate limit rule")

// Rule allows Limit units in any Window. A unit is one request unless the
// caller charges more.
//
// What a key has used belongs to the rule's name and window: the limit may
// change at any time and keeps what was used, another window starts afresh.
type Rule struct {
	// Name is the policy's name, as clients see it in the RateLimit fields.
	Name string

	// Limit is how many units a window has, up to MaxLimit. 0 or less is no
	// limit: everything is admitted and nothing is counted.
	Limit int

	// Window is the length of the window, from MinWindow to MaxWindow, in whole
	// milliseconds.
	Window time.Duration
}

// Validate returns an error that matches ErrInvalidRule if the limit or the
// window is out of range.
func (r Rule) Validate() error {
	if r.Limit > MaxLimit {
		return fmt.Errorf("%w: limit %d is above %d", ErrInvalidRule, r.Limit, MaxLimit)
	}
	if r.Window < MinWindow || r.Window > MaxWindow {
		return fmt.Errorf("%w: window %v is not between %v and %v", ErrInvalidRule, r.Window, MinWindow, MaxWindow)
	}
	if r.Window%MinWindow != 0 {
		return fmt.Errorf("%w: window %v is not in whole milliseconds", ErrInvalidRule, r.Window)
	}
	return nil
}

// ValidName reports whether name is fit for a rule or a zone: 1 to 64 letters,
// digits or any of "_-.:".
func ValidName(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:"
	return len(name) >= 1 && len(name) <= 64 && strings.Trim(name, allowed) == ""
}

// normal returns the rule with limit and window inside of their ranges.
func (r Rule) normal() Rule {
	r.Limit = min(r.Limit, MaxLimit)
	r.Window = min(max(r.Window, MinWindow), MaxWindow).Truncate(MinWindow)
	return r
}

// Decision is the answer of one rule for one key.
type Decision struct {
	// Allowed is whether the rule admits the request.
	Allowed bool

	// Limit is the rule's limit, 0 if it has none.
	Limit int

	// Remaining is how many units are left after this request.
	Remaining int

	// Reset is how long it takes until Remaining grows if nothing else is
	// charged, 0 if the whole limit is there.
	Reset time.Duration

	// RetryAfter is how long it takes until the same request is admitted if
	// nothing else is charged. It is 0 if the request is admitted, and at most
	// one window, with a shared backend two. A cost above the limit is never admitted; RetryAfter is then
	// the time until the key has its whole limit back, at least 1 ns.
	RetryAfter time.Duration
}

// units returns a caller's cost in the range that counters can hold.
func units(cost int) uint32 { return uint32(min(max(cost, 0), math.MaxInt32)) }
