package api_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/isekai-gateway/isekai/internal/certtest"
	"github.com/isekai-gateway/isekai/internal/pgtest"
)

const asYAML = "Content-Type: application/yaml"

// put applies a document and returns the answer's changes in short.
func (n *node) put(t *testing.T, query, doc string, fields ...string) (object, []string) {
	t.Helper()
	o := n.do(t, "PUT", "/api/config"+query, doc, fields...).want(200).object()
	return o, brief(o["changes"])
}

func configOf(routes ...string) string {
	for i, r := range routes {
		if !strings.Contains(r, "target_url") {
			routes[i] = r[:len(r)-1] + `, "target_url": "http://127.0.0.1:9000"}`
		}
	}
	return `{"routes": [` + strings.Join(routes, ",") + `]}`
}

func TestConfigOfAllThatThereCanBe(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) string{
		"SQLite":     func(t testing.TB) string { return "sqlite://" + filepath.Join(t.TempDir(), "routes.db") },
		"PostgreSQL": pgtest.New, // which brings JSON into a form of its own
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testConfigOfAllThatThereCanBe(t, nodeOn(t, open(t)))
		})
	}
}

func testConfigOfAllThatThereCanBe(t *testing.T, n *node) {
	members, _ := secretRoute(t)
	n.create(t, "/plugins", `"plugins": [{"handler": "headers", "response": {"set": {"X": ["on"]}}, "n": 1e3, "f": 0.10}]`, `"method": "*"`)
	n.create(t, "/plugins", `"plugins": [{"handler": "static_response", "body": "a: b\n\n- c #d\n  \ttrailing "}]`, `"method": "POST,GET"`, `"priority": -3`)
	n.create(t, "/p", `"headers": {"X-Env": "yes", "X-No": "no"}, "query": {"v": "2", "w": "1:30", "x": "2024-01-01", "y": "~", "z": ""}`)
	n.create(t, "/o", `"name": "null", "labels": {"a": "true", "b": "0x1F", "c": " lead", "d": "ünï \u0007 \u2028 \ud83d\ude00", "e": "|", "f": "- x", "g": "&a", "h": "line\nline\n"}`)
	n.create(t, "/off", `"enabled": false, "rate_limit": 7, "limits": {"window": 10, "rules": [{"name": "d", "limit": 5}]}, "host": "A.example.com"`)
	n.do(t, "POST", "/api/routes", `{"path": "/secret", "host": "z.example.com", "target_url": "https://10.0.0.1", `+members+`}`).want(201)
	revision := n.Table().Revision()

	text := n.do(t, "GET", "/api/config", "").want(200)
	inYAML := n.do(t, "GET", "/api/config?format=yaml", "").want(200)
	if text.header.Get("ETag") != fmt.Sprintf(`"%d"`, revision) || inYAML.header.Get("ETag") != text.header.Get("ETag") {
		t.Errorf("the tags are %s and %s", text.header.Get("ETag"), inYAML.header.Get("ETag"))
	}
	// Both say the same, to others' readers too.
	var fromYAML any
	if err := yaml.Unmarshal(inYAML.text, &fromYAML); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	var a, b object
	if err := json.Unmarshal(again, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text.text, &b); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, b, a)

	// Neither changes anything.
	for media, doc := range map[string]string{asYAML: string(inYAML.text), "Content-Type: application/json": string(text.text)} {
		o, changes := n.put(t, "", doc, media)
		if o["changed"] != false || o["unchanged"] != 6.0 || len(changes) != 0 {
			t.Errorf("%s: %v\n%s", media, o, doc)
		}
	}
	if n.Table().Revision() != revision {
		t.Error("there is a new revision")
	}

	// On another gateway it makes the same routes, but for the secrets, which it must be told.
	other := newNode(t)
	got := other.do(t, "PUT", "/api/config", string(inYAML.text), asYAML).want(422)
	wantDiff(t, []string{"body.routes[5].upstream.policy_options.secret", "body.routes[5].upstream.tls.key"}, got.locations())
	doc := string(inYAML.text)
	doc, _, _ = strings.Cut(doc, "  - host: z.example.com")
	other.put(t, "", doc, asYAML)
	wantDiff(t, doc, string(other.do(t, "GET", "/api/config", "", "Accept: application/yaml").want(200).text))
}

