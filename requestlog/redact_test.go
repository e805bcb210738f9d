package requestlog_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/requestlog"
)

func TestRedactorQuery(t *testing.T) {
	t.Parallel()
	r := requestlog.NewRedactor(nil, []string{"token", "X-Key"})
	for raw, want := range map[string]string{
		"":                        "",
		"a=1&b=":                  "a=1&b=",
		"token=s3cret":            "token=***",
		"a=1&TOKEN=s3cret&b=2":    "a=1&TOKEN=***&b=2",
		"t%6Fken=s3cret":          "t%6Fken=***",
		"a=1;token=s3cret":        "a=1&token=***",
		"token":                   "token",
		"x-key=a=b":               "x-key=***",
		"tokens=1":                "tokens=1",
		"%zztoken=s3cret&a=1":     "***&a=1",
		"a=%26token=no":           "a=%26token=no",
		"token=s3cret&token=more": "token=***&token=***",
	} {
		if got := r.Query(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestRedactorHeaders(t *testing.T) {
	t.Parallel()
	r := requestlog.NewRedactor([]string{"x-api-key"}, nil)
	h := http.Header{
		"Accept": {"a", "b"}, "Authorization": {"s3cret"}, "Cookie": {"s3cret"}, "X-Api-Key": {"s3cret"}, "X-Other": {"o"},
	}
	got := r.Headers(h, []string{"accept", "authorization", "cookie", "X-API-Key", "X-Absent"})
	want := map[string]string{"Accept": "a, b", "Authorization": "***", "Cookie": "***", "X-Api-Key": "***"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := r.Headers(h, nil); got != nil {
		t.Errorf("no names: %v", got)
	}
}
