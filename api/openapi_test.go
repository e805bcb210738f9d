package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/api"
)

var update = flag.Bool("update", false, "write testdata/openapi.json anew")

// spec is the document that the API serves, parsed once.
var spec = sync.OnceValue(func() object {
	rec := httptest.NewRecorder()
	api.New(api.Config{Version: "test"}).ServeHTTP(rec, httptest.NewRequest("GET", "/api/openapi.json", nil))
	var doc object
	if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil {
		panic(err)
	}
	return doc
})

func TestOpenAPIGolden(t *testing.T) {
	t.Parallel()
	const file = "testdata/openapi.json"
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(spec()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s is not what the code makes; run the test with -update if it should be (-file +code):\n%s", file, diff)
	}
}

func TestOpenAPIReferencesResolve(t *testing.T) {
	t.Parallel()
	used := make(map[string]bool)
	walk(spec(), func(o object) {
		ref, ok := o["$ref"].(string)
		if !ok {
			return
		}
		used[strings.TrimPrefix(ref, "#/components/schemas/")] = true
		if resolve(o)["type"] == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	for name := range at(spec(), "components", "schemas") {
		if !used[name] {
			t.Errorf("the schema %s is not used", name)
		}
	}
}

func TestOpenAPIDescribesEverything(t *testing.T) {
	t.Parallel()
	if got := spec()["openapi"]; got != "3.1.0" {
		t.Errorf("the document is OpenAPI %v", got)
	}
	for name, schema := range at(spec(), "components", "schemas") {
		for field, s := range at(schema.(object), "properties") {
			if s.(object)["description"] == nil {
				t.Errorf("%s.%s has no description", name, field)
			}
		}
	}
	for path, item := range at(spec(), "paths") {
		for method, op := range item.(object) {
			if op.(object)["summary"] == nil || op.(object)["operationId"] == nil {
				t.Errorf("%s %s has no summary or no id", method, path)
			}
			params, _ := op.(object)["parameters"].([]any)
			for _, p := range params {
				if p.(object)["description"] == nil {
					t.Errorf("%s %s: the parameter %s has no description", method, path, p.(object)["name"])
				}
			}
		}
	}
}

// TestOpenAPIOperations holds the document against a list written by hand: what an
// operation can answer is part of the contract.
func TestOpenAPIOperations(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"get /api/upstreams":      "200 400 422 500",
		"get /health":             "200 500 503",
		"get /health/live":        "200 500",
		"get /health/ready":       "200 500 503",
		"get /api/status":         "200 400 422 500",
		"get /api/openapi.json":   "200 400 422 500",
		"get /api/replicas":       "200 400 422 500 503",
		"get /api/routes":         "200 400 422 500 503",
		"post /api/routes":        "201 400 408 409 413 415 422 500 503 504",
		"get /api/routes/{id}":    "200 304 400 404 422 500 503",
		"put /api/routes/{id}":    "200 400 404 408 409 412 413 415 422 500 503 504",
		"patch /api/routes/{id}":  "200 400 404 408 409 412 413 415 422 500 503 504",
		"delete /api/routes/{id}": "204 400 404 412 422 500 503 504",

		"get /api/logs/tail":   "200 400 422 500 503",
		"get /api/logs":        "200 400 422 500 503",
		"get /api/logs/export": "200 400 422 500 503",
		"get /api/stats":       "200 400 422 500 503",

		"get /api/consumers":                    "200 400 422 500 503",
		"post /api/consumers":                   "201 400 408 409 413 415 422 500 503 504",
		"get /api/consumers/{id}":               "200 304 400 404 422 500 503",
		"put /api/consumers/{id}":               "200 400 404 408 409 412 413 415 422 500 503 504",
		"patch /api/consumers/{id}":             "200 400 404 408 409 412 413 415 422 500 503 504",
		"delete /api/consumers/{id}":            "204 400 404 412 422 500 503 504",
		"get /api/consumers/{id}/keys":          "200 400 404 422 500 503",
		"get /api/hosts":                        "200 400 422 500 503",
		"post /api/consumers/{id}/keys":         "201 400 404 408 409 413 415 422 500 503 504",
		"patch /api/consumers/{id}/keys/{key}":  "200 400 404 408 409 413 415 422 500 503 504",
		"delete /api/consumers/{id}/keys/{key}": "204 400 404 422 500 503 504",
		"get /api/tokens":                       "200 400 422 500 503",
		"post /api/tokens":                      "201 400 408 409 413 415 422 500 503 504",
		"delete /api/tokens/{id}":               "204 400 404 422 500 503 504",
		"get /api/ratelimits":                   "200 400 404 422 500 503",
		"delete /api/ratelimits":                "204 400 404 422 500 503",

		"get /api/revisions":               "200 400 422 500 503",
		"get /api/revisions/{n}":           "200 400 404 422 500 503",
		"post /api/revisions/{n}/rollback": "200 400 404 409 412 422 500 503 504",
		"post /api/routes/{id}/restore":    "200 400 404 409 422 500 503 504",
		"post /api/routes/batch":           "200 400 404 408 409 412 413 415 422 500 503 504",
		"get /api/config":                  "200 304 400 404 422 500 503",
		"put /api/config":                  "200 400 408 409 412 413 415 422 500 503 504",
	}
	got := make(map[string]string)
	for path, item := range at(spec(), "paths") {
		for method, op := range item.(object) {
			got[method+" "+path] = strings.Join(slices.Sorted(maps.Keys(at(op.(object), "responses"))), " ")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations and answers (-want +got):\n%s", diff)
	}
	bodies := at(spec(), "paths", "/api/routes/{id}", "patch", "requestBody", "content")
	if diff := cmp.Diff([]string{"application/json", "application/merge-patch+json"}, slices.Sorted(maps.Keys(bodies))); diff != "" {
		t.Errorf("media types of a patch (-want +got):\n%s", diff)
	}
}

func TestOpenAPIDefaults(t *testing.T) {
	t.Parallel()
	fields := at(spec(), "components", "schemas", "Route", "properties")
	created := newNode(t).create(t, "/defaults").object()
	for name, s := range fields {
		byDefault, ok := s.(object)["default"]
		if !ok {
			continue
		}
		got, ok := created[name]
		if !ok && byDefault == false {
			continue
		}
		if diff := cmp.Diff(byDefault, got); diff != "" {
			t.Errorf("the default of %s (-document +answer):\n%s", name, diff)
		}
	}
}

// checkDocumented fails the test unless the document allows the answer.
func checkDocumented(a answer) {
	a.t.Helper()
	op := operation(a.method, a.path)
	if op == nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			a.t.Errorf("%s: status %d at a path or method that is not documented", a.what, a.status)
		}
		return
	}
	response := at(op, "responses", fmt.Sprint(a.status))
	if response == nil {
		a.t.Errorf("%s: status %d is not documented: %s", a.what, a.status, a.text)
		return
	}
	for name := range at(response, "headers") {
		if a.header.Get(name) == "" {
			a.t.Errorf("%s: no header field %s, which is documented", a.what, name)
		}
	}
	if len(a.text) == 0 {
		return
	}
	media, ok := at(response, "content")[a.header.Get("Content-Type")].(object)
	if !ok {
		a.t.Errorf("%s: Content-Type %q is not documented", a.what, a.header.Get("Content-Type"))
		return
	}
	if a.header.Get("Content-Type") == "application/yaml" {
		return // the same document as in JSON, which other tests compare
	}
	documents := [][]byte{a.text}
	if a.header.Get("Content-Type") == "application/x-ndjson" {
		documents = slices.Collect(bytes.Lines(a.text))
	}
	for _, document := range documents {
		var v any
		if err := json.Unmarshal(document, &v); err != nil {
			a.t.Errorf("%s: %v", a.what, err)
			return
		}
		for _, problem := range mismatches(at(media, "schema"), "answer", v) {
			a.t.Errorf("%s: %s is not as documented: %s", a.what, problem, document)
		}
	}
}

