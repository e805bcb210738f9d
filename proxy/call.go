package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.opentelemetry.io/otel/trace"

	"github.com/isekai-gateway/isekai/internal/tracing"
)

// CallKey is the key under which a request's context holds its *Call.
type CallKey struct{}

// Call is the state of one request on its way through a forwarder. The zero value
// is ready. It belongs to the request's goroutine.
type Call struct {
	// Interrupt bounds, or no longer bounds, how long a Read of the request's body
	// may take that is under way: a transport that has its answer, or has failed,
	// may wait for that. Optional. It must not block.
	Interrupt func(bool)

	// Traced says that the request's context has a span that is recorded. Each try is
	// a span of its own then.
	Traced bool

	attempts int
	tried    []*target
	reserved *target // chosen for the next try, and counted as busy with it
	current  *target
	last     *target                // current, also when that is over
	done     func(error)            // tells the current target's breaker how it went
	granted  bool                   // another attempt was decided on
	counted  bool                   // among the pool's requests
	chosen   *reverseproxy.Upstream // by the fast lane, which has left the try to the full one
	body     *replay
	spoiled  error
	waited   time.Duration
	span     trace.Span // of the current try; nil if not Traced
	carried  bool       // whether tries tell the target their span
	fast     bool       // the current, or last, try is on the fast lane
	answer   laneAnswer // of the fast lane
}

// Waited returns how long the target that the request was sent to last took to begin its
// answer, 0 if none did.
func (c *Call) Waited() time.Duration { return c.waited }

// Attempts returns how often the request was sent, to whichever target.
func (c *Call) Attempts() int { return c.attempts }

// Spoiled returns the error by which the client failed to send its body, or a plugin
// refused it, if that has ended the exchange. reverse_proxy was told then that the
// client has left: whoever embeds the forwarder answers instead.
func (c *Call) Spoiled() error { return c.spoiled }

// Upstream returns the host and port of the target that the request was sent to last,
// empty if it was not sent.
func (c *Call) Upstream() string {
	if c.last == nil {
		return ""
	}
	return c.last.authority
}

// callOf returns the call that a request belongs to, nil for one that the forwarder
// makes itself, to ask for a target's health.
func callOf(r *http.Request) *Call {
	call, _ := r.Context().Value(CallKey{}).(*Call)
	return call
}

// begin notes that the request goes to t now, which was reserved for it.
func (c *Call) begin(t *target) {
	c.attempts++
	c.granted = false
	c.current, c.last, c.reserved = t, t, nil
	t.requests.Add(1)
}

// reserve counts the next try as in flight to t unless t has all that it may have, and
// says whether it did. That is one step with the choice of t, so that requests which
// choose at the same time do not exceed the bound together.
func (c *Call) reserve(t *target) bool {
	c.giveUp()
	if !t.enter() {
		return false
	}
	c.reserved = t
	return true
}

// giveUp takes a reservation back that no try has come of.
func (c *Call) giveUp() {
	if c.reserved != nil {
		c.reserved.exit()
		c.reserved = nil
	}
}

// enter counts a request to the target if its bound allows one more, and says whether it
// did. When the request is over, exit must follow.
func (t *target) enter() bool {
	if t.most == 0 {
		t.load.inFlight.Add(1)
	} else if !addBelow(&t.load.inFlight, t.most) {
		return false
	}
	t.inFlight.Add(1)
	return true
}

// addBelow adds 1 to n unless it is most or more, and says whether it did.
func addBelow(n *atomic.Int64, most int64) bool {
	for {
		now := n.Load()
		if now >= most {
			return false
		}
		if n.CompareAndSwap(now, now+1) {
			return true
		}
	}
}

func (t *target) exit() {
	t.inFlight.Add(-1)
	t.load.inFlight.Add(-1)
}

// settle tells the target's breaker what came of the attempt.
func (c *Call) settle(outcome error) {
	if c.done != nil {
		c.done(outcome)
		c.done = nil
	}
}

// trace begins the span of a try, if there is to be one, and returns the request to
// send, which names it.
func (c *Call) trace(r *http.Request) *http.Request {
	if c.Traced {
		r, c.span, c.carried = tracing.Send(r, "forward", c.attempts-1, c.carried)
	}
	return r
}

// answered notes on the try's span what came of it.
func (c *Call) answered(status int, err error) {
	switch {
	case c.span == nil:
	case err != nil:
		kind := tracing.Kind(err)
		if isDialError(err) {
			kind = "connect"
		}
		tracing.Failed(c.span, kind, err)
	default:
		tracing.Answered(c.span, status)
	}
}

func (c *Call) endSpan() {
	if c.span != nil {
		c.span.End()
		c.span = nil
	}
}

// leave notes that the attempt has come to nothing.
func (c *Call) leave() {
	c.endSpan()
	c.current.exit()
	c.tried = append(c.tried, c.current)
	c.current = nil
}

// end must run when the request is over, however it ended.
func (c *Call) end() {
	c.endSpan()
	c.settle(errNoJudge)
	c.giveUp()
	if c.current != nil {
		c.current.exit()
		c.current = nil
	}
}

func (c *Call) hasTried(t *target) bool {
	return slices.Contains(c.tried, t)
}

// granted lets reverse_proxy try again if the attempt that has just failed has
// decided so.
type granted struct{}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (granted) MatchWithError(r *http.Request) (bool, error) {
	call := callOf(r)
	return call != nil && call.granted, nil
}

// clientError is a failure that is not the target's: the client has left, or did
// not send its body, or the route was changed. reverse_proxy takes it for the first
// of these, and neither tries again nor counts it against the target.
type clientError struct{ err error }

func (e clientError) Error() string        { return e.err.Error() }
func (e clientError) Unwrap() error        { return e.err }
func (e clientError) Is(target error) bool { return target == context.Canceled }

// finalError is an error after which there is no other attempt. It hides from
// reverse_proxy that nothing may have been sent yet, which it would take for
// leave to try again.
type finalError struct{ err error }

func (e finalError) Error() string        { return e.err.Error() }
func (e finalError) Is(target error) bool { return errors.Is(e.err, target) }

// seenError is a failure to connect once more, after the request was sent on a connection
// that has died. It hides that the target can't be connected to, which would mean that
// the target has seen nothing of the request.
type seenError struct{ finalError }

// Timeout implements net.Error.
func (e finalError) Timeout() bool { return isTimeout(e.err) }

// Temporary implements net.Error.
func (finalError) Temporary() bool { return false }
