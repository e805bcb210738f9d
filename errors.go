package isekai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/forwardauth"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/fields"
	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
)

func init() {
	caddy.RegisterModule(new(Problem))
}

// What the handler itself refuses requests for.
var (
	errNoRoute          = errors.New("no route matches the request")
	errMethodNotAllowed = errors.New("the route does not allow this method")
	errRepeatedSlashes  = errors.New("the path has repeated slashes")
	errNotReady         = gateway.ErrNotReady
	errTooManyRequests  = errors.New("too many requests are in flight")
	errPanicked         = errors.New("a handler panicked")
)

// public are the errors whose own text a client may see. All others may hold an
// address, a stack or SQL.
var public = []error{
	errNoRoute, errMethodNotAllowed, errRepeatedSlashes, errNotReady, errTooManyRequests,
	routing.ErrBadPath, ratelimit.ErrLimited, pipeline.ErrBodyTooLarge, pipeline.ErrBusy, pipeline.ErrBadQuery, cors.ErrOrigin,
	auth.ErrUnauthenticated, auth.ErrForbidden, auth.ErrUnavailable, auth.ErrGuessing,
}

// problem is an error in the form of RFC 9457.
type problem struct {
	Type      string   `json:"type,omitempty"`
	Title     string   `json:"title"`
	Status    int      `json:"status"`
	Detail    string   `json:"detail,omitempty"`
	RequestID string   `json:"request_id,omitempty"`
	Violated  []string `json:"violated-policies,omitempty"`
}

// Problem types that draft-ietf-httpapi-ratelimit-headers-11 registers.
const (
	quotaExceeded   = "https://iana.org/assignments/http-problem-types#quota-exceeded"
	reducedCapacity = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)

// problemOf describes err to a client.
func problemOf(err error, status int) problem {
	p := problem{Title: http.StatusText(status), Status: status}
	if limited, ok := errors.AsType[*ratelimit.LimitedError](err); ok {
		p.Type, p.Violated = quotaExceeded, limited.Policies
	}
	if isShed(err) || errors.Is(err, ratelimit.ErrUnavailable) {
		p.Type = reducedCapacity
	}
	for _, known := range public {
		if errors.Is(err, known) {
			var handlerErr caddyhttp.HandlerError
			if errors.As(err, &handlerErr) && handlerErr.Err != nil {
				err = handlerErr.Err
			}
			p.Detail = err.Error()
			return p
		}
	}
	switch {
	case errors.Is(err, proxy.ErrNoTarget):
		p.Detail = proxy.ErrNoTarget.Error()
	case errors.Is(err, pipeline.ErrBadBody):
		p.Detail = pipeline.ErrBadBody.Error()
	case errors.Is(err, pipeline.ErrBroken):
		p.Detail = "the route can't be served; the gateway's log says why"
	case errors.Is(err, ratelimit.ErrUnavailable):
		p.Detail = ratelimit.ErrUnavailable.Error()
	case errors.Is(err, forwardauth.ErrUnavailable):
		p.Detail = forwardauth.ErrUnavailable.Error()
	case status == http.StatusGatewayTimeout:
		p.Detail = "the upstream did not answer in time"
	case status == http.StatusBadGateway:
		p.Detail = "the upstream could not be reached or gave no valid answer"
	}
	return p
}

// Problem writes errors as application/problem+json (RFC 9457), with the
// request's id and never with an upstream's address, a stack or SQL. The isekai
// handler puts it at the end of its server's error routes, so that a site's own
// handle_errors come first.
type Problem struct {
	// Whether only errors of Isekai's own handlers are written, and those of
	// others logged and left to Caddy. Default: false.
	OnlyGateway bool `json:"only_gateway,omitempty"`

	errors *errorLog
}

// CaddyModule returns the Caddy module information.
func (*Problem) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.isekai_problem", New: func() caddy.Module { return new(Problem) }}
}

// Provision implements caddy.Provisioner.
func (p *Problem) Provision(ctx caddy.Context) error {
	p.errors = newErrorLog(ctx.Logger())
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (p *Problem) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	err, _ := r.Context().Value(caddyhttp.ErrorCtxKey).(error)
	if err == nil {
		return next.ServeHTTP(w, r)
	}
	status := errorStatus(err)
	requestID := w.Header().Get("X-Request-Id")
	if noted, _ := caddyhttp.GetVar(r.Context(), notedVar).(bool); !noted {
		// Caddy logs an error at debug level once an error route has handled it.
		p.errors.note(failed{request: r, status: status, err: err})
	}
	if p.OnlyGateway && requestID == "" && !isOurs(err) {
		return next.ServeHTTP(w, r)
	}
	answer := problemOf(err, status)
	answer.RequestID = requestID
	return writeJSON(w, "application/problem+json", status, answer)
}

// errorStatus is the status that an error is answered with. A plugin may have made it of
// what a client sent: no error is anything but a 4xx or 5xx.
func errorStatus(err error) int {
	handlerErr, ok := errors.AsType[caddyhttp.HandlerError](err)
	if !ok || handlerErr.StatusCode < 400 || handlerErr.StatusCode > 599 {
		return http.StatusInternalServerError
	}
	return handlerErr.StatusCode
}

// isOurs reports whether err is that of a handler for whole sites.
func isOurs(err error) bool {
	return errors.Is(err, ratelimit.ErrLimited) || errors.Is(err, auth.ErrUnauthenticated) || errors.Is(err, auth.ErrForbidden) ||
		errors.Is(err, auth.ErrUnavailable) || errors.Is(err, auth.ErrGuessing)
}

// isState reports whether err is a state of the gateway or of an upstream, which is
// nobody's mistake and comes in floods.
func isState(err error) bool {
	return errors.Is(err, errNotReady) || isShed(err) || errors.Is(err, proxy.ErrNoTarget) ||
		errors.Is(err, auth.ErrUnavailable) || errors.Is(err, ratelimit.ErrUnavailable)
}

// ofAnotherBody are fields that speak of the answer in whose place this one is written.
var ofAnotherBody = []string{
	"Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length", "Content-Location", "Content-Range",
	"Etag", "Last-Modified", "Trailer",
}

func writeJSON(w http.ResponseWriter, contentType string, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	fields.Drop(h, ofAnotherBody)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
	return nil
}

// problemRoute is the error route that installProblems adds.
var problemRoute = json.RawMessage(`{"handler":"isekai_problem","only_gateway":true}`)

// installProblems gives the server that is being provisioned an error route of
// last resort. Its error routes are provisioned after its handlers.
func installProblems(ctx caddy.Context) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		// Not part of a server, e.g. in a named route: Caddy's own answer stands.
		return nil
	}
	if server.Errors == nil {
		server.Errors = new(caddyhttp.HTTPErrorConfig)
	}
	for _, route := range server.Errors.Routes {
		for _, raw := range route.HandlersRaw {
			if strings.Contains(string(raw), `"isekai_problem"`) {
				return nil
			}
		}
	}
	server.Errors.Routes = append(server.Errors.Routes, caddyhttp.Route{HandlersRaw: []json.RawMessage{problemRoute}})
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Problem)(nil)
	_ caddyhttp.MiddlewareHandler = (*Problem)(nil)
)
