package pipeline

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
)

// Exchange is one request on its way through a pipeline. It is the request's
// context, so that later steps find it, and it enforces the route's timeout.
type Exchange struct {
	context.Context

	// Path is the canonical path that was matched.
	Path string

	// RequestID is sent to the upstream and to the client.
	RequestID string

	// Preflight says that the request is a CORS preflight, and the route that of
	// the request that it asks about.
	Preflight bool

	// Span is the request's if it is recorded; nil means there is nothing to trace.
	Span trace.Span

	// TraceID is the trace that the request belongs to; empty if it is known of none.
	TraceID string

	// Cache says whether the route's pipeline was there ("hit") or had to be compiled
	// ("miss"); empty if none was asked for.
	Cache string

	route    *routing.Route
	matched  [2]string // the URL's Path and RawPath as they were matched, to notice rewrites
	cancel   context.CancelCauseFunc
	deadline deadline
	body     *body
	writer   writer
	origin   string // the client's, whatever plugins do to the request
	extended bool   // an extended CONNECT (RFC 8441), which is a stream once answered
	identity *auth.Identity

	consumer *ratelimit.Charge // the own limit of who makes the request; nil for none
	limited  string            // the rules that the request is over, separated by commas

	call proxy.Call // the forwarder's part

	pipeline   *Pipeline
	remembered atomic.Bool // in its pipeline's set of streams

	// What every request needs, in the exchange's own memory. It is never used for
	// another request: whoever goes on reading a body, dialling or copying when this
	// one is over may still hold it.
	idOfRequest, idOfAnswer [1]string // values of X-Request-Id
	forwarded               url.URL
	repl, vars              any // of the context, which is asked for them often
}

type contextKey struct{}

// FromContext returns the exchange that ctx belongs to, or nil.
func FromContext(ctx context.Context) *Exchange {
	x, _ := ctx.Value(contextKey{}).(*Exchange)
	return x
}

// Value implements context.Context.
func (x *Exchange) Value(key any) any {
	switch key.(type) {
	case contextKey:
		return x
	case proxy.CallKey:
		return &x.call
	case caddy.CtxKey:
		switch {
		case key == caddy.ReplacerCtxKey && x.repl != nil:
			return x.repl
		case key == caddyhttp.VarsCtxKey && x.vars != nil:
			return x.vars
		}
	}
	return x.Context.Value(key)
}

// Placeholder returns the value of a placeholder in the namespace http.isekai:
// route, route_name, request_id, consumer, upstream, cache, limited and param.NAME; and
// of those of reverse_proxy for a request that it did not forward.
func (x *Exchange) Placeholder(key string) (any, bool) {
	if strings.HasPrefix(key, proxy.PlaceholderPrefix) {
		return x.call.Placeholder(key)
	}
	const prefix = "http.isekai."
	if len(key) <= len(prefix) || key[:len(prefix)] != prefix {
		return nil, false
	}
	switch key = key[len(prefix):]; key {
	case "route":
		return strconv.FormatInt(x.route.ID, 10), true
	case "route_name":
		return x.route.Name(), true
	case "request_id":
		return x.RequestID, true
	case "consumer":
		return x.Consumer(), true
	case "upstream":
		return x.Upstream(), true
	case "cache":
		return x.Cache, true
	case "limited":
		return x.limited, true
	}
	const param = "param."
	if len(key) <= len(param) || key[:len(param)] != param {
		return nil, false
	}
	var buf [8]routing.Param
	for _, p := range x.route.Pattern().AppendParams(buf[:0], x.Path) {
		if p.Name == key[len(param):] {
			value, err := url.PathUnescape(p.Value)
			return value, err == nil
		}
	}
	return nil, false
}

// TagRequest sets X-Request-Id in a request's header. Every field has memory of its
// own, since a plugin may change a field's value in place.
func (x *Exchange) TagRequest(h http.Header) {
	x.idOfRequest[0] = x.RequestID
	h["X-Request-Id"] = x.idOfRequest[:]
}

// TagAnswer sets X-Request-Id in the header of an answer.
func (x *Exchange) TagAnswer(h http.Header) {
	if values := h["X-Request-Id"]; len(values) == 1 && values[0] == x.RequestID {
		return
	}
	x.idOfAnswer[0] = x.RequestID
	h["X-Request-Id"] = x.idOfAnswer[:]
}

