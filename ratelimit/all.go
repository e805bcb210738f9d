package ratelimit

import (
	"cmp"
	"slices"
)

// attempt is one rule's part in AllowAll.
type attempt struct {
	rule  Rule
	index int // in the caller's rules
	hash  uint64
	shard int
	now   int64
}

// AllowAll decides whether key may spend cost units under every one of rules.
// Only if all admit it is it charged, to all, in one step. It appends a decision
// for each rule to dst, in their order, and reports whether all admit. If not,
// Allowed tells which would have. Rules must differ in name or window, or they
// would be the same counter. Up to 8 rules take no memory but dst's.
func (l *Limiter) AllowAll(dst []Decision, rules []Rule, scope, key string, cost int) ([]Decision, bool) {
	var space [8]attempt
	attempts := space[:0]
	first := len(dst)
	for i, rule := range rules {
		dst = append(dst, Decision{Allowed: true})
		if rule.Limit <= 0 {
			continue
		}
		rule = rule.normal()
		hash := l.hash(rule, scope, key)
		attempts = append(attempts, attempt{rule: rule, index: first + i, hash: hash, shard: l.shardOf(hash)})
	}
	if len(attempts) == 0 {
		return dst, true
	}

	// Always in the same order, so that two callers never wait for each other.
	slices.SortFunc(attempts, func(a, b attempt) int { return cmp.Compare(a.shard, b.shard) })
	for i, a := range attempts {
		if i == 0 || a.shard != attempts[i-1].shard {
			l.shards[a.shard].mu.Lock()
		}
	}
	defer func() {
		for i, a := range attempts {
			if i == 0 || a.shard != attempts[i-1].shard {
				l.shards[a.shard].mu.Unlock()
			}
		}
	}()

	allowed := true
	raw := l.now()
	for i := range attempts {
		a := &attempts[i]
		s := &l.shards[a.shard]
		a.now = s.clock(raw)
		dst[a.index] = s.decide(a.hash, a.rule, a.now, units(cost), false)
		allowed = allowed && dst[a.index].Allowed
	}
	if allowed && cost > 0 {
		for _, a := range attempts {
			dst[a.index] = l.shards[a.shard].decide(a.hash, a.rule, a.now, units(cost), true)
		}
	}
	if cost > 0 {
		l.shards[attempts[0].shard].tally(allowed)
	}
	return dst, allowed
}
