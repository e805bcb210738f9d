package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// DefaultMaxKeys is how many keys a Limiter keeps unless told otherwise. At
	// under 100 bytes each a full limiter takes less than 100 MB, and only as
	// keys come.
	DefaultMaxKeys = 1_000_000

	// DefaultSweepInterval is how often idle keys are removed unless told
	// otherwise. Sweeping later costs only memory, never correctness.
	DefaultSweepInterval = time.Minute

	maxShards = 256

	// keysPerShard keeps small limiters in few shards: a shard evicts when it
	// is full itself, which a small one is long before the whole limiter.
	keysPerShard = 1024
)

// Config is the settings of a Limiter. The zero value is ready to use.
type Config struct {
	// MaxKeys bounds how many keys are kept. Shards fill at random, so evictions
	// begin shortly before the limiter is full, at about 95 % of the default.
	// Default: DefaultMaxKeys.
	MaxKeys int

	// SweepInterval is how often Start's goroutine removes idle keys. Default:
	// DefaultSweepInterval.
	SweepInterval time.Duration

	// Now tells the time; it is called under locks and must not block. Default:
	// the monotonic clock, which steps of the wall clock don't move.
	Now func() time.Time
}

// Limiter decides whether keys are within their limits, by a sliding window.
// All methods are safe for concurrent use. It works without Start, which only
// gives memory of idle keys back.
//
// A key is kept as a hash of 64 bits under a seed of this process, so that a
// long key takes no more memory than a short one. Two of a million keys share a
// hash, and then a limit, with a chance of one in thirty million, and no client
// can find out which.
//
// When MaxKeys are there, a new key takes the place of an idle one, else of the
// one with the least use among a few. Random keys, used once each, therefore
// push each other out and leave alone those that are being limited or that have
// used more.
//
// If the clock goes back, time stands still for the limiter for that moment and
// goes on from there. If it jumps ahead, that looks like time that has passed.
// So a step delays no key by more than one window, and adds at most one limit
// to what a window admits.
type Limiter struct {
	seed    maphash.Seed
	elapsed func() time.Duration // since epoch
	epoch   int64                // ns since the Unix epoch
	shards  []shard

	sweepInterval time.Duration
	startOnce     sync.Once
	closeOnce     sync.Once
	stop          chan struct{}
	sweeping      sync.WaitGroup
}

// shard is a part of the keys with a lock and a clock of its own.
type shard struct {
	mu   sync.Mutex
	keys table
	last int64 // the time of the last decision, ns since the Unix epoch
	skew int64 // what to add to the clock, so that time never goes back

	admitted, refused, evictions uint64

	_ [64]byte // keeps the next shard's lock out of this one's cache line
}

// New returns a Limiter without any key.
func New(cfg Config) *Limiter {
	if cfg.MaxKeys <= 0 {
		cfg.MaxKeys = DefaultMaxKeys
	}
	if cfg.SweepInterval <= 0 {
		cfg.SweepInterval = DefaultSweepInterval
	}
	shards := 1
	for shards < maxShards && shards*2*keysPerShard <= cfg.MaxKeys {
		shards *= 2
	}
	l := &Limiter{
		seed:          maphash.MakeSeed(),
		shards:        make([]shard, shards),
		sweepInterval: cfg.SweepInterval,
		stop:          make(chan struct{}),
	}
	for i := range l.shards {
		l.shards[i].keys.most = cfg.MaxKeys / shards
	}
	if now := cfg.Now; now != nil {
		epoch := now()
		l.epoch = epoch.UnixNano()
		l.elapsed = func() time.Duration { return now().Sub(epoch) }
	} else {
		epoch := time.Now()
		l.epoch = epoch.UnixNano()
		l.elapsed = func() time.Duration { return time.Since(epoch) }
	}
	return l
}

// Allow decides whether key may spend cost units under rule and, if so, charges
// them, in one step. A refused request is charged nothing. A cost of 0 or less
// only asks. Keys of different scopes, e.g. routes or zones, are apart.
func (l *Limiter) Allow(rule Rule, scope, key string, cost int) Decision {
	if rule.Limit <= 0 {
		return Decision{Allowed: true}
	}
	rule = rule.normal()
	hash := l.hash(rule, scope, key)
	s := &l.shards[l.shardOf(hash)]

	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock(l.now())
	d := s.decide(hash, rule, now, units(cost), true)
	if cost > 0 {
		s.tally(d.Allowed)
	}
	return d
}

