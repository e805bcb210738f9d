package certstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
)

const (
	// Who waits for a lock asks again after firstPoll, then less often.
	firstPoll = 50 * time.Millisecond
	lastPoll  = time.Second

	// renewals is how many times a lock is renewed within one lease, so that some of
	// them may fail.
	renewals = 5
)

// ErrNotHeld says that this process does not hold a lock, or no longer: its lease
// has expired, because the database or the process stood still, and it was taken.
var ErrNotHeld = errors.New("the lock is not held here, or was lost")

// lease is one acquisition of a lock.
type lease struct {
	name  string
	token uuid.UUID
	lost  bool
}

// locks is what this process knows of its locks.
type locks struct {
	mu sync.Mutex

	// By name, the oldest first. There are several of a name only if all but the last
	// were lost and are not unlocked yet.
	held map[string][]*lease

	// Leases that are to be given up but that the database may still know, and when it
	// forgets them in any case.
	dying map[*lease]time.Time

	// Who is to make a certificate authority; see authority.go. They are not renewed.
	claims map[string]*lease
}

func (l *locks) init() {
	l.held = make(map[string][]*lease)
	l.dying = make(map[*lease]time.Time)
	l.claims = make(map[string]*lease)
}

// take notes that a lock is held.
func (l *locks) take(got *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[got.name] = append(l.held[got.name], got)
}

// last returns the lease of a name that counts, or nil.
func (l *locks) last(name string) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.held[name]
	if len(list) == 0 || list[len(list)-1].lost {
		return nil
	}
	return list[len(list)-1]
}

// drop forgets and returns the oldest lease of a name, nil if there is none. Of two
// holders that believe they have a lock, this takes it from neither too early.
func (l *locks) drop(name string) (oldest *lease, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.held[name]
	if len(list) == 0 {
		return nil, false
	}
	if l.held[name] = list[1:]; len(list) == 1 {
		delete(l.held, name)
	}
	return list[0], list[0].lost
}

// lose marks a lease that was found lost, and reports whether that is news.
func (l *locks) lose(gone *lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, have := range l.held[gone.name] {
		if have == gone && !have.lost {
			have.lost = true
			return true
		}
	}
	return false
}

// leave has a lease given up in the background.
func (l *locks) leave(gone *lease, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dying[gone] = until
}

// Lock implements certmagic.Locker. A lock of a holder that has crashed is free when
// its lease has expired.
func (s *Storage) Lock(ctx context.Context, name string) error {
	return s.call(ctx, func(ctx context.Context) error {
		wanted, err := newLease(name)
		if err != nil {
			return err
		}
		for pause := firstPoll; ; pause = min(pause*2, lastPoll) {
			got, err := s.acquire(ctx, wanted)
			if got {
				s.locks.take(wanted)
			}
			if got || err != nil {
				return err
			}
			if !worker.Sleep(ctx, pause/2+rand.N(pause)) {
				return fmt.Errorf("waiting for the lock %s: %w", name, ctx.Err())
			}
		}
	})
}

// TryLock implements certmagic.TryLocker.
func (s *Storage) TryLock(ctx context.Context, name string) (got bool, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		wanted, err := newLease(name)
		if err != nil {
			return err
		}
		if got, err = s.acquire(ctx, wanted); got {
			s.locks.take(wanted)
		}
		return err
	})
	return got, err
}

// Unlock implements certmagic.Locker. Of a lock that was lost it leaves alone what
// others hold, and that is no error: it is not held any more. If the database does
// not answer, the lock is released when it does, or expires.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	held, lost := s.locks.drop(name)
	switch {
	case held == nil:
		if s.life.Err() != nil {
			return nil //nolint:nilerr // Close has released it
		}
		return fmt.Errorf("releasing the lock %s: %w", name, ErrNotHeld)
	case lost:
		s.opts.Log().Warn("a certificate lock was lost before it was released", zap.String("lock", name))
		return nil
	}
	return s.release(ctx, held)
}

// release gives a lease up, in the background if the database does not answer.
func (s *Storage) release(ctx context.Context, held *lease) error {
	err := s.run(ctx, "releasing the lock "+held.name, func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, "DELETE FROM storage_locks WHERE name = $1 AND token = $2", held.name, held.token)
		return err
	})
	if err != nil {
		s.locks.leave(held, time.Now().Add(s.opts.LockLease))
	}
	return err
}

// RenewLockLease implements certmagic.LockLeaseRenewer. Locks are renewed anyway as
// long as their process runs, so it makes sure that the lock is still held and no
// more: a duration of hours would keep others waiting after a crash.
func (s *Storage) RenewLockLease(ctx context.Context, name string, _ time.Duration) error {
	held := s.locks.last(name)
	if held == nil {
		return fmt.Errorf("renewing the lock %s: %w", name, ErrNotHeld)
	}
	return s.run(ctx, "renewing the lock "+name, func(ctx context.Context) error {
		tag, err := s.pool.Exec(ctx, `UPDATE storage_locks SET expires = clock_timestamp() + make_interval(secs => $3)
			WHERE name = $1 AND token = $2`, name, held.token, s.opts.LockLease.Seconds())
		if err == nil && tag.RowsAffected() == 0 {
			s.lost(held)
			return ErrNotHeld
		}
		return err
	})
}

