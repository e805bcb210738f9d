package ratelimit_test

import (
	"errors"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

func TestHeaders(t *testing.T) {
	t.Parallel()
	route := ratelimit.Rule{Name: "route", Limit: 100, Window: time.Minute}
	burst := ratelimit.Rule{Name: "bu\"r\\st\u00e9", Limit: 10, Window: 1500 * time.Millisecond}
	free := ratelimit.Rule{Name: "free"}
	left := func(n int, reset time.Duration) ratelimit.Decision {
		return ratelimit.Decision{Allowed: true, Remaining: n, Reset: reset}
	}
	tests := []struct {
		name      string
		style     ratelimit.HeaderStyle
		rules     []ratelimit.Rule
		decisions []ratelimit.Decision
		upstream  http.Header
		want      http.Header
	}{
		{
			"ietf", ratelimit.HeadersIETF,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, 11*time.Second+1)}, nil,
			http.Header{"Ratelimit-Policy": {`"route";q=100;w=60`}, "Ratelimit": {`"route";r=57;t=12`}},
		},
		{
			"several rules, quoted names, one without limit", ratelimit.HeadersIETF,
			[]ratelimit.Rule{free, burst, route}, []ratelimit.Decision{{Allowed: true}, left(10, 0), left(0, time.Second)}, nil,
			http.Header{
				"Ratelimit-Policy": {`"bu\"r\\st?";q=10;w=2, "route";q=100;w=60`},
				"Ratelimit":        {`"bu\"r\\st?";r=10, "route";r=0;t=1`},
			},
		},
		{
			"an upstream's members stay first", ratelimit.HeadersIETF,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, time.Second)},
			http.Header{"Ratelimit-Policy": {`"u";q=5;w=1`}, "Ratelimit": {`"u";r=0;t=1`}},
			http.Header{
				"Ratelimit-Policy": {`"u";q=5;w=1`, `"route";q=100;w=60`},
				"Ratelimit":        {`"u";r=0;t=1`, `"route";r=57;t=1`},
			},
		},
		{
			"legacy has the tightest rule", ratelimit.HeadersLegacy,
			[]ratelimit.Rule{free, route, burst}, []ratelimit.Decision{{Allowed: true}, left(57, time.Second), left(3, 500*time.Millisecond)}, nil,
			http.Header{"X-Ratelimit-Limit": {"10"}, "X-Ratelimit-Remaining": {"3"}, "X-Ratelimit-Reset": {"1"}},
		},
		{
			"legacy keeps a tighter upstream", ratelimit.HeadersLegacy,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, time.Second)},
			http.Header{"X-Ratelimit-Limit": {"60"}, "X-Ratelimit-Remaining": {"56"}, "X-Ratelimit-Reset": {"9"}},
			http.Header{"X-Ratelimit-Limit": {"60"}, "X-Ratelimit-Remaining": {"56"}, "X-Ratelimit-Reset": {"9"}},
		},
		{
			"legacy replaces a looser upstream", ratelimit.HeadersLegacy,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, 2*time.Second)},
			http.Header{"X-Ratelimit-Limit": {"1000"}, "X-Ratelimit-Remaining": {"58"}, "X-Ratelimit-Reset": {"1"}},
			http.Header{"X-Ratelimit-Limit": {"100"}, "X-Ratelimit-Remaining": {"57"}, "X-Ratelimit-Reset": {"2"}},
		},
		{
			"legacy keeps what is stricter of a looser upstream", ratelimit.HeadersLegacy,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, time.Second)},
			http.Header{"X-Ratelimit-Limit": {"60"}, "X-Ratelimit-Remaining": {"58"}, "X-Ratelimit-Reset": {"9"}},
			http.Header{"X-Ratelimit-Limit": {"60"}, "X-Ratelimit-Remaining": {"57"}, "X-Ratelimit-Reset": {"9"}},
		},
		{
			"legacy keeps a date and what is no number", ratelimit.HeadersLegacy,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, time.Second)},
			http.Header{"X-Ratelimit-Limit": {"10, 10;w=1"}, "X-Ratelimit-Remaining": {"3", "4"}, "X-Ratelimit-Reset": {"1800000000"}},
			http.Header{"X-Ratelimit-Limit": {"10, 10;w=1"}, "X-Ratelimit-Remaining": {"3", "4"}, "X-Ratelimit-Reset": {"1800000000"}},
		},
		{
			"legacy keeps an upstream's only field", ratelimit.HeadersLegacy,
			[]ratelimit.Rule{route}, []ratelimit.Decision{left(57, time.Second)},
			http.Header{"X-Ratelimit-Limit": {"5"}},
			http.Header{"X-Ratelimit-Limit": {"5"}, "X-Ratelimit-Remaining": {"57"}, "X-Ratelimit-Reset": {"1"}},
		},
		{"none", ratelimit.HeadersNone, []ratelimit.Rule{route}, []ratelimit.Decision{left(57, time.Second)}, nil, http.Header{}},
		{"no limit", ratelimit.HeadersLegacy, []ratelimit.Rule{free}, []ratelimit.Decision{{Allowed: true}}, nil, http.Header{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := http.Header{}
			maps.Copy(got, test.upstream)
			ratelimit.NewHeaders(test.style, test.rules).Write(got, test.decisions)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			members(t, got["Ratelimit"])
			members(t, got["Ratelimit-Policy"])
		})
	}
}

func TestSetRetryAfter(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{
		0: "1", 1: "1", time.Second: "1", time.Second + 1: "2", time.Minute: "60",
	} {
		header := http.Header{}
		ratelimit.SetRetryAfter(header, wait)
		if got := header.Get("Retry-After"); got != want {
			t.Errorf("%v: %s, want %s", wait, got, want)
		}
	}
}

func TestLimitedError(t *testing.T) {
	t.Parallel()
	rules := []ratelimit.Rule{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	err := ratelimit.NewLimitedError(rules, []ratelimit.Decision{
		{RetryAfter: 3 * time.Second}, {Allowed: true}, {RetryAfter: time.Second},
	})
	if !errors.Is(err, ratelimit.ErrLimited) {
		t.Error("does not match ErrLimited")
	}
	if diff := cmp.Diff([]string{"a", "c"}, err.Policies); diff != "" || err.RetryAfter != 3*time.Second {
		t.Errorf("%+v", err)
	}
	if got, want := err.Error(), "rate limit exceeded: a, c"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
