package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
)

// Of the parameters wait and timeout of every write.
const (
	waitApplied     = "applied"
	defaultWaitTime = 5 * time.Second
	maxWaitTime     = time.Minute
)

type waitKey struct{}

// notAppliedProblem is the problem of a write that is done, but not known to be served
// everywhere within the time that the client wanted to wait.
type notAppliedProblem struct {
	huma.ErrorModel
	Revision int64     `json:"revision,omitempty" doc:"The revision that was waited for, that of the change or a later one. Absent if it is not known."`
	Laggards []laggard `json:"laggards" doc:"The live replicas that serve an earlier revision. Empty if that is not known, since the store does not answer."`
	Result   any       `json:"result,omitempty" doc:"The body that the answer would have had. A new key or token is shown here, and never again."`
}

type laggard struct {
	ID       string `json:"id" doc:"The replica's UUID, as in /api/replicas."`
	Address  string `json:"address" doc:"The machine's name."`
	Revision int64  `json:"revision" doc:"The revision that it serves."`
}

// registerWrite adds an operation that makes a revision. Its clients may wait until
// all replicas serve it.
func registerWrite[I, O any](s *server, api huma.API, op huma.Operation, fn func(context.Context, *I) (*O, error)) {
	explode := false
	op.Parameters = append(op.Parameters,
		&huma.Param{
			Name: "wait", In: "query", Explode: &explode,
			Description: "applied: answer when every live replica serves the change, or 504 if that takes longer than the timeout.",
			Schema:      &huma.Schema{Type: huma.TypeString, Enum: []any{waitApplied}},
		},
		&huma.Param{
			Name: "timeout", In: "query", Explode: &explode,
			Description: "How long to wait, from 0s to 1m, e.g. 500ms. Only with wait. Default: 5s.",
			Schema:      &huma.Schema{Type: huma.TypeString, Examples: []any{"5s"}},
		})
	op.Errors = append(op.Errors, http.StatusGatewayTimeout)
	op.Middlewares = append(op.Middlewares, readWait(api))
	register(s, api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, err
		}
		if timeout, wanted := ctx.Value(waitKey{}).(time.Duration); wanted {
			if err := s.cfg.Gateway.WaitApplied(ctx, timeout); err != nil {
				return nil, notApplied(err, out)
			}
		}
		return out, nil
	})
}

// readWait checks the parameters before anything is written.
func readWait(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		u := ctx.URL()
		query := u.Query()
		if !query.Has("wait") && !query.Has("timeout") {
			next(ctx)
			return
		}
		timeout := defaultWaitTime
		refuse := func(name, message string) {
			_ = huma.WriteErr(api, ctx, http.StatusUnprocessableEntity, detailInvalid, &huma.ErrorDetail{
				Location: "query." + name, Message: message, Value: echo(query.Get(name)),
			})
		}
		if query.Get("wait") != waitApplied {
			refuse("wait", "must be "+waitApplied)
			return
		}
		if query.Has("timeout") {
			var err error
			timeout, err = time.ParseDuration(query.Get("timeout"))
			if err != nil || timeout < 0 || timeout > maxWaitTime {
				refuse("timeout", "must be a duration from 0s to 1m, such as 5s or 500ms")
				return
			}
		}
		next(huma.WithValue(ctx, waitKey{}, timeout))
	}
}

// notApplied is the answer to a write that is not served everywhere in time.
func notApplied(err error, out any) error {
	var late *gateway.NotAppliedError
	if !errors.As(err, &late) {
		return err
	}
	p := &notAppliedProblem{
		ErrorModel: huma.ErrorModel{Title: http.StatusText(http.StatusGatewayTimeout), Status: http.StatusGatewayTimeout},
		Revision:   late.Revision,
		Laggards:   []laggard{},
		Result:     bodyOf(out),
	}
	for _, r := range late.Laggards {
		p.Laggards = append(p.Laggards, laggard{r.ID, r.Address, r.Revision})
	}
	switch {
	case len(p.Laggards) > 0:
		p.Detail = fmt.Sprintf("the change is committed, but %d live replica(s) do not serve it yet; do not repeat it", len(p.Laggards))
	default:
		p.Detail = "the change is committed, but whether all replicas serve it is not known, since the route store does not answer; do not repeat it"
	}
	return p
}

// bodyOf returns the field Body of an operation's output, nil if there is none.
func bodyOf(out any) any {
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	if body := v.Elem().FieldByName("Body"); body.IsValid() {
		return body.Interface()
	}
	return nil
}