func newLease(name string) (*lease, error) {
	if _, err := fileKey(name); err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	return &lease{name: name, token: uuid.New()}, nil
}

// acquire tries to take a lock, for which it may be called again and again with the
// same lease. While others hold the lock, nothing is written.
func (s *Storage) acquire(ctx context.Context, wanted *lease) (bool, error) {
	got := false
	err := s.run(ctx, "taking the lock "+wanted.name, func(ctx context.Context) error {
		tag, err := s.pool.Exec(ctx, `INSERT INTO storage_locks AS l (name, token, expires)
			SELECT $1, $2, clock_timestamp() + make_interval(secs => $3)
			WHERE NOT EXISTS (SELECT FROM storage_locks WHERE name = $1 AND token <> $2 AND expires > clock_timestamp())
			ON CONFLICT (name) DO UPDATE SET token = excluded.token, expires = excluded.expires
			WHERE l.token = excluded.token OR l.expires <= clock_timestamp()`,
			wanted.name, wanted.token, s.opts.LockLease.Seconds())
		got = tag.RowsAffected() > 0
		return err
	})
	if err != nil && maybeSent(err) {
		// The database may have done it all the same.
		s.locks.leave(wanted, time.Now().Add(s.opts.LockLease))
	}
	return got && err == nil, err
}

// keepLocks renews what is held and gives up what is not needed any more, until ctx
// is done.
func (s *Storage) keepLocks(ctx context.Context) {
	interval := s.opts.LockLease / renewals
	failing := false
	for worker.Sleep(ctx, interval) {
		statement, cancel := context.WithTimeout(ctx, interval)
		err := errors.Join(s.renew(statement), s.bury(statement))
		cancel()
		switch {
		case err == nil || isMissing(err):
			failing = false
		case !failing && ctx.Err() == nil:
			failing = true // and said once
			s.opts.Log().Error("keeping certificate locks", zap.Error(err))
		}
	}
}

// renew prolongs all locks that are held, and finds those that were lost.
func (s *Storage) renew(ctx context.Context) error {
	var held []*lease
	s.locks.mu.Lock()
	for _, list := range s.locks.held {
		for _, l := range list {
			if !l.lost {
				held = append(held, l)
			}
		}
	}
	s.locks.mu.Unlock()
	if len(held) == 0 {
		return nil
	}
	names, tokens := columns(held)
	rows, err := s.keeper.Query(ctx, `UPDATE storage_locks l SET expires = clock_timestamp() + make_interval(secs => $3)
		FROM unnest($1::text[], $2::uuid[]) AS held (name, token)
		WHERE l.name = held.name AND l.token = held.token RETURNING l.token`, names, tokens, s.opts.LockLease.Seconds())
	if err != nil {
		return fmt.Errorf("renewing locks: %w", err)
	}
	renewed := make(map[uuid.UUID]bool)
	var token uuid.UUID
	for rows.Next() {
		if err := rows.Scan(&token); err != nil {
			break // and so is rows.Err
		}
		renewed[token] = true
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return fmt.Errorf("renewing locks: %w", err)
	}
	for _, l := range held {
		if !renewed[l.token] {
			s.lost(l)
		}
	}
	return nil
}

func (s *Storage) lost(l *lease) {
	if s.locks.lose(l) {
		s.opts.Log().Error("a certificate lock was lost: its lease has expired and another process may hold it now", zap.String("lock", l.name))
	}
}

// bury gives up the leases that are dying.
func (s *Storage) bury(ctx context.Context) error {
	now := time.Now()
	var dying []*lease
	s.locks.mu.Lock()
	for l, until := range s.locks.dying {
		if now.After(until) {
			delete(s.locks.dying, l)
		} else {
			dying = append(dying, l)
		}
	}
	s.locks.mu.Unlock()
	if err := s.remove(ctx, dying); err != nil {
		return err
	}
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	for _, l := range dying {
		delete(s.locks.dying, l)
	}
	return nil
}

// releaseAll gives up all locks.
func (s *Storage) releaseAll(ctx context.Context) {
	var all []*lease
	s.locks.mu.Lock()
	for _, list := range s.locks.held {
		all = append(all, list...)
	}
	for l := range s.locks.dying {
		all = append(all, l)
	}
	for _, l := range s.locks.claims {
		all = append(all, l)
	}
	s.locks.init()
	s.locks.mu.Unlock()
	if err := s.remove(ctx, all); err != nil {
		s.opts.Log().Warn("releasing certificate locks; they expire by themselves", zap.Error(err))
	}
}

func (s *Storage) remove(ctx context.Context, leases []*lease) error {
	if len(leases) == 0 {
		return nil
	}
	names, tokens := columns(leases)
	_, err := s.keeper.Exec(ctx, `DELETE FROM storage_locks l USING unnest($1::text[], $2::uuid[]) AS gone (name, token)
		WHERE l.name = gone.name AND l.token = gone.token`, names, tokens)
	if err != nil && !isMissing(err) {
		return fmt.Errorf("releasing locks: %w", err)
	}
	return nil
}

func columns(leases []*lease) (names []string, tokens [][16]byte) {
	for _, l := range leases {
		names, tokens = append(names, l.name), append(tokens, l.token)
	}
	return names, tokens
}
