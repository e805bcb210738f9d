package api_test

import (
	"encoding/json"
	"fmt"
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

// FuzzConfigText: whatever text is in a route, a document of it can be sent again in
// either format and changes nothing.
func FuzzConfigText(f *testing.F) {
	for _, seed := range []string{
		"", "a: b", "- x", "# c", "yes", "~", "1e3", "0x1F", "1:30", " lead", "trail ", "line\nline\n", "\n\n x", "\ttab\n tab", "a\r\nb", "\u0085\u2028\ufeff", "'", `"`, "|", ">-", "&a", "*a", "!!str", "{", "%", "@", "`", "?",
		"---", "...", "---\na", "\U0001f600", "\u007f", "<<", "=",
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
	do := func(method, path, body, media string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", media)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprintf(`{"routes": [{"path": "/a", "target_url": "http://x", "plugins": [{"handler": "x", "text": %s, %s: [1, {}]}]}]}`, quoted, quoted)
		switch rec := do("PUT", "/api/config", body, "application/json"); {
		case rec.Code >= http.StatusInternalServerError:
			t.Fatalf("%q: %d %s", body, rec.Code, rec.Body)
		case rec.Code != http.StatusOK:
			return
		}
		for format, media := range map[string]string{"json": "application/json", "yaml": "application/yaml"} {
			doc := do("GET", "/api/config?format="+format, "", media).Body.String()
			if rec := do("PUT", "/api/config", doc, media); rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), `"changed":false`) {
				t.Errorf("%q in %s is answered %d %s:\n%s", text, format, rec.Code, rec.Body, doc)
			}
		}
	})
}

// FuzzConfigYAML: no document is the server's fault.
func FuzzConfigYAML(f *testing.F) {
	for _, seed := range []string{"routes: []", "routes: &a [*a]", "routes:\n- <<: {}", "? [a]\n: b", "!!binary aGk=", "- 1\n--- 2", "a: {b: &b c, d: *b}", "%YAML 1.1\n---\nroutes:\n- path: !!float 1"} {
		f.Add(seed)
	}
	g, err := gateway.Open(gateway.Config{DSN: "sqlite::memory:", Log: zap.NewNop})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = g.Close() })
	g.Start(f.Context())
	h := api.New(api.Config{Gateway: g})
	f.Fuzz(func(t *testing.T, doc string) {
		r := httptest.NewRequest("PUT", "/api/config", strings.NewReader(doc))
		r.Header.Set("Content-Type", "application/yaml")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code >= http.StatusInternalServerError {
			t.Fatalf("%q: %d %s", doc, rec.Code, rec.Body)
		}
	})
}
