// Package pipeline runs one route's policies and forwards the request. A
// pipeline is compiled on first use and kept in a cache; once it has left the
// cache it is disposed as soon as its last request and stream are gone.
package pipeline

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/internal/inflight"
	"github.com/isekai-gateway/isekai/internal/refcount"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/routing"
)

// Pipeline is a compiled route. It is safe for concurrent use by whoever holds
// a reference from Set.Get.
type Pipeline struct {
	// Route is what was compiled.
	Route *routing.Route

	pattern   *routing.Pattern // the route's
	target    *proxy.Target
	forwarder *proxy.Forwarder
	handler   caddyhttp.Handler // the plugins, with forward at their end
	chain     func() error      // gives the plugins back
	cors      *cors.Policy
	auth      *auth.Policy // nil: everybody may
	own       []string     // fields by which upstreams are told who makes a request
	limit     *limit       // nil for none
	limits    *limiter     // for it, and for those of consumers
	mirror    mirrored
	bodyMax   int64 // bytes, 0 for no bound

	maxConcurrent int // 0 for no bound
	inFlight      *inflight.Counts

	err error // why there is nothing to run

	refs    refcount.Count // the cache's one, and one per request
	set     *Set
	dispose sync.Once

	mu      sync.Mutex
	streams map[*Exchange]struct{}
	drain   *time.Timer // set when the route has changed
	drained bool        // its time has passed
}

// ErrBroken says that a route can't be served on this node, e.g. since it uses
// a plugin that the configuration no longer allows.
var ErrBroken = errors.New("route can't be served")

// ErrBodyTooLarge says that a request's body is over the route's bound.
var ErrBodyTooLarge = errors.New("the request body is too large")

// ErrBusy says that as many requests of the route are in flight as may be.
var ErrBusy = errors.New("too many requests of this route are in flight")

// ErrBadBody says that the client did not send the body that it announced.
var ErrBadBody = errors.New("the request body is malformed or incomplete")

// Serve runs the request of x, whose Path and RequestID are set. It returns nil
// when an answer was written, else an error for Caddy to handle.
func (p *Pipeline) Serve(w http.ResponseWriter, r *http.Request, x *Exchange) error {
	switch {
	case x.Preflight && p.cors != nil:
		return p.answerPreflight(w, r, x)
	case p.err != nil:
		p.Share(w.Header(), r)
		return caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("%w: route %d: %w", ErrBroken, p.Route.ID, p.err))
	}
	x.route, x.pipeline = p.Route, p
	w, r = x.begin(w, r, p.bodyMax)
	if x.body != nil {
		x.body.trailer, x.body.own = r.Trailer, p.own
	}
	if x.writer.cors = p.cors; p.cors != nil {
		defer x.shareError()
	}
	defer p.forget(x)
	defer x.end()
	if p.Route.Timeout() == 0 {
		// Nothing else would end it when the route is drained.
		p.remember(x)
	}

	repl := x.repl.(*caddy.Replacer)
	repl.Map(x.Placeholder)
	if p.auth != nil {
		if err := x.authenticate(w, r, p.auth, repl); err != nil {
			return err
		}
	} else {
		x.identify(auth.FromSite(r))
	}
	if err := p.admit(x, &x.writer, r); err != nil {
		return err
	}
	if x.body != nil && x.body.most > 0 && r.ContentLength > x.body.most {
		return tooLargeError(x.body.most)
	}
	if p.maxConcurrent > 0 {
		if !p.inFlight.Acquire(p.Route.ID, p.maxConcurrent) {
			w.Header().Set("Retry-After", "1")
			return caddyhttp.Error(http.StatusServiceUnavailable, ErrBusy)
		}
		defer p.inFlight.Release(p.Route.ID)
	}
	err := p.handler.ServeHTTP(w, r)
	if x.writer.status != 0 || x.writer.hijacked {
		x.writer.linger()
		return err
	}
	if (err != nil || x.awaited()) && x.body != nil && x.body.mustClose() {
		w.Header().Set("Connection", "close")
	}
	switch {
	case x.body != nil && x.body.tooLarge.Load():
		if x.body.mustClose() {
			closeBehind(w)
		}
		return tooLargeError(x.body.most)
	case x.timedOut():
		return caddyhttp.Error(http.StatusGatewayTimeout, errTimeout)
	case x.drained():
		return caddyhttp.Error(http.StatusServiceUnavailable, errDrained)
	case err == nil && x.call.Spoiled() != nil:
		return spoiledError(x.call.Spoiled())
	case err == nil && x.Upstream() != "":
		// reverse_proxy gives up an upgrade that went wrong without a word.
		return caddyhttp.Error(http.StatusBadGateway, errNoAnswer)
	case err == nil:
		// A plugin has ended the request without one, which net/http makes a 200.
		x.writer.WriteHeader(http.StatusOK)
	}
	return err
}

