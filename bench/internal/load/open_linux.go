package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// RunOpen sends requests at the job's rate, and calls begun when the first of those that
// count is due. An answer that is not as it should be is an error, as are answers that
// are still missing 20 seconds after the last request was due.
//
// It is one loop over sockets and a timer of the system's. Go's own timers and network
// poller wait in whole milliseconds when there is nothing else to do, by which requests
// would be late that take a fraction of one.
func RunOpen(ctx context.Context, j OpenJob, begun func() error) (*OpenOutcome, error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	l := &openLoop{job: j, begun: begun, warm: j.count(j.Warm), total: j.count(j.Warm) + j.count(j.Time)}
	l.took, l.lag = make([]time.Duration, l.total), make([]time.Duration, l.total)
	defer l.close()
	if err := l.open(); err != nil {
		return nil, err
	}
	if err := l.run(ctx); err != nil {
		return nil, err
	}
	after, err := procs.Of(j.Proxy)
	if err != nil {
		return nil, err
	}
	o := &OpenOutcome{
		Began: l.began.Add(l.due(l.warm)), Rate: j.Rate, Took: l.took[l.warm:], Waited: l.waited,
		Lag: Quantile(l.lag[l.warm:], 0.99), RSS: after.RSS,
	}
	if err := settle(ctx, j.Proxy, j.Late); err != nil {
		return nil, err
	}
	if after, err = procs.Of(j.Proxy); err != nil {
		return nil, err
	}
	o.CPU = after.CPU - l.before.CPU
	return o, nil
}

// openLoop is a constant rate at work.
type openLoop struct {
	job         OpenJob
	begun       func() error
	warm, total int // requests

	epoll, timer int
	conns        []openConn
	free         []int // connections without a request, the one that is free longest first

	began    time.Time
	next     int // the request to be sent
	answered int
	waited   int
	took     []time.Duration
	lag      []time.Duration
	before   procs.Usage
	request  []byte
}

// openConn is a connection, with at most one request.
type openConn struct {
	fd      int
	parts   http1 // the request's text, and the route that is next
	request int   // the number of the one that is not answered yet
	freed   time.Duration
	buf     []byte // the answer's beginning, until its fields are known
	have    int    // bytes in buf
	left    int    // bytes of the body that are still to come, once the fields are known
	body    bool
}

// headSize is the most bytes that an answer's fields may have, and what is read at once.
const headSize = 64 << 10

func (l *openLoop) open() (err error) {
	l.epoll, l.timer = -1, -1
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("making an epoll: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("making a timer: %w", err)
	}
	if err := l.watch(l.timer, -1); err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(l.job.Address)
	if err != nil {
		return fmt.Errorf("the address of a constant rate: %w", err)
	}
	job := Job{Method: "GET", Answer: l.job.Answer, Routes: l.job.Routes}
	for i := range l.job.Connections {
		fd, err := connect(address)
		if err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
		first := firstRoute(i, l.job.Connections, l.job.Routes, l.job.From)
		l.conns = append(l.conns, openConn{fd: fd, parts: *newHTTP1(nil, job, first), buf: make([]byte, headSize)})
		l.free = append(l.free, i)
		if err := l.watch(fd, i); err != nil {
			return err
		}
	}
	return nil
}

func (l *openLoop) watch(fd, conn int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(conn)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("watching a descriptor: %w", err)
	}
	return nil
}

