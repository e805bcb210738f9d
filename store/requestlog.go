package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// RequestLog is one request as the log keeps it.
type RequestLog struct {
	ID        int64         // assigned by the store
	RouteID   int64         // 0 if no route matched
	Method    string        //
	Host      string        // as the client sent it
	Path      string        // without the query
	Status    int           // 499 if the client left before it had an answer
	Duration  time.Duration // from the request's header to the answer's end
	ClientIP  string        // by trusted_proxies
	UserAgent string        //
	Upstream  string        // host:port of the last target that was tried, if any
	BytesIn   int64         // of the body
	BytesOut  int64         // of the body
	RequestID string        //
	TraceID   string        //
	Consumer  string        // the name of who was authenticated, if anybody
	Error     string        // why the gateway refused or failed, in a word or two
	CreatedAt time.Time     // when the request came, UTC

	Query   string            // if the route's log settings ask for it
	Headers map[string]string // those that the route's log settings ask for
}

// Bounds of a RequestLog's texts, in bytes. What is longer is cut, with a mark.
const (
	maxLogMethod = 32
	maxLogPath   = 2048 // and of the query
	maxLogText   = 256

	cutMark = "…"
)

// keepWriters is how long a writer of the log is remembered after its last batch. Much
// longer than any server process works at a batch that the writer has given up.
const keepWriters = 24 * time.Hour

// LogBatch is rows of the request log that are written together.
type LogBatch struct {
	// Whose batch it is: a UUID. A writer sends one batch after another.
	Writer string

	// Counts the writer's batches, from 1. It tells one that is sent again, as must be
	// done if it is not known what became of it, from the next one.
	Number int64

	Rows []*RequestLog
}

// RequestLogs keeps the request log.
type RequestLogs interface {
	// InsertLogs appends a batch's rows, all or none. A batch that is in the log, or
	// comes after a later one of its writer, is left out without an error: so one may
	// be sent again until there is none, also while the database still works at it.
	// Texts are cut and cleaned as the database needs it; a route that is not there any
	// more becomes none.
	InsertLogs(ctx context.Context, batch LogBatch) error

	// MaintainLogs removes rows older than keep, in pieces, and makes room for those
	// of the next days. One process works at a time; others return at once.
	MaintainLogs(ctx context.Context, now time.Time, keep time.Duration) error

	// Logs returns up to limit rows that match, newest first. With before, only
	// those that come after it in that order.
	Logs(ctx context.Context, filter LogFilter, before *LogCursor, limit int) ([]*RequestLog, error)
}

// LogFilter selects rows of the request log. Zero fields select all.
type LogFilter struct {
	From, To   time.Time // CreatedAt from (inclusive) and to (exclusive)
	RouteID    int64
	Method     string
	PathPrefix string
	ClientIP   string
	Consumer   string
	RequestID  string
	StatusFrom int // inclusive
	StatusTo   int // inclusive
	MinLatency time.Duration
}

// Matches reports whether Logs would return the row.
func (f LogFilter) Matches(r *RequestLog) bool {
	return (f.From.IsZero() || !r.CreatedAt.Before(f.From)) && (f.To.IsZero() || r.CreatedAt.Before(f.To)) &&
		(f.RouteID == 0 || r.RouteID == f.RouteID) &&
		(f.Method == "" || r.Method == f.Method) &&
		(f.ClientIP == "" || r.ClientIP == f.ClientIP) &&
		(f.Consumer == "" || r.Consumer == f.Consumer) &&
		(f.RequestID == "" || r.RequestID == f.RequestID) &&
		strings.HasPrefix(r.Path, f.PathPrefix) &&
		r.Status >= f.StatusFrom && (f.StatusTo == 0 || r.Status <= f.StatusTo) &&
		r.Duration >= f.MinLatency
}

// LogCursor is the place of a row in the order of Logs.
type LogCursor struct {
	CreatedAt time.Time
	ID        int64
}

// logText makes a text of at most n bytes that both databases take.
func logText(s string, n int) string {
	if len(s) <= n && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) {
		return s
	}
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= n {
		return s
	}
	cut := n - len(cutMark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + cutMark
}

// clean returns a copy that both databases take.
func (r *RequestLog) clean() RequestLog {
	c := *r
	c.Method = logText(r.Method, maxLogMethod)
	c.Path, c.Query = logText(r.Path, maxLogPath), logText(r.Query, maxLogPath)
	if len(r.Headers) > 0 {
		c.Headers = make(map[string]string, len(r.Headers))
		for name, value := range r.Headers {
			c.Headers[logText(name, maxLogText)] = logText(value, maxLogText)
		}
	}
	for _, text := range []*string{&c.Host, &c.ClientIP, &c.UserAgent, &c.Upstream, &c.RequestID, &c.TraceID, &c.Consumer, &c.Error} {
		*text = logText(*text, maxLogText)
	}
	c.CreatedAt = r.CreatedAt.UTC().Truncate(time.Microsecond)
	return c
}