// Stats is a Limiter's counters. All but Keys count since New.
type Stats struct {
	Keys      int    // kept now
	Evictions uint64 // keys given up for others before they were idle
	Admitted  uint64 // requests admitted
	Refused   uint64 // requests refused
}

// Stats returns the counters. Shards are read one after the other, not all at once.
func (l *Limiter) Stats() Stats {
	var sum Stats
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		sum.Keys += s.keys.used
		sum.Evictions += s.evictions
		sum.Admitted += s.admitted
		sum.Refused += s.refused
		s.mu.Unlock()
	}
	return sum
}

// Start begins to remove idle keys in the background, until Close. Only the
// first call has an effect, and none after Close.
func (l *Limiter) Start() {
	l.startOnce.Do(func() { l.sweeping.Go(l.sweepLoop) })
}

// Close stops the goroutine of Start and waits for it. Decisions go on working.
func (l *Limiter) Close() {
	l.startOnce.Do(func() {})
	l.closeOnce.Do(func() { close(l.stop) })
	l.sweeping.Wait()
}

func (l *Limiter) sweepLoop() {
	tick := time.NewTicker(l.sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.Sweep()
		case <-l.stop:
			return
		}
	}
}

// Sweep removes the keys of which nothing counts any more. It holds one shard's
// lock at a time.
func (l *Limiter) Sweep() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		s.keys.sweep(s.clock(l.now()))
		s.mu.Unlock()
	}
}

func (l *Limiter) now() int64 { return l.epoch + int64(l.elapsed()) }

// hash identifies key under rule and scope. Each text's hash is as good as
// random, so a sum with odd factors is too, and two sums differ by chance as
// two hashes do.
func (l *Limiter) hash(rule Rule, scope, key string) uint64 {
	h := maphash.String(l.seed, key) +
		maphash.String(l.seed, scope)*0x9e3779b97f4a7c15 +
		maphash.String(l.seed, rule.Name)*0xbf58476d1ce4e5b9 +
		uint64(rule.Window)*0x94d049bb133111eb
	return max(h, 1) // 0 is a free slot
}

// shardOf uses the hash's low bits; the table within uses the high ones.
func (l *Limiter) shardOf(hash uint64) int { return int(hash & uint64(len(l.shards)-1)) }

// clock turns the clock's time into one that never goes back. Called with the
// lock held and the time read under it, it tells a step from a race.
func (s *shard) clock(now int64) int64 {
	now += s.skew
	if now < s.last {
		s.skew += s.last - now
		now = s.last
	}
	s.last = now
	return now
}

// decide decides for one key and charges it if that is asked for and it is admitted.
func (s *shard) decide(hash uint64, rule Rule, now int64, cost uint32, charge bool) Decision {
	if i := s.keys.find(hash); i >= 0 {
		c := &s.keys.cells[i]
		d := c.decide(now, uint32(rule.Limit), cost, charge)
		c.setMarks(marksOf(d) | touched)
		return d
	}
	fresh := newCell(rule.Window)
	d := fresh.decide(now, uint32(rule.Limit), cost, charge)
	if charge && cost > 0 && d.Allowed {
		fresh.setMarks(marksOf(d))
		s.insert(hash, fresh, now)
	}
	return d
}

// insert adds a key, in the place of another if there are too many.
func (s *shard) insert(hash uint64, c cell, now int64) {
	if s.keys.used >= s.keys.most {
		v := s.keys.victim(now)
		if !s.keys.cells[v].idle(now) {
			s.evictions++
		}
		s.keys.remove(v)
	}
	s.keys.add(hash, c)
}

func (s *shard) tally(admitted bool) {
	if admitted {
		s.admitted++
	} else {
		s.refused++
	}
}

func marksOf(d Decision) marks {
	if d.Allowed && d.Remaining > 0 {
		return 0
	}
	return full
}
