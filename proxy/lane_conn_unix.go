//go:build unix

package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// rawReader reads from a connection's descriptor. It keeps its function, so that
// looking at a connection allocates nothing.
type rawReader struct {
	conn syscall.RawConn
	call *rawCall
}

type rawCall struct {
	read func(fd uintptr) bool
	p    []byte
	n    int
	err  error
}

func rawOf(conn net.Conn) rawReader {
	source, ok := conn.(syscall.Conn)
	if !ok {
		return rawReader{}
	}
	raw, err := source.SyscallConn()
	if err != nil {
		return rawReader{}
	}
	call := new(rawCall)
	call.read = func(fd uintptr) bool {
		for {
			call.n, call.err = syscall.Read(int(fd), call.p)
			if !errors.Is(call.err, syscall.EINTR) {
				return true
			}
		}
	}
	return rawReader{raw, call}
}

// readNow reads what has come. A connection that can't be looked at counts as closed.
func (r rawReader) readNow(p []byte) (int, error) {
	if r.conn == nil {
		return 0, io.EOF
	}
	r.call.p = p
	err := r.conn.Read(r.call.read)
	r.call.p = nil
	switch n, readErr := r.call.n, r.call.err; {
	case err != nil:
		return 0, err
	case errors.Is(readErr, syscall.EAGAIN):
		return 0, errNothingYet
	case readErr != nil:
		return 0, readErr
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}