// headersJSON is the column headers.
func (r *RequestLog) headersJSON() string {
	if len(r.Headers) == 0 {
		return "{}"
	}
	text, _ := json.Marshal(r.Headers) // of texts
	return string(text)
}

// milliseconds rounds half up, for the column response_time.
func milliseconds(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }

// InsertLogs implements RequestLogs.
func (s *sqlStore) InsertLogs(ctx context.Context, batch LogBatch) (err error) {
	if len(batch.Rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	defer s.observe(CallLog, time.Now(), &err)
	cleaned := make([]RequestLog, len(batch.Rows))
	for i, r := range batch.Rows {
		cleaned[i] = r.clean()
	}
	return s.explain(ctx, "writing the request log", s.insertLogs(ctx, batch.Writer, batch.Number, cleaned))
}

// MaintainLogs implements RequestLogs.
func (s *sqlStore) MaintainLogs(ctx context.Context, now time.Time, keep time.Duration) error {
	return s.explain(ctx, "tidying the request log", s.maintainLogs(ctx, now.UTC(), keep))
}

const logColumns = `id, coalesce(route_id, 0) AS route_id, method, host, path, status_code, duration_us, client_ip, user_agent, upstream,
	bytes_in, bytes_out, request_id, trace_id, consumer, error, created_at, query, headers`

func scanLog(scan func(dest ...any) error) (*RequestLog, error) {
	var (
		r            RequestLog
		microseconds int64
		created      timestamp
		headers      []byte
	)
	err := scan(&r.ID, &r.RouteID, &r.Method, &r.Host, &r.Path, &r.Status, &microseconds, &r.ClientIP, &r.UserAgent, &r.Upstream,
		&r.BytesIn, &r.BytesOut, &r.RequestID, &r.TraceID, &r.Consumer, &r.Error, &created, &r.Query, &headers)
	if err != nil {
		return nil, err
	}
	if len(headers) > 0 && string(headers) != "{}" {
		if err := json.Unmarshal(headers, &r.Headers); err != nil {
			return nil, fmt.Errorf("reading the headers of a logged request: %w", err)
		}
	}
	r.Duration, r.CreatedAt = time.Duration(microseconds)*time.Microsecond, created.Time
	return &r, nil
}

// Logs implements RequestLogs.
func (s *sqlStore) Logs(ctx context.Context, filter LogFilter, before *LogCursor, limit int) ([]*RequestLog, error) {
	var (
		where []string
		args  []any
	)
	// Every condition holds one question mark for each of its values.
	and := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		where = append(where, condition)
	}
	filter.conditions(and)
	if before != nil {
		at := before.CreatedAt.UTC().Truncate(time.Microsecond)
		and("(created_at, id) < (?, ?)", at, before.ID)
	}
	query := "SELECT " + logColumns + " FROM request_logs"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	if filter.RequestID != "" {
		// They are few, which a planner that has not yet seen the rows of today does not
		// know: it would go through all of them by time.
		query = "WITH found AS MATERIALIZED (" + query + ") SELECT * FROM found"
	}
	args = append(args, limit)
	query += " ORDER BY created_at DESC, id DESC LIMIT $" + strconv.Itoa(len(args))

	var list []*RequestLog
	err := s.query(ctx, "reading the request log", func(ctx context.Context, q querier) (err error) {
		list, err = readAll(ctx, q, scanLog, query, args...)
		return err
	})
	return list, err
}

func (f LogFilter) conditions(and func(condition string, values ...any)) {
	if !f.From.IsZero() {
		and("created_at >= ?", f.From.UTC().Truncate(time.Microsecond))
	}
	if !f.To.IsZero() {
		and("created_at < ?", f.To.UTC().Truncate(time.Microsecond))
	}
	if f.RouteID != 0 {
		and("route_id = ?", f.RouteID)
	}
	for _, equal := range []struct{ column, value string }{
		{"method", f.Method}, {"client_ip", f.ClientIP}, {"consumer", f.Consumer}, {"request_id", f.RequestID},
	} {
		if equal.value != "" {
			and(equal.column+" = ?", logText(equal.value, maxLogText))
		}
	}
	if f.PathPrefix != "" {
		// Not LIKE, of which SQLite's is blind to case.
		prefix := logText(f.PathPrefix, maxLogPath)
		and("substr(path, 1, ?) = ?", utf8.RuneCountInString(prefix), prefix)
	}
	if f.StatusFrom > 0 {
		and("status_code >= ?", f.StatusFrom)
	}
	if f.StatusTo > 0 {
		and("status_code <= ?", f.StatusTo)
	}
	if f.MinLatency > 0 {
		and("duration_us >= ?", f.MinLatency.Microseconds())
	}
}
