package forwardauth

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/isekai-gateway/isekai/proxy"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler asks another service about every request. It sends a GET without a
// body that has the request's header fields, but for those about its connection,
// its body, conditions and ranges, and tells what was asked for in
// X-Forwarded-Method, -Uri, -Host, -Proto and -For; what a client says of these
// itself is only believed of trusted proxies. It follows no redirects.
//
// If the answer's status is 2xx the request goes on, with the fields that
// copy_headers names. Any other answer becomes the answer to the client: status,
// fields, and a body of at most 1 MiB. If there is none, the request ends in
// error 502, or 504 if the service took too long.
//
// The service sees what the client sent under the names of copy_headers, such as
// Authorization, and must not take it for more than that.
type Handler struct {
	Config

	client *Client
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.isekai_forward_auth",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision makes the client. As a plugin of a route it is held to the target
// policy.
func (h *Handler) Provision(ctx caddy.Context) (err error) {
	// While the service is down there would be a line for each request.
	h.logger = ctx.Logger().WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 3, 1000)
	}))
	h.client, err = New(&h.Config, proxy.PolicyOf(ctx))
	return err
}

// Cleanup closes the connections. Requests still in flight finish theirs.
func (h *Handler) Cleanup() error {
	if h.client != nil {
		h.client.Close()
	}
	return nil
}

// ServeHTTP asks, and passes the request on or answers it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	answer, err := h.client.Ask(r, trusted)
	switch {
	case err == nil && answer.Allowed():
	case err == nil:
		return write(w, answer)
	case r.Context().Err() != nil:
		return caddyhttp.Error(proxy.StatusClientClosedRequest, err)
	case h.OnError == onErrorAllow && !isRefusal(err):
		h.logger.Warn("letting a request pass without authorization", zap.Error(err))
	case errors.Is(err, context.DeadlineExceeded):
		return caddyhttp.Error(http.StatusGatewayTimeout, err)
	default:
		return caddyhttp.Error(http.StatusBadGateway, err)
	}
	h.client.copyTo(r, answer)
	return next.ServeHTTP(w, r)
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[refusal](err)
	return ok
}

// write answers the client as the service did.
func write(w http.ResponseWriter, a *Answer) error {
	header := w.Header()
	maps.Copy(header, a.Header)
	header.Del("Content-Length")
	if len(a.Body) > 0 {
		header.Set("Content-Length", strconv.Itoa(len(a.Body)))
	}
	w.WriteHeader(a.Status)
	// A client that is gone needs no error, and one that sent HEAD no body.
	_, _ = w.Write(a.Body) //nolint:gosec // the service's own answer, with its own type
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
