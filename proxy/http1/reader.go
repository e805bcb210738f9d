// Package http1 reads the answers of HTTP/1.1 servers. It is stricter than most: an
// answer whose bounds two readers could see differently, by RFC 9112, is an error and
// never guessed at, since what is read on a connection that is used again must not be
// a part of the answer before.
package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrMalformed says that an answer breaks the protocol. The connection can't be used
// any more.
var ErrMalformed = errors.New("malformed HTTP/1 answer")

// ErrTooLarge says that the header, or the trailer, of an answer is over the bound.
var ErrTooLarge = fmt.Errorf("%w: the header is too large", ErrMalformed)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

const (
	// MaxHeader bounds a header, and a trailer, in bytes.
	MaxHeader = 256 << 10

	// initialBuffer is enough for most headers, and short answers: what comes with the
	// header goes to the client at once, and each part of an answer costs net/http's
	// server a write of its own.
	initialBuffer = 16 << 10

	// MaxKeptBuffer is the largest buffer that a Reader keeps through Reset.
	MaxKeptBuffer = 16 << 10
)

// Reader buffers what comes from a connection. The zero value must be Reset before
// use. It is not safe for concurrent use.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is there to be read
}

// Reset makes r read from src and forget what was buffered.
func (r *Reader) Reset(src io.Reader) {
	r.src, r.r, r.w = src, 0, 0
	if r.buf == nil || len(r.buf) > MaxKeptBuffer {
		r.buf = make([]byte, initialBuffer)
	}
}

// Buffered returns how many bytes were read from the connection and are not used yet.
func (r *Reader) Buffered() int { return r.w - r.r }

// fill reads once from the connection, at the end of what is buffered. There is room
// for more after it is called with less than the bound.
func (r *Reader) fill(bound int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.w == len(r.buf) {
		switch {
		case r.r > 0:
			copy(r.buf, r.buf[r.r:r.w])
			r.w -= r.r
			r.r = 0
		case len(r.buf) >= bound:
			return ErrTooLarge
		default:
			larger := make([]byte, 2*len(r.buf))
			copy(larger, r.buf[:r.w])
			r.buf = larger
		}
	}
	for range maxEmptyReads {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		switch {
		case n > 0:
			return nil
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// maxEmptyReads is how often a connection may return neither bytes nor an error.
const maxEmptyReads = 100

// line returns the next line without its end, which must be CRLF. It is valid until
// the next read. Unless wait is true, it does not read from the connection: ok says
// whether a whole line was there.
func (r *Reader) line(bound int, wait bool) (line []byte, ok bool, err error) {
	scanned := 0
	for {
		if i := bytes.IndexByte(r.buf[r.r+scanned:r.w], '\n'); i >= 0 {
			i += r.r + scanned
			switch {
			case i-r.r > bound:
				return nil, false, ErrTooLarge
			case i == r.r || r.buf[i-1] != '\r':
				return nil, false, malformed("a line ends without CR")
			}
			line = r.buf[r.r : i-1]
			r.r = i + 1
			return line, true, nil
		}
		scanned = r.w - r.r
		if scanned > bound {
			return nil, false, ErrTooLarge
		}
		if !wait {
			return nil, false, nil
		}
		if err := r.fill(bound + initialBuffer); err != nil {
			return nil, false, cutShort(err)
		}
	}
}

// cutShort is the error for a connection that ends where it must not.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