func TestConfigFormats(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "application/yaml": "application/yaml",
		"text/html, text/yaml;q=0.9": "application/yaml", "application/json, application/yaml": "application/json",
	} {
		if got := n.do(t, "GET", "/api/config", "", "Accept: "+accept).want(200).header.Get("Content-Type"); got != want {
			t.Errorf("%q is answered in %s", accept, got)
		}
	}
	n.do(t, "GET", "/api/config?format=xml", "").want(422)
	n.do(t, "PUT", "/api/config", "routes: []", "Content-Type: text/plain").want(415)
	n.do(t, "PUT", "/api/config", "routes: []", "Content-Type: ").want(415)
	tag := n.do(t, "GET", "/api/config", "").header.Get("ETag")
	n.do(t, "GET", "/api/config", "", "If-None-Match: "+tag).want(304)
}

func TestPutConfig(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	doc := configOf(`{"path": "/a", "name": "a"}`, `{"path": "/b"}`, `{"path": "/c", "name": "c"}`)
	o, changes := n.put(t, "", doc)
	wantDiff(t, []string{"created /a", "created /b", "created /c"}, changes)
	if o["revision"] != 1.0 || o["created"] != 3.0 {
		t.Errorf("the answer is %v", o)
	}
	byPath := func() map[string]float64 {
		ids := make(map[string]float64)
		for _, r := range n.do(t, "GET", "/api/routes", "").items() {
			ids[r["path"].(string)] = r["id"].(float64)
		}
		return ids
	}
	first := byPath()

	// a and c change places by their names, b is renamed, another one is new.
	next := configOf(`{"path": "/c", "name": "a"}`, `{"path": "/a", "name": "c", "timeout": 3}`, `{"path": "/b", "name": "bee", "priority": 4}`, `{"path": "/d"}`)
	want := []string{"updated /c path:/a>/c", "updated /a path:/c>/a timeout:30>3", "updated /b name:<nil>>bee priority:0>4", "created /d"}
	o, changes = n.put(t, "?dry_run=true", next)
	wantDiff(t, want, changes)
	if o["dry_run"] != true || n.Table().Revision() != 1 {
		t.Errorf("the answer is %v", o)
	}
	_, changes = n.put(t, "", next)
	wantDiff(t, want, changes)
	second := byPath()
	if second["/c"] != first["/a"] || second["/a"] != first["/c"] || second["/b"] != first["/b"] || n.Table().Revision() != 2 {
		t.Errorf("ids were %v, are %v", first, second)
	}

	// Without pruning the rest stays.
	_, changes = n.put(t, "?prune=false", configOf(`{"path": "/e"}`))
	wantDiff(t, []string{"created /e"}, changes)
	_, changes = n.put(t, "", configOf(`{"path": "/e"}`))
	wantDiff(t, []string{"deleted /c", "deleted /b", "deleted /a", "deleted /d"}, changes)
	o, _ = n.put(t, "", configOf(`{"path": "/e"}`))
	if o["changed"] != false || o["revision"] != 4.0 || n.Table().Revision() != 4 {
		t.Errorf("the answer is %v", o)
	}
	n.put(t, "", `{"routes": []}`)
	if n.count(t) != 0 {
		t.Error("an empty document leaves routes")
	}

	// What was.
	if got := n.do(t, "GET", "/api/config?revision=1", "").want(200); got.header.Get("ETag") != `"1"` || !strings.Contains(string(got.text), `"/b"`) {
		t.Errorf("at 1: %s", got.text)
	}
	n.put(t, "", string(n.do(t, "GET", "/api/config?revision=2", "").text))
	if n.count(t) != 4 {
		t.Errorf("%d routes", n.count(t))
	}

	// Only over what the client has seen.
	tag := n.do(t, "GET", "/api/config", "").header.Get("ETag")
	n.create(t, "/meanwhile")
	n.do(t, "PUT", "/api/config", `{"routes": []}`, "If-Match: "+tag).want(412)
	n.do(t, "PUT", "/api/config", `{"routes": []}`, "If-Match: "+n.do(t, "GET", "/api/config", "").header.Get("ETag")).want(200)
}

