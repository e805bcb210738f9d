package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// serveFast tries to serve r on the fast lane. If done is false, nothing was answered
// and the full lane goes on: with the whole request, or with the next try of one that
// has failed, for which err is why.
func (f *Forwarder) serveFast(w http.ResponseWriter, r *http.Request, call *Call) (done bool, err error) {
	p := f.pool
	if p.lane == nil {
		return false, nil
	}
	x := laneExchanges.Get().(*laneExchange)
	defer x.free()
	if !x.request.prepare(r) {
		return false, nil
	}
	if r.ContentLength > 0 {
		if r.Body == nil {
			return false, nil
		}
		body, early := p.readBody(r, call)
		switch {
		case early != nil:
			early.leave()
			return false, nil
		case call.body.spoiled():
			f.spoiled(w, r, call)
			return true, nil
		case int64(len(body)) != r.ContentLength:
			return false, nil // a plugin's; the full lane knows what to say
		}
		x.request.body = body
	}
	u := p.Select(f.handler.Upstreams, r, w)
	if u == nil {
		return true, f.noTarget(w)
	}
	t := p.byUpstream[u]
	host := t.host
	if p.preserveHost {
		host = r.Host
	}
	// One that is traced does not ask a target what it speaks, for that is no try.
	if !x.request.finish(r, host) || !p.lane.takes(t.authority, !call.Traced) {
		call.chosen = u
		return false, nil
	}

	p.first(call)
	call.begin(t)
	call.fast = true
	if call.Traced {
		r = call.traceTo(t, r)
		if !x.request.prepare(r) || !x.request.finish(r, host) {
			call.takeBack(t)
			return false, nil
		}
	}
	began := time.Now()
	err = x.begin(w, r, p.lane, t.authority)
	took := time.Since(began)
	if errors.Is(err, errSpeaksHTTP2) {
		call.takeBack(t)
		return false, nil
	}
	p.state.fast.Add(1)
	status := 0
	if err == nil {
		status = x.head.Status
	}
	call.answered(status, err)
	if err = p.judge(call, t, r, status, took, err); err == nil {
		call.answer = laneAnswer{head: x.head.Text(), status: status, reason: x.head.Reason, began: began}
		f.send(x, w)
		return true, nil
	}
	if status != 0 {
		x.discard()
	}
	switch {
	case call.granted:
		call.fast = false
		return false, err
	case errors.Is(err, context.Canceled):
		// The client has left, or the exchange was ended: as reverse_proxy has it.
		w.WriteHeader(StatusClientClosedRequest)
		return true, nil
	}
	return true, statusOf(err)
}

// StatusClientClosedRequest is what logs say of a client that went away before it had its
// answer, in Caddy's reverse_proxy too; it is nginx's number, which no client ever sees.
const StatusClientClosedRequest = 499

// statusOf is the answer to a request whose last try has failed.
func statusOf(err error) error {
	if isTimeout(err) {
		return caddyhttp.Error(http.StatusGatewayTimeout, err)
	}
	return caddyhttp.Error(http.StatusBadGateway, err)
}

// bodyPatience is how long the fast lane waits for a request's body. The full lane does
// not wait for it at all: it lets a target answer before it has the body. So what does
// not come at once is left to that lane.
const bodyPatience = 20 * time.Millisecond

// readBody reads a short body whole. If it does not come at once, the reader is
// returned that goes on to read it, and shares it with the full lane.
func (p *pool) readBody(r *http.Request, call *Call) (body []byte, early *attempt) {
	b := &replay{
		source: r.Body, bound: maxLaneBody, interrupt: call.Interrupt,
		once: r.ContentLength > p.retry.bodyMax, kept: make([]byte, 0, r.ContentLength),
	}
	call.body = b
	reader, read := b.attempt(), make(chan struct{})
	go func() {
		defer close(read)
		buf := copyBuffers.Get().(*copyBuffer)
		defer copyBuffers.Put(buf)
		for {
			if _, err := reader.Read(buf[:]); err != nil {
				return
			}
		}
	}()
	patience := time.NewTimer(bodyPatience)
	defer patience.Stop()
	select {
	case <-read:
		return b.kept, nil
	case <-patience.C:
	case <-r.Context().Done():
	}
	return nil, reader
}

// spoiled ends a request whose body could not be read, before a target was asked.
func (f *Forwarder) spoiled(w http.ResponseWriter, r *http.Request, call *Call) {
	if r.Context().Err() == nil {
		call.spoiled = call.body.err
	}
	w.WriteHeader(StatusClientClosedRequest)
}

// traceTo begins the span of a try, and returns the request that names it.
func (c *Call) traceTo(t *target, r *http.Request) *http.Request {
	u := *r.URL
	u.Scheme, u.Host = t.scheme, t.authority
	r = r.WithContext(r.Context())
	r.URL = &u
	return c.trace(r)
}

// takeBack undoes begin, but for the choice of t, which has seen nothing of the request.
func (c *Call) takeBack(t *target) {
	c.endSpan()
	c.chosen, c.fast = t.upstream, false
	c.attempts--
	c.current, c.last, c.reserved = nil, nil, t
	t.requests.Add(^uint64(0))
}

// cut ends an answer that could not be sent whole, as reverse_proxy does.
func (f *Forwarder) cut(w http.ResponseWriter, err error) {
	f.registry.logger.Warn("aborting with incomplete response", zap.Error(err))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