var (
	// errNotForwarded says that a method concerns the connection, not the upstream.
	errNotForwarded = errors.New("the method can't be forwarded")

	// ErrBadQuery says that a query would not be one in a request line, which spaces part.
	ErrBadQuery = errors.New("the query has a space or a control character")
)

// errNoAnswer says that nothing came of what an upstream has answered.
var errNoAnswer = errors.New("the upstream's answer can't be passed on")

// spoiledError is the answer to a body that could not be read: a plugin's, if one
// has bounded it, else the client's fault.
func spoiledError(err error) error {
	if refused, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		return refused
	}
	return caddyhttp.Error(http.StatusBadRequest, fmt.Errorf("%w: %w", ErrBadBody, err))
}

// forward is the last handler of every pipeline.
type forward struct{ p *Pipeline }

// ServeHTTP implements caddyhttp.Handler. It points the request to the
// upstream's path for as long as it is forwarded. A request that comes out of a
// subroute's error routes unanswered has been forwarded, or refused, and must not
// be again: its error goes on.
func (f forward) ServeHTTP(w http.ResponseWriter, r *http.Request) (err error) {
	x := FromContext(r.Context())
	if failed, ok := r.Context().Value(caddyhttp.ErrorCtxKey).(error); ok && x.Context.Value(caddyhttp.ErrorCtxKey) == nil {
		return failed
	}
	// A plugin may have made another request of it than could have come.
	if r.Method == http.MethodTrace || r.Method == http.MethodConnect && !x.extended {
		return caddyhttp.Error(http.StatusMethodNotAllowed, errNotForwarded)
	}
	if strings.IndexFunc(r.URL.RawQuery, func(c rune) bool { return c <= ' ' || c == 0x7f }) >= 0 {
		return caddyhttp.Error(http.StatusBadRequest, ErrBadQuery)
	}
	path, route := x.Path, f.p.Route
	// A plugin may have rewritten the path, and not in canonical form.
	if r.URL.Path != x.matched[0] || r.URL.RawPath != x.matched[1] {
		rewritten, err := routing.CanonicalURLPath(r.URL)
		if err != nil {
			return caddyhttp.Error(http.StatusBadRequest, err)
		}
		path = rewritten.Text
	}
	if x.body != nil {
		x.body.forwarded = true
		x.body.protect(r.Header)
	}
	u := &x.forwarded
	*u = *r.URL
	SetPath(u, f.p.target.Path(f.p.pattern, x.Path, path, route.Spec().StripPrefix))
	outer := r.URL
	r.URL = u
	defer func() { r.URL = outer }()
	if held := boundHeld(w); held != nil {
		defer held.recover(&err)
		w = held
	}
	defer f.p.mirror.begin(r)()
	return f.p.forwarder.ServeHTTP(w, r)
}

// SetPath gives u a path in canonical form, so that Path holds it decoded and
// EscapedPath returns exactly what was given. Nothing else stands in its place.
func SetPath(u *url.URL, canonical string) {
	u.Opaque, u.Path, u.RawPath = "", canonical, ""
	if strings.IndexFunc(canonical, escapedByDefault) < 0 {
		return
	}
	if decoded, err := url.PathUnescape(canonical); err == nil {
		u.Path, u.RawPath = decoded, canonical
	}
}

// escapedByDefault says whether net/url would write r in a path otherwise than
// a canonical path has it.
func escapedByDefault(r rune) bool {
	return strings.ContainsRune("%!'()*", r)
}

// remember registers an exchange that may outlast the drain time.
func (p *Pipeline) remember(x *Exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.streams == nil {
		p.streams = make(map[*Exchange]struct{})
	}
	p.streams[x] = struct{}{}
	x.remembered.Store(true)
	if p.drained { // before this one began to answer
		x.cancel(errDrained)
	}
}

func (p *Pipeline) forget(x *Exchange) {
	if !x.remembered.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.streams, x)
}

// acquire takes a reference, unless the pipeline is already being disposed.
func (p *Pipeline) acquire() bool { return p.refs.Acquire() }

// Release gives a reference back. The last one disposes the pipeline in the
// background, since a plugin's clean-up may take its time.
func (p *Pipeline) Release() {
	if p.refs.Release() {
		p.set.disposeSoon(p)
	}
}
