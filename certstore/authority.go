package certstore

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"

	"github.com/isekai-gateway/isekai/internal/worker"
)

// Caddy makes its own certificate authority without a lock: who finds no certificate
// stores one, and then its key. Replicas that start together on an empty storage would
// find one without a key, or mix theirs. So who is told first that there is none is
// expected to store both, and the others wait for that: until the key is stored, or
// for as long as a lock outlives a crash.

// authority returns the name of the claim that a part of Caddy's authority belongs
// to, and which part it is, ".crt" or ".key". Other keys have none.
func authority(key string) (claim, part string) {
	dir, file := path.Split(key)
	if rest, ok := strings.CutPrefix(dir, "pki/authorities/"); !ok || strings.Count(rest, "/") != 1 {
		return "", ""
	}
	switch file {
	case "root.crt", "root.key", "intermediate.crt", "intermediate.key":
		part = path.Ext(file)
		return "claim " + strings.TrimSuffix(key, part), part
	}
	return "", ""
}

// loadAuthority loads a part of an authority that was not there just now.
func (s *Storage) loadAuthority(ctx context.Context, key, claim, part string) (value []byte, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		wanted, err := s.locks.claimant(claim)
		if err != nil {
			return err
		}
		for pause := firstPoll; ; pause = min(pause*2, lastPoll) {
			got, err := s.acquire(ctx, wanted)
			if err != nil {
				return err
			}
			if got {
				break
			}
			if !worker.Sleep(ctx, pause/2+rand.N(pause)) {
				return ctx.Err()
			}
		}
		value, err = s.load(ctx, key)
		if errors.Is(err, fs.ErrNotExist) && part == ".crt" {
			s.locks.claim(wanted)
			return err
		}
		s.unclaim(ctx, wanted)
		return err
	})
	return value, err
}

// unclaim ends a claim. It expires by itself if that fails.
func (s *Storage) unclaim(ctx context.Context, l *lease) {
	s.locks.mu.Lock()
	delete(s.locks.claims, l.name)
	s.locks.mu.Unlock()
	_ = s.release(ctx, l) // and is given up in the background if that fails
}

// claimant returns the lease that this process has a claim by, or a new one.
func (l *locks) claimant(name string) (*lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.claims[name]; ok {
		return have, nil
	}
	return newLease(name)
}

func (l *locks) claim(made *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims[made.name] = made
}

// claimed returns the lease of a claim, nil if this process has none.
func (l *locks) claimed(name string) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.claims[name]
}