func TestPutConfigErrors(t *testing.T) {
	t.Parallel()
	forbidden := "http://forbidden"
	n := newNode(t, checkOf(&forbidden))
	n.create(t, "/there", `"name": "there"`)
	for _, test := range []struct {
		name, doc string
		want      []string
	}{
		{"a list", `[]`, []string{"body"}},
		{"nothing in it", `{}`, []string{"body.routes"}},
		{"null", `{"routes": null}`, []string{"body.routes"}},
		{"unknown field", `{"routes": [], "consumers": []}`, []string{"body.consumers"}},
		{"no objects", `{"routes": [1, {"path": "/a", "target_url": "http://a"}, []]}`, []string{"body.routes[0]", "body.routes[2]"}},
		{"all at once", configOf(`{"path": "x"}`, `{"path": "/ok"}`, `{"path": "/a", "timeout": -1, "bogus": true}`, `{"target_url": "http://a"}`, `{"path": "/b", "target_url": "http://forbidden"}`,
			`{"path": "/{x}"}`, `{"path": "/{y}"}`),
			[]string{"body.routes[0].path", "body.routes[2].bogus", "body.routes[2].timeout", "body.routes[3].path", "body.routes[4].target_url", "body.routes[6]"}},
		{"twice the same", configOf(`{"path": "/there", "name": "there"}`, `{"path": "/there", "name": "other"}`), []string{"body.routes[1]"}},
		{"a field twice", `{"routes": [{"path": "/a", "path": "/b", "target_url": "http://a"}]}`, []string{"body.routes[0].path"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, query := range []string{"", "?dry_run=true"} {
				got := n.do(t, "PUT", "/api/config"+query, test.doc).want(422)
				wantDiff(t, test.want, got.locations())
			}
		})
	}
	got := n.do(t, "PUT", "/api/config?prune=false", configOf(`{"path": "/there", "method": "GET,POST"}`)).want(422)
	wantDiff(t, []string{"body.routes[0]"}, got.locations())
	if n.Table().Revision() != 1 {
		t.Error("something was changed")
	}
	n.do(t, "PUT", "/api/config", "{").want(400)
	n.do(t, "PUT", "/api/config", "", "Content-Type: application/json").want(400)
}

