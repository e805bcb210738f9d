// Package api is the admin API as a plain http.Handler: typed operations on the
// routes of one gateway, its health and its status, and the OpenAPI document that
// describes them, made from the same types. It knows nothing of Caddy and does not
// authenticate: whoever mounts it decides who may reach it.
package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/ondemand"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

// writeTimeout bounds a change of a route, whatever the client's patience.
const writeTimeout = 10 * time.Second

// Config sets up a handler.
type Config struct {
	// The gateway to manage. Required.
	Gateway *gateway.Gateway

	// Check says what is wrong with a route that only the host of the API can
	// know, e.g. a plugin that can't be provisioned, as store.FieldErrors; any
	// other error is answered 500. It is asked before every write, also about a
	// route that does not compile, so that a client learns of everything at once;
	// an error for a field that has one already is dropped. Default: no check.
	Check func(context.Context, *store.Route) error

	// The counters of the routes' rate limits. Required.
	Limits ratelimit.Backend

	// Returns the pools of targets in use, each with at least one route, by the
	// lowest id of those. Default: none.
	Upstreams func() []proxy.PoolStatus

	// Returns the certificates in memory that can be served for a host, the one that
	// is valid longest first. Default: none.
	Certificates func(host string) []ondemand.Certificate

	// Returns why no certificate could be obtained for a host lately. Default: nothing.
	CertificateFailure func(host string) (ondemand.Failure, bool)

	// The version to show in /api/status and in the OpenAPI document.
	Version string

	// Returns the logger for what must not reach a client. It is called for every
	// line. Default: no log.
	Log func() *zap.Logger
}

// server is what the operations share.
type server struct {
	cfg   Config
	route checker // of a whole route
	patch checker // of a merge patch for one

	consumer, consumerPatch, key, keyPatch, token checker

	batches checker       // of a batch
	bulks   chan struct{} // a lock that honours contexts: holds one token while a change of many routes runs

	bulkBodies chan struct{} // holds a token for each body of such a change that is in memory or arrives

	openapi []byte // the document, marshalled
}

// New returns the admin API: /health and everything below /api/. The handler is
// safe for concurrent use and needs no Close.
func New(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop
	}
	s := &server{cfg: cfg, bulks: make(chan struct{}, 1), bulkBodies: make(chan struct{}, maxBulkBodies)}
	mux := http.NewServeMux()
	api := newHuma(mux, cfg.Version)
	s.registerStatus(api)
	s.registerReplicas(api)
	s.registerRoutes(api)
	s.registerBatch(api)
	s.registerConfig(api)
	s.registerRevisions(api)
	s.registerUpstreams(api)
	s.registerHosts(api)
	s.registerConsumers(api)
	s.registerKeys(api)
	s.registerTokens(api)
	s.registerLogs(api)
	s.registerExport(api)
	s.registerTail(api)
	s.registerStats(api)
	s.registerRateLimits(api)
	s.registerOpenAPI(api)

	doc := api.OpenAPI()
	s.completeOpenAPI(doc)
	handleTheRest(mux, doc)
	return s.guard(mux)
}

// register adds an operation whose errors go through problem and that refuses
// query parameters which it doesn't know.
func register[I, O any](s *server, api huma.API, op huma.Operation, fn func(context.Context, *I) (*O, error)) {
	op.Middlewares = append(op.Middlewares, strictQuery(api))
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, s.problem(op.OperationID, err)
		}
		return out, nil
	})
}
