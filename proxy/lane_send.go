package proxy

import "time"

const (
	// sentAtOnce is how much of a request, in bytes, is sent before its answer is read: the
	// system takes so much without waiting for the target.
	sentAtOnce = 16 << 10

	// lastWords is how long, once a request can't be sent any more, is waited for what the
	// target has said about it before.
	lastWords = 500 * time.Millisecond

	// sentPatience is how long is waited for the end of sending when the answer is over, as
	// in http.Transport. Usually it has come: the target has answered to the whole request.
	sentPatience = 50 * time.Millisecond
)

// sendAside sends a request while its answer is read: a target may answer, e.g. with 413,
// before it has read the whole, and may never read that. The bound on the answer's
// beginning counts from when all is sent. The request must not be changed until sent or
// Close was called.
func (c *laneConn) sendAside(request []byte, patience time.Duration) {
	c.wait(0)
	c.later = patience
	sending := make(chan error, 1)
	c.sending = sending
	go func() {
		_, err := c.Write(request)
		c.mu.Lock()
		switch {
		case err != nil:
			c.giveUp()
		case c.later > 0:
			c.setBound(c.later)
		}
		c.mu.Unlock()
		sending <- err
	}()
}

// giveUp bounds how long the rest of an answer may take whose request could not be sent.
// It must be called with mu held.
func (c *laneConn) giveUp() {
	c.setBound(lastWords)
	c.cut = true
}

// sendError returns why the request could not be sent, nil if it was, or still may be.
func (c *laneConn) sendError() error {
	if c.sending != nil {
		select {
		case c.failure = <-c.sending:
			c.sending = nil
		default:
		}
	}
	return c.failure
}

// sent says, when the answer is over, whether the whole request was sent.
func (c *laneConn) sent() bool {
	if c.sending != nil {
		patience := time.NewTimer(sentPatience)
		defer patience.Stop()
		select {
		case c.failure = <-c.sending:
			c.sending = nil
		case <-patience.C:
			return false
		}
	}
	return c.failure == nil
}

// Close implements net.Conn. Where sending has failed, or does not end, TLS could not say
// good-bye, and would wait for that.
func (c *laneConn) Close() error {
	if c.sending == nil && c.failure == nil {
		return c.Conn.Close()
	}
	err := c.probe.Close()
	if c.sending != nil {
		c.failure = <-c.sending
		c.sending = nil
	}
	return err
}