// connect returns a connected socket that does not block.
func connect(address netip.AddrPort) (fd int, err error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16()})
	if address.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.Connect(fd, to),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (l *openLoop) close() {
	for _, c := range l.conns {
		_ = unix.Close(c.fd)
	}
	for _, fd := range []int{l.timer, l.epoll} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// due returns when a request is to be sent, from began on.
func (l *openLoop) due(request int) time.Duration {
	return time.Duration(float64(request) / l.job.Rate * float64(time.Second))
}

func (l *openLoop) run(ctx context.Context) error {
	l.began = time.Now()
	last := l.due(l.total) + patience
	events := make([]unix.EpollEvent, len(l.conns)+1)
	for l.answered < l.total {
		if err := l.send(); err != nil {
			return fmt.Errorf("sending a request: %w", err)
		}
		n, err := l.wait(events)
		if err != nil {
			return err
		}
		for _, event := range events[:n] {
			if event.Fd < 0 {
				continue // the timer, which is set anew
			}
			if err := l.read(int(event.Fd)); err != nil {
				return fmt.Errorf("reading an answer: %w", err)
			}
		}
		switch now := time.Since(l.began); {
		case ctx.Err() != nil:
			return ctx.Err()
		case now > last:
			return fmt.Errorf("%d of %d requests are not answered %v after the last was due: the rate is too high",
				l.total-l.answered, l.total, patience)
		}
	}
	return nil
}

// send sends what is due, as far as connections are free.
func (l *openLoop) send() error {
	for l.next < l.total && len(l.free) > 0 {
		due, now := l.due(l.next), time.Since(l.began)
		if now < due {
			return nil
		}
		if l.next == l.warm {
			if err := l.begin(); err != nil {
				return err
			}
		}
		c := &l.conns[l.free[0]]
		l.free = append(l.free[:0], l.free[1:]...)
		c.request, c.have, c.body = l.next, 0, false
		l.request = c.parts.appendRequest(l.request[:0])
		if n, err := unix.Write(c.fd, l.request); err != nil {
			return err
		} else if n < len(l.request) {
			return fmt.Errorf("a connection without any request takes only %d bytes", n)
		}
		if c.freed > due && l.next >= l.warm {
			l.waited++
		}
		l.lag[l.next] = now - max(due, c.freed)
		l.next++
	}
	return nil
}

// begin is the end of warming.
func (l *openLoop) begin() (err error) {
	if l.before, err = procs.Of(l.job.Proxy); err != nil {
		return err
	}
	return l.begun()
}

// wait returns what has come until a request is due that could be sent, or for at most
// a tenth of a second.
func (l *openLoop) wait(events []unix.EpollEvent) (int, error) {
	wait := 100 * time.Millisecond
	if l.next < l.total && len(l.free) > 0 {
		wait = min(wait, l.due(l.next)-time.Since(l.began))
	}
	timeout := -1
	if wait <= 0 {
		timeout = 0 // it is due by now
	} else {
		set := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}
		if err := unix.TimerfdSettime(l.timer, 0, &set, nil); err != nil {
			return 0, fmt.Errorf("setting a timer: %w", err)
		}
	}
	n, err := unix.EpollWait(l.epoll, events, timeout)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("waiting for answers: %w", err)
	}
	return n, nil
}

// read takes what has come on a connection, and frees it if that is the whole answer.
func (l *openLoop) read(conn int) error {
	c := &l.conns[conn]
	into := c.buf[c.have:]
	if c.body {
		into = c.buf // of which only the number counts
	}
	n, err := unix.Read(c.fd, into)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errors.New("the connection is closed")
	}
	now := time.Since(l.began)
	if !c.body {
		c.have += n
		head, length, err := parseHead(c.buf[:c.have])
		if err != nil {
			return err
		}
		if head == 0 {
			if c.have == len(c.buf) {
				return fmt.Errorf("the answer's fields have more than %d bytes", headSize)
			}
			return nil
		}
		if length != c.parts.want {
			return fmt.Errorf("the answer has %d bytes instead of %d", length, c.parts.want)
		}
		c.body, c.left = true, int(length)
		n = c.have - head
	}
	if c.left -= n; c.left < 0 {
		return errors.New("there are more bytes than the answer has")
	}
	if c.left == 0 {
		l.took[c.request] = now - l.due(c.request)
		l.answered++
		c.freed = now
		l.free = append(l.free, conn)
	}
	return nil
}