// begin makes x the context of r and of its body and answer. Of the body, at most
// bodyMax bytes can be read, if that is not 0.
func (x *Exchange) begin(w http.ResponseWriter, r *http.Request, bodyMax int64) (http.ResponseWriter, *http.Request) {
	ctx := r.Context()
	x.repl, x.vars = ctx.Value(caddy.ReplacerCtxKey), ctx.Value(caddyhttp.VarsCtxKey)
	x.Context, x.cancel = context.WithCancelCause(ctx)
	x.deadline.start(time.Duration(x.route.Timeout())*time.Second, x.cancel)
	x.writer = writer{ResponseWriter: w, exchange: x, http10: !r.ProtoAtLeast(1, 1)}
	x.matched = [2]string{r.URL.Path, r.URL.RawPath}
	x.extended = r.Method == http.MethodConnect
	x.call.Traced = x.Span != nil
	x.origin = cors.Origin(r)
	r = r.WithContext(x)
	// Caddy wraps bodies that are none, too; an unknown length is not 0.
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		x.body = &body{
			ReadCloser: r.Body,
			exchange:   x,
			http1:      r.ProtoMajor == 1,
			expects:    httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue"),
		}
		x.call.Interrupt = x.body.hurry
		if !x.extended { // the body of an extended CONNECT is a stream of messages
			x.body.most = bodyMax
		}
		r.Body = x.body
	}
	return &x.writer, r
}

// end gives up everything that begin took. It must run in any case, also when a
// handler panicked.
func (x *Exchange) end() {
	x.deadline.stop()
	if x.body != nil {
		x.body.end()
	}
	x.cancel(nil)
}

// stream notes that the answer goes on as long as both sides like.
func (x *Exchange) stream() {
	x.deadline.idle()
	x.pipeline.remember(x)
}

// timedOut says whether the route's timeout ended the exchange.
func (x *Exchange) timedOut() bool { return context.Cause(x.Context) == errTimeout }

// drained says whether the exchange was ended since its route was changed.
func (x *Exchange) drained() bool { return context.Cause(x.Context) == errDrained }

// awaited says whether the client waits for an answer though the exchange was
// ended: by the route's timeout, or a change of it, or since the body is not what it
// should be.
func (x *Exchange) awaited() bool {
	return x.timedOut() || x.drained() || x.call.Spoiled() != nil && x.Context.Err() == nil
}

// Status returns the answer's status, 0 if there was none.
func (x *Exchange) Status() int { return x.writer.status }

// Bytes returns how much of the request's body was read, and how much of the answer's
// was written. Of a connection that was taken over, they count only what came before.
func (x *Exchange) Bytes() (in, out int64) {
	if x.body != nil {
		in = x.body.read.Load()
	}
	return in, x.writer.bytes
}

// Upstream returns the address of the last target that the request was sent to, if
// any.
func (x *Exchange) Upstream() string { return x.call.Upstream() }

// Waited returns how long that target took to begin its answer, 0 if it did not.
func (x *Exchange) Waited() time.Duration { return x.call.Waited() }

// Retries returns how often the request was sent once more.
func (x *Exchange) Retries() int { return max(0, x.call.Attempts()-1) }

// Limited returns the names of the rate limits that the request is over, separated by
// commas.
func (x *Exchange) Limited() string { return x.limited }

// errTimeout is the cause of an exchange that took longer than its route allows.
var errTimeout error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string   { return "the route's timeout has passed" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
func (timeoutError) Is(target error) bool {
	return target == context.DeadlineExceeded
}

// deadline cancels an exchange after a time that counts, until idle is called,
// from its start and after that from its last activity.
type deadline struct {
	timeout time.Duration
	began   time.Time // of idling
	alarm   *alarm    // nil for no timeout
	cancel  context.CancelCauseFunc
	idling  atomic.Bool
	last    atomic.Int64 // of the last activity, as time since began
}

func (d *deadline) start(timeout time.Duration, cancel context.CancelCauseFunc) {
	if timeout <= 0 {
		return
	}
	d.timeout, d.cancel = timeout, cancel
	d.alarm = alarms.Get().(*alarm)
	d.alarm.deadline = d
	d.alarm.timer.Reset(timeout)
}

// stop must be called once, when nobody can call idle any more.
func (d *deadline) stop() {
	if d.alarm != nil && d.alarm.timer.Stop() {
		d.alarm.deadline = nil
		alarms.Put(d.alarm)
	}
}

// alarm is a timer that is used again and again.
type alarm struct {
	timer    *time.Timer
	deadline *deadline // set while the timer runs
}

// alarms holds alarms whose timers were stopped before they fired. None of these can be
// firing, so that fire never sees the deadline of another exchange. Those that did fire
// are left to the garbage collector.
var alarms = sync.Pool{New: func() any {
	a := new(alarm)
	a.timer = time.AfterFunc(time.Hour, func() { a.deadline.fire() })
	a.timer.Stop()
	return a
}}

// idle makes only idle time count from now on.
func (d *deadline) idle() {
	if d.alarm == nil || d.idling.Load() {
		return
	}
	d.began = time.Now()
	d.idling.Store(true)
	d.alarm.timer.Reset(d.timeout)
}

// touch notes activity. It is called for every read and write.
func (d *deadline) touch() {
	if d.idling.Load() {
		d.last.Store(int64(time.Since(d.began)))
	}
}

func (d *deadline) fire() {
	if d.idling.Load() {
		quiet := time.Since(d.began) - time.Duration(d.last.Load())
		if quiet < d.timeout {
			d.alarm.timer.Reset(d.timeout - quiet)
			return
		}
	}
	d.cancel(errTimeout)
}
