package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/store"
)

// Defaults of store.Retry.
const (
	defaultReplayBytes = 64 << 10
	defaultBackoff     = 50 * time.Millisecond
	maxDefaultRetries  = 2
)

// idempotent are the methods of RFC 9110, section 9.2.2, that routes serve.
var idempotent = []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete}

// retryRules say which requests are tried again.
type retryRules struct {
	most     int // 0: never
	methods  []string
	statuses []int
	bodyMax  int64
	backoff  time.Duration
}

func newRetryRules(u *store.Upstream, targets int) retryRules {
	rules := retryRules{
		most: min(targets-1, maxDefaultRetries), methods: idempotent,
		bodyMax: defaultReplayBytes, backoff: defaultBackoff,
	}
	if u.Retries != nil {
		rules.most = *u.Retries
	}
	if r := u.Retry; r != nil {
		if r.Methods != nil {
			rules.methods = r.Methods
		}
		if r.BodyMax != 0 {
			rules.bodyMax = r.BodyMax
		}
		rules.statuses = r.Statuses
		rules.backoff = r.Backoff.Duration(defaultBackoff)
	}
	return rules
}

// repeats says whether an answer with this status is a failure to repeat.
func (r *retryRules) repeats(status int) bool { return slices.Contains(r.statuses, status) }

// statusError is an answer that was thrown away, to ask again.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the upstream answered %d", int(e)) }

// replayable makes the request's body one that can be sent more than once, as long
// as it is short enough; that tells whose failure it is if it can't be sent; and
// that can be closed, which reverse_proxy prevents while nothing was read of it.
func (p *pool) replayable(call *Call, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	if call.body == nil {
		call.body = &replay{source: r.Body, bound: p.retry.bodyMax, interrupt: call.Interrupt}
		if r.ContentLength > p.retry.bodyMax || p.retry.most == 0 {
			call.body.bound = 0
		}
	}
	r.Body = call.body.attempt()
}

// mayRepeat decides whether a request that has just failed is tried again, and
// waits if it must before that. A nil err means an answer with a status to repeat.
func (p *pool) mayRepeat(call *Call, r *http.Request, err error) bool {
	if call.attempts > p.retry.most || r.Context().Err() != nil || call.body != nil && !call.body.again() {
		return false
	}
	// Nothing was sent to a target that can't be connected to.
	unseen := isDialError(err)
	if !unseen && !slices.Contains(p.retry.methods, r.Method) {
		return false
	}
	elsewhere := p.hasOther(call)
	if unseen && elsewhere {
		p.state.retries.Add(1)
		return true
	}
	if !p.state.budget.take(time.Now()) {
		p.state.denied.Add(1)
		return false
	}
	p.state.retries.Add(1)
	return elsewhere || worker.Sleep(r.Context(), p.retry.backoff)
}

func isDialError(err error) bool {
	_, ok := errors.AsType[reverseproxy.DialError](err)
	return ok
}

// hasOther says whether a target is there that the request was not sent to yet.
func (p *pool) hasOther(call *Call) bool {
	for _, t := range p.targets {
		if t.weight == 0 || t == call.current || call.hasTried(t) || t.breaker.wait(time.Now()) > 0 {
			continue
		}
		if t.available() || t.onlySuspected() {
			return true
		}
	}
	return false
}

// Bounds of an answer that is thrown away to ask again. The next try waits for it.
const (
	discardMost     = 16 << 10 // bytes
	discardPatience = 500 * time.Millisecond
)

// discard throws an answer away so that its connection can be used again, unless
// that would take long.
func discard(resp *http.Response) {
	if resp.ContentLength > 0 && resp.ContentLength <= discardMost {
		late := time.AfterFunc(discardPatience, func() { _ = resp.Body.Close() })
		defer late.Stop()
		_, _ = io.CopyN(io.Discard, resp.Body, discardMost)
	}
	_ = resp.Body.Close()
}