func TestPutConfigInYAML(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const doc = `
# Routes of the shop.
routes:
  - &orders
    path: /orders/{id}
    method: GET, POST
    target_url: http://127.0.0.1:9000
    headers: &headers {X-Env: "beta"}
    labels:
      on: "2"          # no boolean
      version: !!str 1.10
      since: 2024-01-01
    rate_limit: 0x10
    timeout: 60
  - path: /b
    target_url: http://127.0.0.1:9000
    headers: *headers
    cors: {max_age: -1}
    plugins:
      - handler: static_response
        body: |
          hello
          world
`
	n.put(t, "", doc, asYAML)
	var rows []object
	for _, r := range n.do(t, "GET", "/api/routes", "").items() {
		rows = append(rows, object{"path": r["path"], "headers": r["headers"], "labels": r["labels"], "rate_limit": r["rate_limit"], "plugins": r["plugins"]})
	}
	beta := object{"X-Env": "beta"}
	wantDiff(t, []object{
		{"path": "/orders/{id}", "headers": beta, "labels": object{"on": "2", "version": "1.10", "since": "2024-01-01"}, "rate_limit": 16.0, "plugins": nil},
		{"path": "/b", "headers": beta, "labels": nil, "rate_limit": 0.0, "plugins": []any{object{"handler": "static_response", "body": "hello\nworld\n"}}},
	}, rows)

	bomb := "a0: &a0 [x]\n"
	for i := 1; i < 40; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	for name, test := range map[string]struct {
		doc    string
		status int
		text   string
	}{
		"no YAML":        {"routes: [", 400, "not YAML"},
		"nothing":        {"# only a comment", 400, "empty"},
		"two documents":  {"routes: []\n---\nroutes: []\n", 400, "one YAML document"},
		"merge keys":     {"a: &a {x: 1}\nroutes:\n- <<: *a\n", 400, "line 3: merge keys"},
		"a bomb":         {bomb, 400, "values"},
		"a ring":         {"a: &a [*a]\n", 400, ""},
		"a list for key": {"? [a]\n: b\n", 400, "line 1"},
		"a tag":          {"routes: !!binary aGk=\n", 400, "!!binary"},
		"infinity":       {"routes:\n- timeout: .inf\n", 422, "line 2"},
		"a field twice":  {"routes: []\nroutes: []\n", 422, "more than once (line 2)"},
		"a wrong type":   {"routes:\n- path: /a\n  target_url: http://a\n  name: 5\n", 422, "body.routes[0].name"},
	} {
		a := n.do(t, "PUT", "/api/config", test.doc, asYAML).want(test.status)
		if !strings.Contains(string(a.text), test.text) {
			t.Errorf("%s: %s", name, a.text)
		}
	}
}

func TestConfigSecrets(t *testing.T) {
	t.Parallel()
	k := &keeper{node: newNode(t)}
	pair := k.keep(certtest.NewAuthority(t, "ca").Valid("one"))
	id := k.do(t, "POST", "/api/routes", withPair(pair.Certificate, pair.Key)).want(201).id()
	doc := string(k.do(t, "GET", "/api/config?format=yaml", "").want(200).text)
	if !strings.Contains(doc, "***") {
		t.Error("no mask in the document")
	}
	// A change elsewhere keeps the key.
	changed := strings.Replace(doc, "timeout: 30", "timeout: 31", 1)
	a := k.do(t, "PUT", "/api/config", changed, asYAML).want(200)
	wantDiff(t, []string{"updated /mutual timeout:30>31"}, brief(a.object()["changes"]))
	if k.stored(t, id) != pair.Key {
		t.Error("the key is another")
	}
	// The mask is no key for another route.
	got := k.do(t, "PUT", "/api/config?prune=false", strings.Replace(doc, "/mutual", "/other", 1), asYAML).want(422)
	wantDiff(t, []string{"body.routes[0].upstream.tls.key"}, got.locations())
}

func TestConfigOfSpoiltRows(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "routes.db")
	plainSQL(t, file,
		`INSERT INTO routes (path, target_url, method) VALUES ('/lower', 'http://a', 'get')`,
		`INSERT INTO routes (path, target_url) VALUES ('no-slash', 'http://a')`,
		`INSERT INTO routes (path, target_url, timeout) VALUES ('/early', 'http://a', -5)`,
		`INSERT INTO routes (path, target_url, spec) VALUES ('/unread', 'http://a', '{"bogus": 1}')`)
	n := nodeOn(t, "sqlite://"+file)
	doc := string(n.do(t, "GET", "/api/config", "").want(200).text)
	if strings.Contains(doc, "/unread") {
		t.Error("a route that can't be read is in the document")
	}
	o, _ := n.put(t, "", doc)
	if o["changed"] != false || o["unchanged"] != 3.0 || n.count(t) != 4 {
		t.Errorf("the answer is %v", o)
	}
	// Once it is touched, it must be right.
	got := n.do(t, "PUT", "/api/config", strings.Replace(doc, `"path": "no-slash"`, `"path": "no-slashes"`, 1)).want(422)
	if len(got.locations()) != 1 || !strings.HasSuffix(got.locations()[0], ".path") {
		t.Errorf("wrong: %v", got.locations())
	}
}
