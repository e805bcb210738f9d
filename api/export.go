package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/store"
)

// exportPage is how many rows an export reads at a time.
const exportPage = 1000

const mediaNDJSON = "application/x-ndjson"

type exportInput struct {
	LogFilter
	Limit int64 `query:"limit" minimum:"0" default:"0" doc:"The most requests. Default: all."`
}

func (s *server) registerExport(api huma.API) {
	line := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[requestLog](), true, "")
	register(s, api, huma.Operation{
		OperationID: "export-logs", Method: http.MethodGet, Path: "/api/logs/export", Tags: []string{"logs"},
		Summary: "Export the request log",
		Description: "Answers with all requests that match, newest first, each as a JSON object on a line of its own, in the form of /api/logs. " +
			"Requests that come meanwhile are not among them. Should the store fail on the way, the answer is broken off.",
		Errors: []int{400, 422, 503},
		Responses: map[string]*huma.Response{"200": {
			Description: "The requests, one on a line; the schema is that of a line",
			Content:     map[string]*huma.MediaType{mediaNDJSON: {Schema: line}},
		}},
	}, s.export)
}

func (s *server) export(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
	filter := in.filter()
	if filter.To.IsZero() {
		filter.To = time.Now()
	}
	left := in.Limit
	if left == 0 {
		left = 1<<63 - 1
	}
	// The first page before the answer begins, so that an error can be one.
	rows, err := s.cfg.Gateway.Logs(ctx, filter, nil, int(min(left, exportPage)))
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		w.Header().Set("Content-Type", mediaNDJSON)
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return // or all rows would be read for nobody
		}
		for len(rows) > 0 {
			if writeRows(w, rows) != nil {
				return // the client has left
			}
			left -= int64(len(rows))
			if left <= 0 || len(rows) < exportPage {
				return
			}
			last := rows[len(rows)-1]
			rows, err = s.cfg.Gateway.Logs(r.Context(), filter, &store.LogCursor{CreatedAt: last.CreatedAt, ID: last.ID}, int(min(left, exportPage)))
			if err != nil {
				s.cfg.Log().Warn("an export of the request log is broken off", zap.Error(err))
				panic(http.ErrAbortHandler) // or it would look complete
			}
		}
	}}, nil
}

// writeRows sends a page to a client that reads.
func writeRows(w http.ResponseWriter, rows []*store.RequestLog) error {
	conn := http.NewResponseController(w)
	// Not every server can set deadlines.
	_ = conn.SetWriteDeadline(time.Now().Add(tailWriteTimeout))
	lines := json.NewEncoder(w)
	for _, row := range rows {
		if err := lines.Encode(newRequestLog(row)); err != nil {
			return err
		}
	}
	return conn.Flush()
}
