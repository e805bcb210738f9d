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
	source io.Reader
	bound  int64

	mu    sync.Mutex
	kept  []byte
	total int64 // read from source
	err   error // that source ended with
}

// again reports whether all that was read of the body is still there.
func (b *replay) again() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total == int64(len(b.kept)) && (b.err == nil || errors.Is(b.err, io.EOF))
}

// spoiled reports whether the client has failed to send the body.
func (b *replay) spoiled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil && !errors.Is(b.err, io.EOF)
}

// attempt returns the body from its start, for one target. Closing it leaves the
// source open, since another attempt may read on; the server closes that.
func (b *replay) attempt() io.ReadCloser { return &attempt{body: b} }

// attempt reads a replay for one target. The transport may still be reading when
// the next attempt has begun: both then share what comes.
type attempt struct {
	body *replay
	at   int64

	mu     sync.Mutex
	closed bool
}

// Read implements io.Reader.
func (a *attempt) Read(p []byte) (int, error) {
	if a.isClosed() {
		return 0, http.ErrBodyReadAfterClose
	}
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.at < int64(len(b.kept)) {
		n := copy(p, b.kept[a.at:])
		a.at += int64(n)
		return n, nil
	}
	if a.isClosed() || a.at != b.total {
		// Another attempt has read what is lost to this one.
		return 0, http.ErrBodyReadAfterClose
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.source.Read(p)
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

// Close implements io.Closer.
func (a *attempt) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	return nil
}

func (a *attempt) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}
