package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// target is one member of a pool.
type target struct {
	*targetState
	upstream  *reverseproxy.Upstream
	scheme    string
	authority string // what stands for it in a URL
	host      string // the Host that it sees unless the client's is kept
	weight    int
	most      int64 // requests in flight, 0 for no bound
}

// available says whether the target may get a request, as far as its checks and its
// bound go.
func (t *target) available() bool {
	return t.healthy() && !t.full()
}

func (t *target) healthy() bool { return t.upstream.Healthy() && !t.failing.suspect() }

func (t *target) full() bool { return t.most > 0 && t.load.inFlight.Load() >= t.most }

// failed counts a try that has failed to connect or to answer.
func (t *target) failed(now time.Time) {
	t.failures.Add(1)
	t.lastFail.Store(now.UnixNano())
	t.failing.add(now)
}

// pool sends requests to targets: it chooses one for each attempt, as
// reverseproxy.Selector, and does the exchange, as http.RoundTripper. What
// reverse_proxy does around that stays its own.
type pool struct {
	id           string
	policyName   string
	targets      []*target
	byUpstream   map[*reverseproxy.Upstream]*target
	policy       reverseproxy.Selector
	second       reverseproxy.Selector // for a choice among the rest of the targets
	cookie       string                // the name of the cookie that policy sets
	breaks       bool                  // whether targets have circuit breakers
	preserveHost bool
	retry        retryRules
	idle         time.Duration // see store.UpstreamTimeouts; 0: no bound
	transport    *http.Transport
	lane         *lane // nil: all goes over the transport
	state        *poolState
	observe      func(*target) // notices a change of health
	suspects     bool          // whether targets have passive checks
	bounded      bool          // whether a target has a bound of requests in flight
}

// digest is a hash of text in hexadecimal.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// RoundTrip implements http.RoundTripper. The request is reverse_proxy's own copy,
// so it may be changed.
func (p *pool) RoundTrip(r *http.Request) (*http.Response, error) {
	info, _ := reverseproxy.GetDialInfo(r.Context())
	t := p.byUpstream[info.Upstream]
	if t == nil {
		return nil, errors.New("the request has no target")
	}
	call := callOf(r)
	if call == nil {
		return p.check(t, r)
	}
	p.first(call)
	call.begin(t)
	p.replayable(call, r)
	if !p.preserveHost {
		r.Host = t.host
	}
	r.URL.Scheme, r.URL.Host = t.scheme, t.authority
	start := time.Now()
	resp, err := p.exchange(call.trace(r))
	status := 0
	if err == nil {
		status = resp.StatusCode
		if p.lane != nil {
			p.lane.heard(r, resp)
		}
	}
	call.answered(status, err)
	if err := p.judge(call, t, r, status, time.Since(start), err); err != nil {
		if resp != nil {
			discard(resp)
		}
		return nil, err
	}
	return resp, nil
}

// first counts a request that was not sent anywhere yet.
func (p *pool) first(call *Call) {
	if !call.counted {
		call.counted = true
		p.state.requests.Add(1)
		if p.retry.most > 0 {
			p.state.budget.request(time.Now())
		}
	}
}

// judge draws the conclusions from a try, which was answered with a status after took,
// or has failed with err. It returns nil if the answer stands. Otherwise call.granted
// says whether there is another try, after which no trace of this one is left, and the
// error is why.
func (p *pool) judge(call *Call, t *target, r *http.Request, status int, took time.Duration, err error) error {
	switch {
	case err == nil:
		call.waited = took
		t.failing.judge(status, took)
		if t.breaker != nil {
			call.settle(t.breaker.judge(status, took))
		}
		if !p.retry.repeats(status) || !p.mayRepeat(call, r, nil) {
			return nil
		}
		err = statusError(status)
		t.failing.add(time.Now())
	case r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), context.DeadlineExceeded):
		// The client has left, or the route was changed. That is no target's failure.
		call.settle(errNoJudge)
		return clientError{err}
	case call.body != nil && call.body.spoiled():
		call.settle(errNoJudge)
		call.spoiled = err
		return clientError{err}
	default:
		t.failed(time.Now())
		call.settle(errFailed)
		if !p.mayRepeat(call, r, err) {
			if p.retry.most > 0 {
				err = finalError{err}
			}
			return err
		}
	}
	call.leave()
	call.granted = true
	return err
}

// check sends a request that asks for a target's health.
func (p *pool) check(t *target, r *http.Request) (*http.Response, error) {
	p.observe(t) // what the check before has found
	t.lastCheck.Store(time.Now().UnixNano())
	if r.Host == "" || r.Host == r.URL.Host {
		r.Host = t.host
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header.Set("User-Agent", "isekai-health-check")
	}
	r.URL.Scheme, r.URL.Host = t.scheme, t.authority
	return p.exchange(r)
}

// exchange sends a request to the target in its URL and returns the answer.
func (p *pool) exchange(r *http.Request) (*http.Response, error) {
	if p.idle == 0 {
		return p.roundTrip(r)
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	resp, err := p.roundTrip(r.WithContext(ctx))
	switch {
	case err != nil:
		cancel(nil)
		return nil, err
	case resp.StatusCode == http.StatusSwitchingProtocols:
		context.AfterFunc(r.Context(), func() { cancel(nil) })
	default:
		resp.Body = newIdleBody(resp.Body, p.idle, cancel)
	}
	return resp, nil
}

func (p *pool) roundTrip(r *http.Request) (*http.Response, error) {
	var connected *atomic.Bool
	if p.retry.most > 0 && repeatable(r) && !slices.Contains(p.retry.methods, r.Method) {
		r, connected = watchConnection(r)
	}
	resp, err := p.transport.RoundTrip(r)
	if err != nil && connected != nil && connected.Load() && isDialError(err) {
		err = seenError{finalError{err}}
	}
	if err == nil && resp.StatusCode == http.StatusSwitchingProtocols && r.Header.Get("Upgrade") == "" {
		// reverse_proxy would leave the client with an empty 200.
		return nil, errors.Join(errUnaskedUpgrade, resp.Body.Close())
	}
	return resp, err
}

// watchConnection returns a request that notes when it gets a connection. http.Transport
// sends what is repeatable again by itself if a connection dies that was used before. It
// is for requests of which it matters that a target may have seen them then, since it
// allocates.
func watchConnection(r *http.Request) (*http.Request, *atomic.Bool) {
	got := new(atomic.Bool)
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})), got
}

// errUnaskedUpgrade says that an upstream broke the protocol.
var errUnaskedUpgrade = errors.New("the upstream switched protocols without being asked")

// ErrNoTarget says that none of a pool's targets may get requests now.
var ErrNoTarget = errors.New("no upstream is available")

// noTarget returns how long a client should wait, and why there is no target.
func (p *pool) noTarget() (time.Duration, error) {
	now, wait, open := time.Now(), time.Duration(0), 0
	for _, t := range p.targets {
		if w := t.breaker.wait(now); w > 0 {
			if open++; open == 1 || w < wait {
				wait = w
			}
		}
	}
	if open > 0 {
		return wait, fmt.Errorf("%w: the circuit breaker of %d of %d targets is open", ErrNoTarget, open, len(p.targets))
	}
	return wait, fmt.Errorf("%w: none of %d targets is healthy and below its bound", ErrNoTarget, len(p.targets))
}
