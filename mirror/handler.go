package mirror

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Defaults and bounds of a Handler's queue.
const (
	DefaultQueue       = 1000
	MaxQueue           = 100_000
	DefaultConcurrency = 8
	MaxConcurrency     = 256
)

// Handler sends copies of requests to another server, as they are where the
// handler stands, and passes the requests on. It needs neither routes nor the
// isekai app.
//
// It never delays or fails a request: a copy that can't be made or sent at once,
// or does not fit the queue, is dropped and counted. Answers to copies are thrown
// away. Upgrades such as WebSockets, gRPC, CONNECT, TRACE and requests with Expect
// are not copied, nor are those whose body the following handlers don't read.
//
// Copies carry the field X-Isekai-Mirror with a value that this process knows
// again, so that a copy is never copied. The field with any other value is removed
// from requests.
type Handler struct {
	// Where copies go: http, https or h2c, a host, and perhaps a path, to which
	// the request's is appended. No query, no placeholders. Addresses that
	// routes can't have as targets by default are refused. Required.
	TargetURL string `json:"target_url,omitempty"`

	// The part of the requests that is copied, above 0 and at most 1, at random.
	// Default: 1, all of them.
	Sample *float64 `json:"sample,omitempty"`

	// The most bytes of a request's body, at most 1 MiB; requests with longer ones
	// are not copied. Default: 65536.
	BodyMax int `json:"body_max,omitempty"`

	// How long the mirror may take to answer a copy, connecting included, 1s to
	// 1m. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Whether the mirror sees the client's Host instead of its own.
	// Default: false.
	PreserveHost bool `json:"preserve_host,omitempty"`

	// The most copies that wait to be sent, at most 100,000. All copies together
	// take at most 16 MiB, whatever their number. Default: 1000.
	Queue int `json:"queue,omitempty"`

	// The most copies that are being sent at a time, at most 256. Default: 8.
	Concurrency int `json:"concurrency,omitempty"`

	queue       *Queue
	destination *Destination
	mirror      *Mirror
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.isekai_mirror",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision starts the handler's workers.
func (h *Handler) Provision(ctx caddy.Context) error {
	if err := h.Validate(); err != nil {
		return err
	}
	policy := new(proxy.Policy)
	target, err := ParseTarget(h.TargetURL, policy)
	if err != nil {
		return fmt.Errorf("target_url: %w", err)
	}
	counters, err := acquireSiteCounters()
	if err != nil {
		return fmt.Errorf("taking counters: %w", err)
	}
	limits := Limits{Copies: h.Queue, Memory: DefaultLimits().Memory, Concurrency: h.Concurrency}
	if limits.Copies == 0 {
		limits.Copies = DefaultQueue
	}
	if limits.Concurrency == 0 {
		limits.Concurrency = DefaultConcurrency
	}
	logger := ctx.Logger()
	h.queue = newQueue(limits, func() *zap.Logger { return logger }, counters)
	h.destination = NewDestination(h.queue, limits, target, policy)
	h.mirror = New(h.destination, target, h.settings())
	return nil
}

func (h *Handler) settings() Settings {
	return Settings{Sample: h.Sample, BodyMax: h.BodyMax, Timeout: time.Duration(h.Timeout), PreserveHost: h.PreserveHost}
}

// Validate checks the ranges that the fields name. Errors are store.FieldErrors.
func (h *Handler) Validate() error {
	var errs store.FieldErrors
	if _, err := ParseTarget(h.TargetURL, new(proxy.Policy)); err != nil {
		errs.Add("target_url", err.Error())
	}
	errs = append(errs, h.settings().validate()...)
	if h.Queue < 0 || h.Queue > MaxQueue {
		errs.Add("queue", fmt.Sprintf("must be between 1 and %d", MaxQueue))
	}
	if h.Concurrency < 0 || h.Concurrency > MaxConcurrency {
		errs.Add("concurrency", fmt.Sprintf("must be between 1 and %d", MaxConcurrency))
	}
	return errs.Err()
}

// Cleanup stops the workers. Copies that wait are dropped, and so are those of
// requests that are still in flight.
func (h *Handler) Cleanup() error {
	if h.queue == nil {
		return nil
	}
	h.queue.Close()
	_ = h.destination.Destruct() // it has no way to fail
	return releaseSiteCounters()
}

// ServeHTTP passes the request on and copies it meanwhile.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	Sanitize(r.Header)
	defer h.mirror.Begin(r)()
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
