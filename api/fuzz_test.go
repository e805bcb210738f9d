package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/gateway"
)

// FuzzBody: no body is the server's fault, and what is accepted can be read back and
// sent again.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		anyRoute, `{}`, `[]`, `{"path": "/a", "path": "/b"}`, `{"path": "/\ud800", "target_url": "http://x"}`,
		`{"path": "/a/{x:[0-9]+}/*", "target_url": "http://x/{x}", "headers": {"A": "*"}, "plugins": [{"handler": "encode", "n": 1e9}]}`,
		`{"path": "/a", "target_url": "http://x", "limits": {"window": 60}, "upstream": {"tls": {}}, "labels": {"": ""}}`,
		`{"path": "/a", "target_url": "http://x", "limits": {"body_max": -1, "max_concurrent": 5}, "cors": {"origins": ["*"], "max_age": 60}}`,
	} {
		f.Add(seed)
	}
	g, err := gateway.Open(gateway.Config{DSN: "sqlite::memory:", Log: zap.NewNop})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = g.Close() })
	g.Start(f.Context())
	h := api.New(api.Config{Gateway: g})
	do := func(method, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	f.Fuzz(func(t *testing.T, body string) {
		rec := do("POST", "/api/routes", body)
		switch {
		case rec.Code >= http.StatusInternalServerError:
			t.Fatalf("%q: %d %s", body, rec.Code, rec.Body)
		case rec.Code != http.StatusCreated:
			return
		}
		path := rec.Header().Get("Location")
		read := do("GET", path, "")
		if again := do("PUT", path, read.Body.String()); again.Code != http.StatusOK {
			t.Errorf("%q is accepted as %s, but that is answered %d %s", body, read.Body, again.Code, again.Body)
		}
		if rec := do("DELETE", path, ""); rec.Code != http.StatusNoContent {
			t.Errorf("%q can't be deleted: %d %s", body, rec.Code, rec.Body)
		}
	})
}
