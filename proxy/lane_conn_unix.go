//go:build unix

package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// rawReader reads from, and writes to, a connection's descriptor. It keeps its
// functions, so that using it allocates nothing.
type rawReader struct {
	conn syscall.RawConn
	call *rawCall
}

// rawCall is one call, of one at a time.
type rawCall struct {
	readNow, exchange func(fd uintptr) bool

	p       []byte
	n       int
	request []byte
	sent    int
	waiting bool // for the answer
	err     error
}

// freshFor is 0: a look at a connection is one system call, which never waits.
const freshFor time.Duration = 0

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
	call.readNow, call.exchange = call.stepRead, call.stepExchange
	return rawReader{raw, call}
}

// take returns what the call has come to, and makes room for the next one.
func (c *rawCall) take() (n, sent int, err error) {
	n, sent, err = c.n, c.sent, c.err
	*c = rawCall{readNow: c.readNow, exchange: c.exchange}
	return n, sent, err
}

// stepRead reads what has come.
func (c *rawCall) stepRead(fd uintptr) bool {
	c.n, c.err = again(syscall.Read, fd, c.p)
	return true
}

// stepExchange is called until it returns true, whenever there may be something to read.
func (c *rawCall) stepExchange(fd uintptr) bool {
	n, err := again(syscall.Read, fd, c.p)
	nothing := errors.Is(err, syscall.EAGAIN)
	switch {
	case c.waiting && nothing:
		return false
	case c.waiting:
		c.n, c.err = result(n, err)
		return true
	case !nothing:
		c.err = errGone
		return true
	}
	// That there was nothing yet tells the poller to wait for what comes from now on.
	n, err = again(syscall.Write, fd, c.request)
	switch {
	case err == nil:
		c.sent = n
	case !errors.Is(err, syscall.EAGAIN):
		c.err = os.NewSyscallError("write", err)
		return true
	}
	c.waiting = c.sent == len(c.request)
	return !c.waiting
}

// again does a system call until it is not interrupted.
func again(do func(fd int, p []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		n, err := do(int(fd), p)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// readNow reads what has come. A connection that can't be looked at counts as closed.
func (r rawReader) readNow(p []byte) (int, error) {
	if r.conn == nil {
		return 0, io.EOF
	}
	r.call.p = p
	err := r.conn.Read(r.call.readNow)
	n, _, readErr := r.call.take()
	switch {
	case err != nil:
		return 0, err
	case errors.Is(readErr, syscall.EAGAIN):
		return 0, errNothingYet
	default:
		return result(n, readErr)
	}
}

// result is what a Read returns for that of the system call.
func result(n int, err error) (int, error) {
	switch {
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	default:
		return n, nil
	}
}

// canExchange says whether exchange can be called.
func (r rawReader) canExchange() bool { return r.conn != nil }

// exchange sends a request, if nothing has come yet, and reads the beginning of what
// comes then. If not all of the request could be sent without waiting, it has not read.
// That is one wait of the runtime's poller: an ordinary Read would first ask in vain.
func (r rawReader) exchange(request, p []byte) (n, sent int, err error) {
	r.call.request, r.call.p = request, p
	waitErr := r.conn.Read(r.call.exchange)
	n, sent, err = r.call.take()
	if waitErr != nil {
		err = waitErr
	}
	return n, sent, err
}