// operation finds what the document says of a request; HEAD is as GET.
func operation(method, path string) object {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for pattern, item := range at(spec(), "paths") {
		want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
		same := slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") && g != "" })
		// A literal path comes before one with a parameter.
		if same && (pattern == path || at(spec(), "paths", path) == nil) {
			return at(item.(object), strings.ToLower(method))
		}
	}
	return nil
}

// mismatches returns where a value is not as its schema says.
func mismatches(schema object, where string, v any) []string {
	schema = resolve(schema)
	ok := true
	switch v := v.(type) {
	case object:
		var all []string
		for name, value := range v {
			field, known := at(schema, "properties")[name].(object)
			if !known {
				field, known = schema["additionalProperties"].(object)
			}
			if known {
				all = append(all, mismatches(field, where+"."+name, value)...)
			} else if schema["additionalProperties"] == false {
				all = append(all, where+"."+name)
			}
		}
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, there := v[name.(string)]; !there {
				all = append(all, where+"."+name.(string))
			}
		}
		return all
	case []any:
		var all []string
		for i, item := range v {
			all = append(all, mismatches(at(schema, "items"), fmt.Sprintf("%s[%d]", where, i), item)...)
		}
		return all
	case string:
		ok = schema["type"] == "string"
	case float64:
		ok = schema["type"] == "number" || schema["type"] == "integer" && v == float64(int64(v))
	case bool:
		ok = schema["type"] == "boolean"
	case nil:
		ok = false
	}
	if ok || schema["type"] == nil {
		return nil
	}
	return []string{where}
}

// resolve follows a reference.
func resolve(schema object) object {
	ref, ok := schema["$ref"].(string)
	if !ok {
		return schema
	}
	return at(spec(), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// at returns the object at the end of some names, nil if there is none.
func at(o object, names ...string) object {
	for _, name := range names {
		o, _ = o[name].(object)
	}
	return o
}

func walk(v any, visit func(object)) {
	switch v := v.(type) {
	case object:
		visit(v)
		for _, value := range v {
			walk(value, visit)
		}
	case []any:
		for _, value := range v {
			walk(value, visit)
		}
	}
}
