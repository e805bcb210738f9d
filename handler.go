package isekai

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/routing"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler matches requests against the routes of the isekai app and forwards
// them. A request that matches is answered here; the handlers after this one
// never see it.
//
// While a request is on its way, these placeholders are available to plugins,
// limits.key and the access log:
//
// Placeholder | Description
// ------------|------------
// `{http.isekai.route}` | The matched route's id
// `{http.isekai.route_name}` | Its name
// `{http.isekai.request_id}` | The request's id, as sent in X-Request-Id
// `{http.isekai.consumer}` | The name of who makes the request, as far as the route or the site asks; else empty
// `{http.isekai.upstream}` | The host and port of the target that the request was last sent to; empty before, and if it was sent to none
// `{http.isekai.cache}` | Whether the route was compiled already, `hit`, or had to be for this request, `miss`
// `{http.isekai.limited}` | The names of the rate limits that the request is over, separated by commas, also with limits.dry_run; empty if it is over none
// `{http.isekai.param.*}` | The value of a path parameter, decoded
type Handler struct {
	// Whether a request that no route matches goes to the next handler instead of
	// being answered 404 or 405. Default: false.
	PassThru bool `json:"pass_thru,omitempty"`

	// A path on which load balancers are told in one word whether routes are served,
	// before any route is matched: with the status 200, or 503 while they are not
	// loaded, or the server is about to stop (shutdown_delay). The same is at the path
	// with /ready; with /live, 200 says that the process answers. Default: none.
	HealthPath string `json:"health_path,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.isekai", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the app.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured("isekai")
	if err != nil {
		return fmt.Errorf("the isekai handler needs the isekai app (in a Caddyfile, the global option isekai): %w", err)
	}
	h.app = app.(*App)
	return installProblems(ctx)
}

// Validate implements caddy.Validator.
func (h *Handler) Validate() error {
	if h.HealthPath != "" && !strings.HasPrefix(h.HealthPath, "/") {
		return fmt.Errorf("health_path must start with a slash, not be %q", h.HealthPath)
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) (err error) {
	v := &visit{began: time.Now()}
	x := &v.exchange
	app, held := h.app.hold()
	if held {
		defer app.release() //nolint:errcheck // logged where it can fail
	}
	if ready, ok := h.healthOf(r.URL.Path); ok {
		return app.serveHealth(w, r, ready)
	}
	if caddy.Exiting() && r.Header.Get("Upgrade") == "" {
		// While shutdown_delay runs, connections that are kept move to other replicas
		// after an answer, rather than end under a request later.
		w.Header()["Connection"] = []string{"close"}
	}

	x.RequestID = requestID(r, v.began)
	beginTrace(r, x)
	route, err := h.resolve(app, w, r, x)
	if route == nil && h.PassThru && (errors.Is(err, errNoRoute) || errors.Is(err, errMethodNotAllowed)) {
		return next.ServeHTTP(w, r)
	}

	v.route = route
	v.describe(r)
	counters := &app.gateway.Requests
	counters.Begin()
	defer func() {
		p := recover()
		if p != nil {
			err = app.recovered(p, r, route, x)
		}
		status := outcome(r, x, err, p != nil)
		counters.End(status)
		app.record(r, route, x, v, status, err)
		if x.Span != nil {
			endTrace(r, route, x, status, err, p != nil && err == nil)
		}
		if err != nil {
			if isShed(err) {
				counters.Shed()
			}
			caddyhttp.SetVar(r.Context(), notedVar, true)
			app.errors.note(failedOf(r, route, x, status, err))
			limitRest(w, r)
		}
		if p != nil && err == nil {
			panic(http.ErrAbortHandler)
		}
	}()
	x.TagAnswer(w.Header())
	if err != nil {
		return err
	}
	v.note(app, r, route)
	p, hit, err := app.pipelines.Get(r.Context(), route)
	if err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	defer p.Release()
	if x.Cache = "hit"; !hit {
		x.Cache = "miss"
		if app.gateway.Table().Compiled(route.ID) != route {
			// It was changed since it was matched, and whoever looked for what runs on it
			// may have been before this pipeline.
			app.pipelines.Change(nil, []*routing.Route{route})
		}
	}
	if x.Preflight {
		limitRest(w, r) // nobody wants a body that it may have
		return p.Serve(w, r, x)
	}
	if most := app.MaxConcurrent; most > 0 && counters.InFlight() > int64(most) {
		w.Header().Set("Retry-After", "1")
		p.Share(w.Header(), r)
		return caddyhttp.Error(http.StatusServiceUnavailable, errTooManyRequests)
	}
	sanitize(r, x)
	app.verifier.Clean(r)
	return p.Serve(w, r, x)
}

// resolve finds the request's route and brings its URL to the path that was
// matched. It changes nothing of a request that it finds no route for.
func (h *Handler) resolve(app *App, w http.ResponseWriter, r *http.Request, x *pipeline.Exchange) (*routing.Route, error) {
	table := app.gateway.Table()
	if table == nil {
		w.Header().Set("Retry-After", "1")
		return nil, caddyhttp.Error(http.StatusServiceUnavailable, errNotReady)
	}
	path, err := routing.CanonicalURLPath(r.URL)
	if err != nil {
		return nil, caddyhttp.Error(http.StatusBadRequest, err)
	}
	q := routing.Request{
		Method:   matchMethod(r),
		Host:     routing.RequestHost(r.Host),
		Path:     path.Text,
		Header:   r.Header,
		RawQuery: r.URL.RawQuery,
	}
	route := matchPreflight(table, q, r)
	if x.Preflight = route != nil; !x.Preflight {
		route = table.Match(&q)
	}
	var allow []string
	if route == nil {
		allow = table.Allow(&q)
	}
	switch {
	case q.Problem() != nil:
		return nil, caddyhttp.Error(http.StatusBadRequest, q.Problem())
	case len(allow) > 0:
		if !h.PassThru {
			w.Header().Set("Allow", strings.Join(allow, ", "))
		}
		return nil, caddyhttp.Error(http.StatusMethodNotAllowed, errMethodNotAllowed)
	case route == nil:
		return nil, caddyhttp.Error(http.StatusNotFound, errNoRoute)
	case path.Merged && !route.Spec().MergeSlashes:
		return nil, caddyhttp.Error(http.StatusBadRequest, errRepeatedSlashes)
	}
	x.Path = path.Text
	pipeline.SetPath(r.URL, path.Text)
	return route, nil
}

// matchPreflight returns the route of the request that a CORS preflight asks
// about, if that route has a policy to answer by. Otherwise it returns nil, as for
// all other requests, and a preflight is the OPTIONS request that it is.
func matchPreflight(table *routing.Table, q routing.Request, r *http.Request) *routing.Route {
	if !cors.IsPreflight(r) {
		return nil
	}
	q.Method, q.Preflight = cors.RequestMethod(r), true
	if route := table.Match(&q); route != nil && q.Problem() == nil && route.Spec().CORS != nil {
		return route
	}
	return nil
}

// matchMethod is the request's method, with a WebSocket over HTTP/2 or HTTP/3
// (RFC 8441, RFC 9220) taken for the GET that it is over HTTP/1.1.
func matchMethod(r *http.Request) string {
	if isExtendedConnect(r) {
		return http.MethodGet
	}
	return r.Method
}

func isExtendedConnect(r *http.Request) bool {
	if r.Method != http.MethodConnect {
		return false
	}
	return r.ProtoMajor == 2 && r.Header.Get(":protocol") == "websocket" ||
		r.ProtoMajor == 3 && r.Proto == "websocket"
}

// recovered turns a panic of a plugin into an error, or returns nil if the
// answer has begun and can only be broken off.
func (a *App) recovered(p any, r *http.Request, route *routing.Route, x *pipeline.Exchange) error {
	if p == http.ErrAbortHandler {
		return nil
	}
	a.errors.panicked(failedOf(r, route, x, http.StatusInternalServerError, nil), p)
	if x.Status() != 0 {
		return nil
	}
	return caddyhttp.Error(http.StatusInternalServerError, errPanicked)
}

// restTimeout is how long the client of a request that was refused may take to
// send what net/http reads of its body before the answer.
const restTimeout = 5 * time.Second

// limitRest keeps the body of a request that was refused, or needs none, from
// holding its connection for as long as the client likes. net/http lifts the
// deadline for the next request.
func limitRest(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		if httpguts.HeaderValuesContainsToken(r.Header["Expect"], "100-continue") {
			// The client waits to be asked for its body, and net/http, which does not
			// see that through Caddy's wrapper, would wait for the body.
			w.Header().Set("Connection", "close")
		}
		// Without support for deadlines there is no connection to hold either.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(restTimeout))
	}
}

// isShed says whether a request was refused since too many were in flight.
func isShed(err error) bool {
	return errors.Is(err, errTooManyRequests) || errors.Is(err, pipeline.ErrBusy)
}

// outcome is the status that a request counts under.
func outcome(r *http.Request, x *pipeline.Exchange, err error, panicked bool) int {
	if err != nil {
		return errorStatus(err)
	}
	switch {
	case panicked && r.Context().Err() != nil:
		return proxy.StatusClientClosedRequest
	case panicked:
		return http.StatusBadGateway
	}
	return x.Status()
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
