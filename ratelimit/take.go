package ratelimit

import (
	"cmp"
	"context"
	"slices"
)

// attempt is one charge's part in a call.
type attempt struct {
	rule  Rule
	cost  uint32
	index int // of its decision
	hash  uint64
	shard int
	now   int64
}

// Take implements Backend, in one step and without an error. Up to 8 charges take no
// memory but dst's.
func (l *Limiter) Take(_ context.Context, dst []Decision, charges []Charge) ([]Decision, bool, error) {
	var space [8]attempt
	dst, attempts := l.attempts(dst, space[:0], charges)
	if len(attempts) == 0 {
		return dst, true, nil
	}
	l.lock(attempts)
	defer l.unlock(attempts)

	allowed, costs := true, false
	raw := l.now()
	for i := range attempts {
		a := &attempts[i]
		s := &l.shards[a.shard]
		a.now = s.clock(raw)
		dst[a.index] = s.decide(a.hash, a.rule, a.now, a.cost, false)
		allowed = allowed && dst[a.index].Allowed
		costs = costs || a.cost > 0
	}
	if !costs {
		return dst, allowed, nil
	}
	if allowed {
		for _, a := range attempts {
			dst[a.index] = l.shards[a.shard].decide(a.hash, a.rule, a.now, a.cost, true)
		}
	}
	l.shards[attempts[0].shard].tally(allowed)
	return dst, allowed, nil
}

// Peek implements Backend.
func (l *Limiter) Peek(ctx context.Context, dst []Decision, charges []Charge) ([]Decision, error) {
	asked := slices.Clone(charges)
	for i := range asked {
		asked[i].Cost = 0
	}
	dst, _, err := l.Take(ctx, dst, asked)
	return dst, err
}

// Reset implements Backend.
func (l *Limiter) Reset(_ context.Context, charges []Charge) error {
	for _, c := range charges {
		hash := l.hash(c.Rule.normal(), c.Scope, c.Key)
		s := &l.shards[l.shardOf(hash)]
		s.mu.Lock()
		if i := s.keys.find(hash); i >= 0 {
			s.keys.remove(i)
		}
		s.mu.Unlock()
	}
	return nil
}

// attempts appends a decision to dst for every charge, and an attempt to list for
// those that have a limit, always in the same order, so that two callers never wait
// for each other.
func (l *Limiter) attempts(dst []Decision, list []attempt, charges []Charge) ([]Decision, []attempt) {
	first := len(dst)
	for i, c := range charges {
		dst = append(dst, Decision{Allowed: true})
		if c.Rule.Limit <= 0 {
			continue
		}
		rule := c.Rule.normal()
		hash := l.hash(rule, c.Scope, c.Key)
		list = append(list, attempt{rule: rule, cost: units(c.Cost), index: first + i, hash: hash, shard: l.shardOf(hash)})
	}
	if len(list) > 1 {
		slices.SortFunc(list, func(a, b attempt) int { return cmp.Compare(a.shard, b.shard) })
	}
	return dst, list
}

func (l *Limiter) lock(attempts []attempt) {
	for i, a := range attempts {
		if i == 0 || a.shard != attempts[i-1].shard {
			l.shards[a.shard].mu.Lock()
		}
	}
}

func (l *Limiter) unlock(attempts []attempt) {
	for i, a := range attempts {
		if i == 0 || a.shard != attempts[i-1].shard {
			l.shards[a.shard].mu.Unlock()
		}
	}
}

// AllowAll decides whether key may spend cost units under every one of rules of one
// scope, as Take does.
func (l *Limiter) AllowAll(dst []Decision, rules []Rule, scope, key string, cost int) ([]Decision, bool) {
	var space [8]Charge
	charges := space[:0]
	for _, rule := range rules {
		charges = append(charges, Charge{Rule: rule, Scope: scope, Key: key, Cost: cost})
	}
	dst, allowed, _ := l.Take(context.Background(), dst, charges) // never fails
	return dst, allowed
}

// Interface guards
var (
	_ Backend = (*Limiter)(nil)
)
