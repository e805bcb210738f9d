package isekai

import (
	"errors"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/routing"
)

// Bounds of what errors may write to the log.
const (
	// Of the failures (5xx) of a route with one status, so many are logged in a
	// window; the first of the next says how many were not.
	failureWindow = 10 * time.Second
	failureLines  = 3

	// The routes and statuses that are counted apart. All others count as one.
	maxFailureKeys = 100

	// Refusals (4xx) are the client's business, until there are so many of one status
	// in a window. That makes one line.
	refusalWindow = time.Minute
	refusalFlood  = 1000
)

// errorLog writes to the log what requests fail for, once for each and with its
// cause, and few lines in a flood. It is safe for concurrent use.
type errorLog struct {
	logger *zap.Logger
	now    func() time.Time

	mu       sync.Mutex
	failures map[failureKey]*failureCount
	refusals [100]refusalCount // by status
}

type failureKey struct {
	route  int64 // 0 for none
	status int
}

type failureCount struct {
	began      time.Time
	lines      int
	suppressed int // since the last line
}

type refusalCount struct {
	began  time.Time
	n      int
	before int // in the window before
}

func newErrorLog(logger *zap.Logger) *errorLog {
	return &errorLog{logger: logger, now: time.Now, failures: make(map[failureKey]*failureCount)}
}

// failed is what an error is logged with.
type failed struct {
	request  *http.Request
	route    int64 // 0 for none
	exchange *pipeline.Exchange
	status   int
	err      error
}

func failedOf(r *http.Request, route *routing.Route, x *pipeline.Exchange, status int, err error) failed {
	f := failed{request: r, exchange: x, status: status, err: err}
	if route != nil {
		f.route = route.ID
	}
	return f
}

// note logs an error that a client is answered with, or counts it.
func (l *errorLog) note(f failed) {
	switch {
	case f.status >= http.StatusInternalServerError:
		if errors.Is(f.err, errPanicked) {
			return // logged with its stack
		}
		level := zapcore.ErrorLevel
		if isState(f.err) {
			level = zapcore.WarnLevel
		}
		if suppressed, ok := l.admit(failureKey{f.route, f.status}); ok {
			l.logger.Log(level, "request failed", append(f.fields(), suppressed)...)
		}
	case f.status >= http.StatusBadRequest && f.status != proxy.StatusClientClosedRequest:
		l.refuse(f)
	}
}

// panicked logs a panic with its stack.
func (l *errorLog) panicked(f failed, value any) {
	if suppressed, ok := l.admit(failureKey{f.route, f.status}); ok {
		l.logger.Error("a handler panicked", append(f.fields(), suppressed,
			zap.Any("panic", value), zap.ByteString("stack", debug.Stack()))...)
	}
}

// admit decides whether a failure is logged, and returns a field that says how many of
// its like were not since the last; nothing if none.
func (l *errorLog) admit(key failureKey) (suppressed zap.Field, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	c := l.failures[key]
	if c == nil && len(l.failures) >= maxFailureKeys {
		for other, old := range l.failures {
			if now.Sub(old.began) >= failureWindow {
				delete(l.failures, other)
			}
		}
		if len(l.failures) >= maxFailureKeys {
			key = failureKey{}
			c = l.failures[key]
		}
	}
	switch {
	case c == nil:
		c = &failureCount{began: now}
		l.failures[key] = c
	case now.Sub(c.began) >= failureWindow:
		c.began, c.lines = now, 0
	}
	if c.lines >= failureLines {
		c.suppressed++
		return zap.Skip(), false
	}
	c.lines++
	if c.suppressed == 0 {
		return zap.Skip(), true
	}
	suppressed, c.suppressed = zap.Int("suppressed", c.suppressed), 0
	return suppressed, true
}

// refuse counts a refusal and logs a flood of them.
func (l *errorLog) refuse(f failed) {
	now := l.now()
	l.mu.Lock()
	c := &l.refusals[f.status-http.StatusBadRequest]
	switch since := now.Sub(c.began); {
	case since >= 2*refusalWindow:
		*c = refusalCount{began: now}
	case since >= refusalWindow:
		*c = refusalCount{began: now, before: c.n}
	}
	c.n++
	flood, took, before := c.n == refusalFlood, now.Sub(c.began), c.before
	l.mu.Unlock()
	if !flood {
		return
	}
	l.logger.Warn("many requests are refused; this is one of them", append(f.fields(),
		zap.Int("refused", refusalFlood), zap.Duration("within", took), zap.Int("minute_before", before),
		zap.String("client_ip", clientIP(f.request)))...)
}

func (f failed) fields() []zap.Field {
	r := f.request
	fields := []zap.Field{
		zap.Int("status", f.status),
		zap.String("method", r.Method), zap.String("host", r.Host), zap.String("path", r.URL.EscapedPath()),
	}
	if f.err != nil {
		fields = append(fields, zap.Error(cause(f.err)))
	}
	if f.route != 0 {
		fields = append(fields, zap.Int64("route", f.route))
	}
	if x := f.exchange; x != nil {
		fields = append(fields, zap.String("request_id", x.RequestID))
		if upstream := x.Upstream(); upstream != "" {
			fields = append(fields, zap.String("upstream", upstream))
		}
		if x.TraceID != "" {
			fields = append(fields, zap.String("trace_id", x.TraceID))
		}
	}
	return fields
}

// cause is an error without what Caddy adds to it, a random id and a source line.
func cause(err error) error {
	if handlerErr, ok := errors.AsType[caddyhttp.HandlerError](err); ok && handlerErr.Err != nil {
		return handlerErr.Err
	}
	return err
}

// notedVar is the variable of a request whose error is in an errorLog.
const notedVar = "isekai.noted"
