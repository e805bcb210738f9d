package proxy

import (
	"io"
	"time"
)

// idleBody is an answer's body whose exchange is cancelled when the target is
// silent for too long while somebody waits for it.
type idleBody struct {
	io.ReadCloser
	limit  time.Duration
	timer  *time.Timer
	cancel func(error)
}

func newIdleBody(body io.ReadCloser, limit time.Duration, cancel func(error)) *idleBody {
	b := &idleBody{ReadCloser: body, limit: limit, cancel: cancel}
	b.timer = time.AfterFunc(limit, func() { cancel(errSilent) })
	// What counts is the time in Read, not what the client needs to take it.
	b.timer.Stop()
	return b
}

// Read implements io.Reader.
func (b *idleBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	defer b.timer.Stop()
	return b.ReadCloser.Read(p)
}

// Close implements io.Closer.
func (b *idleBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// errSilent is the cause of an exchange whose target fell silent.
var errSilent error = silentError{}

type silentError struct{}

func (silentError) Error() string {
	return "the upstream was silent for longer than upstream.timeouts.idle"
}
func (silentError) Timeout() bool   { return true }
func (silentError) Temporary() bool { return true }
