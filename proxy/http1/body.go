package http1

import (
	"errors"
	"io"
	"strings"
)

// The states of a Body. The zero value is that of one that has ended.
const (
	ended      = iota
	counted    // left bytes follow, then it ends
	untilClose // it ends with the connection
	chunkSize  // the line with a chunk's size follows
	chunkData  // left bytes of a chunk follow
	chunkEnd   // the CRLF behind a chunk follows
	trailer    // lines of the trailer follow
	failed
)

// Body is an answer's body. It is not safe for concurrent use.
type Body struct {
	// Trailer has the fields behind a body in chunks, once that was read to its end.
	Trailer []Field

	r       *Reader
	state   int
	left    int64
	excess  int64 // bytes of chunks' overhead, beyond a fair one
	trailed int   // bytes of the trailer
	err     error
}

// Ended says whether the body was read to its end.
func (b *Body) Ended() bool { return b.state == ended }

// Left returns how many bytes follow if that is known, else -1.
func (b *Body) Left() int64 {
	switch b.state {
	case ended:
		return 0
	case counted:
		return b.left
	}
	return -1
}

// Buffered returns what of the body is there to be read at once. It is valid until the
// next read; Discard takes it, or the beginning of it, away.
func (b *Body) Buffered() []byte {
	n := b.r.Buffered()
	switch b.state {
	case counted, chunkData:
		n = int(min(int64(n), b.left))
	case untilClose:
	default:
		return nil
	}
	return b.r.buf[b.r.r : b.r.r+n]
}

// Discard takes n bytes that Buffered has returned.
func (b *Body) Discard(n int) {
	b.r.r += n
	b.took(int64(n))
}

func (b *Body) took(n int64) {
	switch b.state {
	case counted:
		if b.left -= n; b.left == 0 {
			b.state = ended
		}
	case chunkData:
		if b.left -= n; b.left == 0 {
			b.state = chunkEnd
		}
	}
}

// Ready says whether the next Read returns without waiting for the connection.
func (b *Body) Ready() bool {
	for b.state == chunkSize || b.state == chunkEnd || b.state == trailer {
		if moved, _ := b.step(false); !moved {
			return b.state == failed
		}
	}
	return b.state == ended || b.state == failed || b.r.Buffered() > 0
}

// Read implements io.Reader. A body that ends too early is io.ErrUnexpectedEOF.
func (b *Body) Read(p []byte) (int, error) {
	read := 0
	for read < len(p) {
		// Only for the first bytes, the connection is waited for.
		if read > 0 && !b.Ready() {
			break
		}
		switch b.state {
		case ended:
			if read > 0 {
				return read, nil
			}
			return 0, io.EOF
		case failed:
			if read > 0 {
				return read, nil
			}
			return 0, b.err
		case chunkSize, chunkEnd, trailer:
			_, _ = b.step(true)
			continue
		}
		n, err := b.data(p[read:])
		read += n
		if err != nil && read == 0 {
			return 0, err
		}
	}
	return read, nil
}

// data reads bytes of the body itself.
func (b *Body) data(p []byte) (int, error) {
	if b.state != untilClose {
		p = p[:min(int64(len(p)), b.left)]
	}
	var (
		n   int
		err error
	)
	if b.r.Buffered() == 0 && len(p) < len(b.r.buf) {
		err = b.r.fill(len(b.r.buf))
	}
	switch {
	case err != nil:
	case b.r.Buffered() > 0:
		n = copy(p, b.r.buf[b.r.r:b.r.w])
		b.r.r += n
	default:
		n, err = b.r.src.Read(p)
	}
	b.took(int64(n))
	switch {
	case err == nil || n > 0 && errors.Is(err, io.EOF) && b.state != untilClose:
		return n, nil
	case errors.Is(err, io.EOF) && b.state == untilClose:
		b.state = ended
		if n > 0 {
			err = nil
		}
		return n, err
	}
	return n, b.fail(cutShort(err))
}

func (b *Body) fail(err error) error {
	b.state, b.err = failed, err
	return err
}

// The lines around chunks are bounded, and so is what a server can send of them in
// relation to data: as in net/http, a fair overhead is 16 bytes and as much again as
// there is data.
const (
	maxChunkLine   = 4 << 10
	maxExcess      = 16 << 10
	fairChunkBytes = 16
)

// step reads one line around chunks. Unless wait is true it does not read from the
// connection, and says whether a line was there.
func (b *Body) step(wait bool) (moved bool, err error) {
	bound := maxChunkLine
	if b.state == trailer {
		bound = MaxHeader
	}
	line, ok, err := b.r.line(bound, wait)
	if err != nil {
		return true, b.fail(err)
	}
	if !ok {
		return false, nil
	}
	switch b.state {
	case chunkEnd:
		if len(line) > 0 {
			return true, b.fail(malformed("a chunk is longer than it says"))
		}
		b.state = chunkSize
	case chunkSize:
		size, err := parseChunkSize(line)
		if err != nil {
			return true, b.fail(err)
		}
		b.excess = max(0, b.excess+int64(len(line))+2-fairChunkBytes-2*min(size, maxExcess))
		if b.excess > maxExcess {
			return true, b.fail(malformed("there is more around its chunks than in them"))
		}
		if b.left, b.state = size, chunkData; size == 0 {
			b.state = trailer
		}
	case trailer:
		if len(line) == 0 {
			b.state = ended
			return true, nil
		}
		if b.trailed += len(line) + 2; b.trailed > MaxHeader {
			return true, b.fail(ErrTooLarge)
		}
		field, err := parseField(string(line))
		if err == nil && !trailerMay(field.Name) {
			err = malformed("%s is in its trailer", field.Name)
		}
		if err != nil {
			return true, b.fail(err)
		}
		b.Trailer = append(b.Trailer, field)
	}
	return true, nil
}

// parseChunkSize reads the line before a chunk: hexadecimal digits and extensions,
// which mean nothing here.
func parseChunkSize(line []byte) (int64, error) {
	const mostDigits = 15
	var n int64
	i := 0
	for ; i < len(line); i++ {
		var digit byte
		switch c := line[i]; {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		case c >= 'A' && c <= 'F':
			digit = c - 'A' + 10
		default:
			digit = 16
		}
		if digit == 16 {
			break
		}
		n = n<<4 | int64(digit)
	}
	if i == 0 || i > mostDigits {
		return 0, malformed("a chunk has no size, or too large a one")
	}
	// Blanks before an extension are legal (RFC 9112, section 7.1.1), and so unusual that
	// net/http refuses them, too.
	rest := string(line[i:])
	if rest != "" && rest[0] != ';' && strings.Trim(rest, " \t") != "" || !validText(rest) {
		return 0, malformed("there is something else behind a chunk's size")
	}
	return n, nil
}

// trailerMay says whether a field may be in a trailer. Those that say how to read the
// message may not (RFC 9110, section 6.5.1).
func trailerMay(name string) bool {
	return name != "Transfer-Encoding" && name != "Content-Length" && name != "Trailer"
}
