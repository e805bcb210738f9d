package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/isekai-gateway/isekai/store"
)

// logTime is the time of the first row in tests.
var logTime = time.Date(2026, 5, 6, 7, 8, 9, 123_456_000, time.UTC)

func newLog(path string, after time.Duration) *store.RequestLog {
	return &store.RequestLog{Method: "GET", Path: path, Status: 200, CreatedAt: logTime.Add(after)}
}

func insertLogs(t *testing.T, s store.Store, rows ...*store.RequestLog) {
	t.Helper()
	if err := s.InsertLogs(t.Context(), store.LogBatch{Writer: uuid.NewString(), Number: 1, Rows: rows}); err != nil {
		t.Fatal(err)
	}
}

func paths(t *testing.T, s store.Store, filter store.LogFilter) string {
	t.Helper()
	var list []string
	for _, r := range must[[]*store.RequestLog](t)(s.Logs(t.Context(), filter, nil, 100)) {
		list = append(list, r.Path)
	}
	return strings.Join(list, " ")
}

func testLogs(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://x"))
	want := &store.RequestLog{
		RouteID: route.ID, Method: "POST", Host: "a.example", Path: "/a", Status: 503, Duration: 1234 * time.Microsecond,
		ClientIP: "192.0.2.1", UserAgent: "curl", Upstream: "10.0.0.1:80", BytesIn: 5, BytesOut: 1 << 40,
		RequestID: "r", TraceID: "t", Consumer: "shop", Error: "limited", CreatedAt: logTime,
		Query: "a=1&b=2", Headers: map[string]string{"Accept": "text/html", "X-Odd": `"\u0000é`},
	}
	gone := newLog("/gone", time.Second)
	gone.RouteID = 99
	insertLogs(t, s, want, gone)
	insertLogs(t, s)
	got := must[[]*store.RequestLog](t)(s.Logs(t.Context(), store.LogFilter{}, nil, 10))
	gone.RouteID = 0
	if diff := cmp.Diff([]*store.RequestLog{gone, want}, got, cmpopts.IgnoreFields(store.RequestLog{}, "ID")); diff != "" {
		t.Error(diff)
	}
	// A route that is deleted keeps its rows.
	if _, err := s.Delete(t.Context(), route.ID, 0, admin); err != nil {
		t.Fatal(err)
	}
	if got := paths(t, s, store.LogFilter{RouteID: route.ID}); got != "/a" {
		t.Errorf("of a deleted route: %q", got)
	}
	late := newLog("/late", 0)
	late.RouteID = route.ID
	insertLogs(t, s, late)
	if got := paths(t, s, store.LogFilter{RouteID: route.ID}); !strings.Contains(got, "/late") {
		t.Errorf("a row that comes after its route was deleted: %q", got)
	}
}

