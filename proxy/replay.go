package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// replay is a request's body that can be sent more than once: what is read of it
// is kept, up to a bound, while it streams to the first target. A body that is
// longer can't be sent again.
type replay struct {
	source    io.Reader
	bound     int64
	interrupt func(bool) // see Call.Interrupt; may be nil

	// Held while source is read, which takes as long as the client likes. Nobody
	// but who reads on waits for it.
	reading sync.Mutex

	mu          sync.Mutex
	kept        []byte
	once        bool  // too long to be sent again, though it is kept
	total       int64 // read from source
	err         error // that source ended with
	panicked    *sourcePanic
	inRead      bool
	interrupted bool
}

// again reports whether all that was read of the body is still there.
func (b *replay) again() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.once && b.total == int64(len(b.kept)) && (b.err == nil || errors.Is(b.err, io.EOF))
}

// spoiled reports whether the client has failed to send the body.
func (b *replay) spoiled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && !errors.Is(b.err, io.EOF) && !b.interrupted
}

// attempt returns the body from its start, for one target.
func (b *replay) attempt() *attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.interrupted && b.err == nil {
		b.interrupted = false
		b.interrupt(false)
	}
	return &attempt{body: b}
}

// attempt reads a replay for one target. The transport may still be reading when
// the next attempt has begun: both then share what comes.
type attempt struct {
	body   *replay
	at     int64
	closed bool // guarded by body.mu
}

// Read implements io.Reader.
func (a *attempt) Read(p []byte) (int, error) {
	if n, err, ok := a.fromKept(p); ok {
		return n, err
	}
	a.body.reading.Lock()
	defer a.body.reading.Unlock()
	// Another attempt may have read what this one has waited for.
	if n, err, ok := a.fromKept(p); ok {
		return n, err
	}
	return a.fromSource(p)
}

// fromKept reads what was read before, or says why there is nothing to read.
func (a *attempt) fromKept(p []byte) (n int, err error, ok bool) {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case a.closed:
		return 0, http.ErrBodyReadAfterClose, true
	case a.at < int64(len(b.kept)):
		n = copy(p, b.kept[a.at:])
		a.at += int64(n)
		return n, nil, true
	case a.at != b.total:
		// Another attempt has read what is lost to this one.
		return 0, http.ErrBodyReadAfterClose, true
	case b.err != nil:
		return 0, b.err, true
	}
	return 0, nil, false
}

// fromSource must be called with body.reading held.
func (a *attempt) fromSource(p []byte) (int, error) {
	b := a.body
	b.mu.Lock()
	b.inRead = true
	b.mu.Unlock()
	n, err := b.readSource(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inRead = false
	switch whole := int64(len(b.kept)) == b.total; {
	case whole && b.total+int64(n) <= b.bound:
		b.kept = append(b.kept, p[:n]...)
	case n > 0:
		b.kept = nil // it will not be sent again
	}
	b.total += int64(n)
	b.err = err
	a.at = b.total
	return n, err
}

// Close implements io.Closer. The source stays open, since another attempt may read
// on; the server closes that. But a Read that is under way must not hold up who
// waits for it.
func (a *attempt) Close() error {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	if b.inRead && !b.interrupted && b.interrupt != nil {
		b.interrupted = true
		b.interrupt(true)
	}
	return nil
}

// leave ends the attempt and lets a Read of the source that is under way go on, for the
// next one.
func (a *attempt) leave() {
	a.body.mu.Lock()
	defer a.body.mu.Unlock()
	a.closed = true
}
