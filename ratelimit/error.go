package ratelimit

import (
	"errors"
	"strings"
	"time"
)

// ErrLimited is what every error about a request over its limit matches.
var ErrLimited = errors.New("rate limit exceeded")

// ErrUnavailable says that a Backend did not answer, so that it is not known whether a
// request is within its limits. It is temporary: answer 503 with Retry-After. What it
// wraps is not for clients.
var ErrUnavailable = errors.New("the rate limit cannot be checked")

// LimitedError tells which limits a request is over. It matches ErrLimited.
type LimitedError struct {
	// Policies is the names of the rules that refused, in the order of the
	// rules. It is the violated-policies of the problem type quota-exceeded
	// (https://iana.org/assignments/http-problem-types#quota-exceeded).
	Policies []string

	// RetryAfter is how long it takes until the request would be admitted.
	RetryAfter time.Duration
}

// NewLimitedError returns the error for decisions on rules of which at least one
// refused.
func NewLimitedError(rules []Rule, decisions []Decision) *LimitedError {
	e := new(LimitedError)
	for i, d := range decisions {
		if !d.Allowed {
			e.Policies = append(e.Policies, rules[i].Name)
			e.RetryAfter = max(e.RetryAfter, d.RetryAfter)
		}
	}
	return e
}

func (e *LimitedError) Error() string {
	return ErrLimited.Error() + ": " + strings.Join(e.Policies, ", ")
}

// Unwrap makes errors.Is(err, ErrLimited) true.
func (e *LimitedError) Unwrap() error { return ErrLimited }
