package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/store"
)

// tailHeartbeat is how often a tail without events sends a comment, so that proxies
// keep its connection and a client that is gone is noticed.
const tailHeartbeat = 15 * time.Second

// tailWriteTimeout bounds one write to a client that does not read.
const tailWriteTimeout = 30 * time.Second

func (s *server) registerTail(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "tail-logs", Method: http.MethodGet, Path: "/api/logs/tail", Tags: []string{"logs"},
		Summary: "Follow requests as they happen",
		Description: "Streams requests of this node as server-sent events, when they have been answered and before they are in the store: " +
			"events of type request with a request in the form of /api/logs, without an id, and, if the client is too slow, of type skipped with how many were left out. " +
			"What the sampling leaves out of the log does not come here either.",
		Errors: []int{400, 422, 503},
		Responses: map[string]*huma.Response{"200": {
			Description: "Events without end",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, s.tail)
}

func (s *server) tail(_ context.Context, in *RequestFilter) (*huma.StreamResponse, error) {
	tail, ok := s.cfg.Gateway.RequestLog.Tail(in.filter().Matches)
	if !ok {
		return nil, unavailable(fmt.Sprintf("there are %d tails already, which is as many as may be", requestlog.MaxTails))
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer tail.Close()
		r, w := humago.Unwrap(ctx)
		follow(r, w, tail)
	}}, nil
}

// follow sends what comes until the client leaves or the gateway is closed.
func follow(r *http.Request, w http.ResponseWriter, tail *requestlog.Tail) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return // the events of it would never end, and nobody sees them
	}
	conn := http.NewResponseController(w)
	send := func(event string) bool {
		// Not every server can set deadlines.
		_ = conn.SetWriteDeadline(time.Now().Add(tailWriteTimeout))
		if _, err := w.Write([]byte(event)); err != nil {
			return false
		}
		return conn.Flush() == nil
	}
	beat := time.NewTicker(tailHeartbeat)
	defer beat.Stop()
	for ok := send(": following\n\n"); ok; {
		select {
		case <-r.Context().Done():
			return
		case <-tail.Done():
			return
		case <-beat.C:
			ok = send(": \n\n")
		case record := <-tail.Records():
			if skipped := tail.Skipped(); skipped > 0 {
				ok = send(fmt.Sprintf("event: skipped\ndata: %d\n\n", skipped))
			}
			ok = ok && send(tailEvent(record))
		}
	}
}

func tailEvent(record *store.RequestLog) string {
	text, err := json.Marshal(newRequestLog(record))
	if err != nil {
		return ": a request could not be shown\n\n" // numbers and texts always can
	}
	return "event: request\ndata: " + string(text) + "\n\n"
}
