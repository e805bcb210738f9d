package pipeline

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// brokenBackend is a server of counters that can't be reached.
type brokenBackend struct{ ratelimit.Backend }

var errBroken = errors.New("dial tcp 10.0.0.9:6379: connection refused")

func (brokenBackend) Take(context.Context, []ratelimit.Decision, []ratelimit.Charge) ([]ratelimit.Decision, bool, error) {
	return nil, false, errBroken
}

// admission is a pipeline of which only the limits are there.
type admission struct {
	*Pipeline
	tally *ratelimit.Tally
	logs  *observer.ObservedLogs
}

func newAdmission(t *testing.T, backend ratelimit.Backend, rateLimit int, limits *store.Limits) *admission {
	t.Helper()
	row := store.NewRoute("/x", "http://10.0.0.1")
	row.ID, row.RateLimit, row.Limits = 7, rateLimit, limits
	route, err := routing.Compile(row)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	l := newLimiter(Options{Limits: backend, LimitHeaders: ratelimit.HeadersIETF, Decisions: new(ratelimit.Tally)}, zap.New(core))
	return &admission{&Pipeline{Route: route, limit: l.newLimit(row), limits: l}, l.tally, logs}
}

// admitted is what became of a request.
type admitted struct {
	Status  int // 0: it goes on
	Policy  []string
	Left    []string
	Limited string
}

func (a *admission) ask(t *testing.T, consumer *ratelimit.Charge) (admitted, error) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/x", nil)
	ctx := context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.1"})
	r = r.WithContext(context.WithValue(ctx, caddy.ReplacerCtxKey, caddy.NewReplacer()))
	x := &Exchange{consumer: consumer, route: a.Route}
	rec := httptest.NewRecorder()
	w := &writer{ResponseWriter: rec, exchange: x}
	err := a.admit(x, w, r)
	if err == nil {
		w.WriteHeader(http.StatusOK)
	}
	var got admitted
	if refused, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		got.Status = refused.StatusCode
	}
	got.Policy, got.Left = rec.Header()["Ratelimit-Policy"], rec.Header()["Ratelimit"]
	limited, _ := x.Placeholder("http.isekai.limited")
	got.Limited = limited.(string)
	return got, err
}

func (a *admission) want(t *testing.T, consumer *ratelimit.Charge, want admitted) {
	t.Helper()
	got, _ := a.ask(t, consumer)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func newBackend() *ratelimit.Limiter {
	now := time.Unix(1_800_000_000, 0).Truncate(time.Hour)
	return ratelimit.New(ratelimit.Config{Now: func() time.Time { return now }})
}

func consumerLimit(limit int) *ratelimit.Charge {
	return &ratelimit.Charge{Rule: ratelimit.Rule{Name: "consumer", Limit: limit, Window: time.Minute}, Scope: "consumer:3", Cost: 1}
}

func TestConsumersOwnLimit(t *testing.T) {
	t.Parallel()
	backend := newBackend()
	limited := newAdmission(t, backend, 2, &store.Limits{Rules: []store.LimitRule{{Name: "hour", Limit: 3, Window: 3600}}})
	unlimited := newAdmission(t, backend, 0, nil)

	limited.want(t, consumerLimit(4), admitted{
		Policy: []string{`"consumer";q=4;w=60, "route";q=2;w=60, "hour";q=3;w=3600`},
		Left:   []string{`"consumer";r=3;t=60, "route";r=1;t=60, "hour";r=2;t=3600`},
	})
	// The consumer's limit holds on a route that has none.
	unlimited.want(t, consumerLimit(4), admitted{Policy: []string{`"consumer";q=4;w=60`}, Left: []string{`"consumer";r=2;t=60`}})
	unlimited.want(t, nil, admitted{})
	limited.want(t, nil, admitted{
		Policy: []string{`"route";q=2;w=60, "hour";q=3;w=3600`}, Left: []string{`"route";r=0;t=60, "hour";r=1;t=3600`},
	})
	// What the route refuses is not charged to the consumer, and the other way round.
	limited.want(t, consumerLimit(4), admitted{
		Status: 429, Limited: "route", Policy: []string{`"consumer";q=4;w=60, "route";q=2;w=60, "hour";q=3;w=3600`},
		Left: []string{`"consumer";r=2;t=60, "route";r=0;t=60, "hour";r=1;t=3600`},
	})
	unlimited.want(t, consumerLimit(2), admitted{
		Status: 429, Limited: "consumer", Policy: []string{`"consumer";q=2;w=60`}, Left: []string{`"consumer";r=0;t=60`},
	})
	if got, want := limited.tally.Snapshot(), (ratelimit.TallyStats{Allowed: 2, Limited: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	// Requests without any limit are not counted.
	if got, want := unlimited.tally.Snapshot(), (ratelimit.TallyStats{Allowed: 1, Limited: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestDryRunSparesOnlyTheRoute(t *testing.T) {
	t.Parallel()
	a := newAdmission(t, newBackend(), 1, &store.Limits{DryRun: true, Rules: []store.LimitRule{{Name: "hour", Limit: 2, Window: 3600, Cost: 2}}})
	a.want(t, nil, admitted{})
	a.want(t, nil, admitted{Limited: "route,hour"})
	a.want(t, consumerLimit(1), admitted{Limited: "route,hour", Policy: []string{`"consumer";q=1;w=60`}, Left: []string{`"consumer";r=0;t=60`}})
	a.want(t, consumerLimit(1), admitted{Status: 429, Limited: "consumer", Policy: []string{`"consumer";q=1;w=60`}, Left: []string{`"consumer";r=0;t=60`}})
	if got, want := a.tally.Snapshot(), (ratelimit.TallyStats{Allowed: 1, Limited: 1, DryRun: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	type line struct {
		Level  string
		DryRun bool
	}
	var lines []line
	for _, e := range a.logs.All() {
		lines = append(lines, line{e.Level.String(), e.ContextMap()["dry_run"].(bool)})
	}
	if diff := cmp.Diff([]line{{"info", true}, {"info", true}, {"debug", false}}, lines); diff != "" {
		t.Errorf("logged (-want +got):\n%s", diff)
	}
}

func TestBackendFails(t *testing.T) {
	t.Parallel()
	_, err := newAdmission(t, brokenBackend{}, 1, nil).ask(t, nil)
	var refused caddyhttp.HandlerError
	if !errors.Is(err, ratelimit.ErrUnavailable) || !errors.Is(err, errBroken) || errors.Is(err, ratelimit.ErrLimited) ||
		!errors.As(err, &refused) || refused.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the error is %v", err)
	}
	if _, err := newAdmission(t, brokenBackend{}, 1, &store.Limits{DryRun: true}).ask(t, nil); err != nil {
		t.Errorf("a dry run refuses: %v", err)
	}
	if _, err := newAdmission(t, brokenBackend{}, 0, nil).ask(t, nil); err != nil {
		t.Errorf("a route without limits asks for them: %v", err)
	}
}
