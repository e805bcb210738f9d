//go:build !unix

package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// rawReader reads from a connection and waits for a moment at most.
type rawReader struct{ conn net.Conn }

func rawOf(conn net.Conn) rawReader { return rawReader{conn} }

// freshFor is how long after an exchange a connection is used again without a look at it:
// each look waits for a timer, which is coarse on some systems.
const freshFor = time.Second

// lookFor is how long a connection is looked at.
const lookFor = 50 * time.Microsecond

// readNow reads what has come. A connection that can't be looked at counts as closed.
func (r rawReader) readNow(p []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(lookFor)); err != nil {
		return 0, io.EOF
	}
	n, err := r.conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errNothingYet
	}
	if resetErr := r.conn.SetReadDeadline(time.Time{}); resetErr != nil {
		return 0, io.EOF
	}
	return n, err
}

// canExchange says whether exchange can be called.
func (rawReader) canExchange() bool { return false }

// exchange is not there on this system.
func (rawReader) exchange(_, _ []byte) (n, sent int, err error) { return 0, 0, errors.ErrUnsupported }
