package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/store"
)

type (
	requestLog struct {
		ID         int64     `json:"id,omitempty" doc:"The row's number. Absent in a tail."`
		Time       time.Time `json:"time" doc:"When the request came, in UTC."`
		Route      int64     `json:"route,omitempty" doc:"The number of its route. Absent if none matched."`
		Method     string    `json:"method" doc:"Its method." example:"GET"`
		Host       string    `json:"host,omitempty" doc:"Its Host."`
		Path       string    `json:"path" doc:"Its path, without the query. Up to 2,048 bytes; what is longer is cut and ends in …" example:"/orders/42"`
		Status     int       `json:"status" doc:"The answer's status; 499 if the client left before."`
		DurationMS float64   `json:"duration_ms" doc:"Milliseconds from the request's header to the answer's end."`
		ClientIP   string    `json:"client_ip,omitempty" doc:"The client's address, by trusted_proxies."`
		UserAgent  string    `json:"user_agent,omitempty" doc:"Its User-Agent."`
		Upstream   string    `json:"upstream,omitempty" doc:"The address of the last target that it was sent to."`
		BytesIn    int64     `json:"bytes_in" doc:"Bytes of its body that were read."`
		BytesOut   int64     `json:"bytes_out" doc:"Bytes of the answer's body."`
		RequestID  string    `json:"request_id" doc:"Its X-Request-Id."`
		TraceID    string    `json:"trace_id,omitempty" doc:"Its trace."`
		Consumer   string    `json:"consumer,omitempty" doc:"Who was authenticated."`
		Error      string    `json:"error,omitempty" doc:"Why the gateway refused it or failed."`
		Query      string    `json:"query,omitempty" doc:"Its query, if the route's log.query asks for it, with *** for secrets."`

		Headers map[string]string `json:"headers,omitempty" doc:"The header fields that the route's log.headers asks for, with *** for secrets."`
	}
	logPage struct {
		Items []requestLog `json:"items" doc:"The requests, newest first."`
		Next  string       `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
	// RequestFilter selects requests, of the log or as they happen. It is exported for
	// huma, which does not see what else is embedded.
	RequestFilter struct {
		Route      int64  `query:"route" minimum:"1" maximum:"2147483647" doc:"Only requests of the route with this number."`
		Status     string `query:"status" doc:"Only answers with this status, or of this class." example:"5xx" pattern:"^[1-9]([0-9]{2}|xx)$"`
		Method     string `query:"method" doc:"Only requests with exactly this method." example:"GET"`
		Path       string `query:"path" doc:"Only requests whose path begins with this text." example:"/orders"`
		Client     string `query:"client" doc:"Only requests of the client with this address."`
		Consumer   string `query:"consumer" doc:"Only requests of this consumer."`
		MinLatency int64  `query:"min_latency" minimum:"0" maximum:"86400000" doc:"Only requests that took this many milliseconds or more."`
	}
	// LogFilter selects requests of the log.
	LogFilter struct {
		RequestFilter
		From      time.Time `query:"from" doc:"Only requests that came at this time or later, as in RFC 3339."`
		To        time.Time `query:"to" doc:"Only requests that came before this time."`
		RequestID string    `query:"request_id" doc:"Only the request with this X-Request-Id."`
	}
	logsInput struct {
		LogFilter
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most requests in one answer."`
		Cursor string `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
	}
	logsOutput struct{ Body logPage }
)

func newRequestLog(r *store.RequestLog) requestLog {
	return requestLog{
		ID: r.ID, Time: r.CreatedAt, Route: r.RouteID, Method: r.Method, Host: r.Host, Path: r.Path, Status: r.Status,
		DurationMS: milliseconds(r.Duration), ClientIP: r.ClientIP, UserAgent: r.UserAgent,
		Upstream: r.Upstream, BytesIn: r.BytesIn, BytesOut: r.BytesOut, RequestID: r.RequestID, TraceID: r.TraceID,
		Consumer: r.Consumer, Error: r.Error, Query: r.Query, Headers: r.Headers,
	}
}

func (s *server) registerLogs(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "list-logs", Method: http.MethodGet, Path: "/api/logs", Tags: []string{"logs"},
		Summary: "Read the request log",
		Description: "Lists requests of all nodes, newest first, in pages. Filters add up. It asks the store, into which requests come about a second after their answer. " +
			"A range of time makes it quick on a large log.",
		Errors: []int{400, 422, 503},
	}, s.logs)
}

func (s *server) logs(ctx context.Context, in *logsInput) (*logsOutput, error) {
	before, ok := parseLogCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	// One more than asked for tells whether there is a next page.
	rows, err := s.cfg.Gateway.Logs(ctx, in.filter(), before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	page := logPage{Items: []requestLog{}}
	for i, row := range rows {
		if i == in.Limit {
			page.Next = logCursor(rows[i-1])
			break
		}
		page.Items = append(page.Items, newRequestLog(row))
	}
	return &logsOutput{Body: page}, nil
}

func (in *LogFilter) filter() store.LogFilter {
	f := in.RequestFilter.filter()
	f.From, f.To, f.RequestID = in.From, in.To, in.RequestID
	return f
}

func (in *RequestFilter) filter() store.LogFilter {
	f := store.LogFilter{
		RouteID: in.Route, Method: in.Method, PathPrefix: in.Path, ClientIP: in.Client,
		Consumer: in.Consumer, MinLatency: time.Duration(in.MinLatency) * time.Millisecond,
	}
	if class, isClass := strings.CutSuffix(in.Status, "xx"); isClass {
		f.StatusFrom = int(class[0]-'0') * 100
		f.StatusTo = f.StatusFrom + 99
	} else if in.Status != "" {
		_, _ = fmt.Sscan(in.Status, &f.StatusFrom) // three digits, by the pattern
		f.StatusTo = f.StatusFrom
	}
	return f
}

// logCursor stands for all requests that come after one in the list.
func logCursor(r *store.RequestLog) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d:%d", r.CreatedAt.UnixMicro(), r.ID))
}

// parseLogCursor is the reverse of logCursor. No cursor is the beginning.
func parseLogCursor(text string) (*store.LogCursor, bool) {
	if text == "" {
		return nil, true
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, false
	}
	var at, id int64
	if n, err := fmt.Sscanf(string(plain), "%d:%d", &at, &id); n != 2 || err != nil {
		return nil, false
	}
	return &store.LogCursor{CreatedAt: time.UnixMicro(at).UTC(), ID: id}, true
}