func testLogBatches(t *testing.T, open Opener) {
	s := open(t)
	one, another := uuid.NewString(), uuid.NewString()
	for i, batch := range []struct {
		writer string
		number int64
		path   string
	}{
		{one, 1, "/a"}, {one, 1, "/a"}, {another, 1, "/b"}, {one, 3, "/c"},
		{one, 1, "/late"}, {one, 2, "/given-up"}, {one, 3, "/c"}, {another, 2, "/d"},
	} {
		rows := []*store.RequestLog{newLog(batch.path, time.Duration(i)*time.Second)}
		if err := s.InsertLogs(t.Context(), store.LogBatch{Writer: batch.writer, Number: batch.number, Rows: rows}); err != nil {
			t.Fatal(err)
		}
		if i == 1 { // whoever wrote a moment ago is not forgotten
			if err := s.MaintainLogs(t.Context(), logTime, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := paths(t, s, store.LogFilter{}); got != "/d /c /b /a" {
		t.Errorf("rows %q", got)
	}
}

// testManyLogs inserts more rows than one statement takes, some with values where most
// have none.
func testManyLogs(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://x"))
	var rows, want []*store.RequestLog
	for i := range 137 {
		row := newLog(fmt.Sprint("/a/", i), time.Duration(i)*time.Millisecond)
		row.RouteID, row.Host, row.RequestID, row.Duration, row.BytesOut = route.ID, "a.example", fmt.Sprint(i), time.Duration(i)*time.Microsecond, int64(i)
		switch {
		case i == 60:
			row.Error = "limited"
		case i == 61:
			row.RouteID, row.BytesIn = 99, 7
		case i == 120:
			row.TraceID, row.Consumer, row.Query, row.Headers = "t", "shop", "q", map[string]string{"Accept": "*/*"}
		case i%10 == 0:
			row.Path, row.Host = row.Host, row.Path
		}
		rows = append(rows, row)
		kept := *row
		if i == 61 {
			kept.RouteID = 0
		}
		want = append([]*store.RequestLog{&kept}, want...)
	}
	insertLogs(t, s, rows...)
	got := must[[]*store.RequestLog](t)(s.Logs(t.Context(), store.LogFilter{}, nil, 200))
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(store.RequestLog{}, "ID")); diff != "" {
		t.Error(diff)
	}
}

func testLogTexts(t *testing.T, open Opener) {
	s := open(t)
	odd := newLog("/\x00\xff"+strings.Repeat("é", 3000), 0)
	odd.UserAgent, odd.Method = strings.Repeat("x", 300), strings.Repeat("M", 40)
	odd.Query, odd.Headers = strings.Repeat("q", 3000), map[string]string{"X": "\x00" + strings.Repeat("h", 300)}
	insertLogs(t, s, odd)
	got := must[[]*store.RequestLog](t)(s.Logs(t.Context(), store.LogFilter{}, nil, 1))[0]
	for name, text := range map[string]struct {
		got  string
		most int
	}{"path": {got.Path, 2048}, "user agent": {got.UserAgent, 256}, "method": {got.Method, 32},
		"query": {got.Query, 2048}, "header": {got.Headers["X"], 256}} {
		if len(text.got) > text.most || len(text.got) < text.most-4 || !strings.HasSuffix(text.got, "…") {
			t.Errorf("%s has %d bytes and ends in %q", name, len(text.got), text.got[len(text.got)-6:])
		}
	}
	if !strings.HasPrefix(got.Path, "/\uFFFD\uFFFDé") {
		t.Errorf("path %.20q", got.Path)
	}
}

func testLogFilters(t *testing.T, open Opener) {
	s := open(t)
	route := create(t, s, store.NewRoute("/a", "http://x"))
	a, b, c := newLog("/a/1", 0), newLog("/a/2", time.Minute), newLog("/A/3", 2*time.Minute)
	a.RouteID, a.Method, a.ClientIP, a.Consumer, a.RequestID = route.ID, "POST", "192.0.2.1", "shop", "one"
	b.Status, b.Duration = 404, 3*time.Second
	c.Status, c.Duration = 500, time.Second
	insertLogs(t, s, a, b, c)
	for _, tt := range []struct {
		filter store.LogFilter
		want   string
	}{
		{store.LogFilter{}, "/A/3 /a/2 /a/1"},
		{store.LogFilter{RouteID: route.ID}, "/a/1"},
		{store.LogFilter{Method: "POST"}, "/a/1"},
		{store.LogFilter{ClientIP: "192.0.2.1"}, "/a/1"},
		{store.LogFilter{Consumer: "shop"}, "/a/1"},
		{store.LogFilter{RequestID: "one"}, "/a/1"},
		{store.LogFilter{RequestID: "o\x00ne"}, ""},
		{store.LogFilter{PathPrefix: "/a"}, "/a/2 /a/1"},
		{store.LogFilter{PathPrefix: "/%"}, ""},
		{store.LogFilter{StatusFrom: 400, StatusTo: 499}, "/a/2"},
		{store.LogFilter{StatusFrom: 400}, "/A/3 /a/2"},
		{store.LogFilter{MinLatency: time.Second}, "/A/3 /a/2"},
		{store.LogFilter{MinLatency: time.Second, StatusFrom: 500}, "/A/3"},
		{store.LogFilter{From: logTime.Add(time.Minute)}, "/A/3 /a/2"},
		{store.LogFilter{To: logTime.Add(time.Minute)}, "/a/1"},
	} {
		if got := paths(t, s, tt.filter); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.filter, got, tt.want)
		}
		var matching []string
		for _, r := range []*store.RequestLog{c, b, a} {
			if tt.filter.Matches(r) {
				matching = append(matching, r.Path)
			}
		}
		if got := strings.Join(matching, " "); got != tt.want {
			t.Errorf("%+v matches %q, want %q", tt.filter, got, tt.want)
		}
	}
}

func testLogPages(t *testing.T, open Opener) {
	s := open(t)
	var rows []*store.RequestLog
	for i := range 25 {
		rows = append(rows, newLog(fmt.Sprint("/", i), time.Duration(i/5)*time.Second)) // five at a time
	}
	insertLogs(t, s, rows...)
	var got []string
	var before *store.LogCursor
	for {
		page := must[[]*store.RequestLog](t)(s.Logs(t.Context(), store.LogFilter{}, before, 4))
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			got = append(got, r.Path)
		}
		last := page[len(page)-1]
		before = &store.LogCursor{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	var want []string
	for i := 24; i >= 0; i-- {
		want = append(want, fmt.Sprint("/", i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func testLogRetention(t *testing.T, open Opener) {
	s := open(t)
	const day = 24 * time.Hour
	maintain := func(now time.Time) {
		t.Helper()
		if err := s.MaintainLogs(t.Context(), now, 7*day); err != nil {
			t.Fatal(err)
		}
	}
	insertLogs(t, s, newLog("/early", 0)) // before there is a place for its day
	maintain(logTime)
	insertLogs(t, s, newLog("/today", time.Minute), newLog("/tomorrow", day), newLog("/future", 30*day))
	maintain(logTime.Add(2 * day))
	if got := paths(t, s, store.LogFilter{}); got != "/future /tomorrow /today /early" {
		t.Errorf("rows %q", got)
	}
	maintain(logTime.Add(8 * day)) // a day has gone that is older than a week
	if got := paths(t, s, store.LogFilter{}); got != "/future /tomorrow" {
		t.Errorf("after eight days: %q", got)
	}
	maintain(logTime.Add(60 * day))
	if got := paths(t, s, store.LogFilter{}); got != "" {
		t.Errorf("after all of it: %q", got)
	}
	var many []*store.RequestLog
	for i := range 2500 {
		many = append(many, newLog("/x", time.Duration(i)*time.Millisecond))
	}
	insertLogs(t, s, many...)
	maintain(logTime.Add(60 * day))
	if got := paths(t, s, store.LogFilter{}); got != "" {
		t.Errorf("many old rows: %d bytes are left", len(got))
	}
}
