package api_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestHostileBodies sends what a parser may stumble over: each is refused, none is
// stored, and none is the server's fault.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	// route is a valid one with a text or a value of the caller's in it.
	route := func(member string) string {
		return `{"path": "/a", "target_url": "http://x", ` + member + `}`
	}
	n := newNode(t)
	n.create(t, "/victim")
	for name, c := range map[string]struct {
		body   string
		status int
		where  string // in what a 422 says
	}{
		"empty":                  {" ", 400, ""},
		"cut off":                {`{"path": "/a", "target_url": "http`, 400, ""},
		"no JSON":                {`path=/a`, 400, ""},
		"trailing comma":         {route(`"timeout": 5,`), 400, ""},
		"trailing data":          {route(`"timeout": 5`) + `{}`, 400, ""},
		"trailing bracket":       {route(`"timeout": 5`) + `]`, 400, ""},
		"single quotes":          {`{'path': '/a'}`, 400, ""},
		"comment":                {route(`"timeout": 5 /* five */`), 400, ""},
		"byte order mark":        {"\ufeff" + route(`"timeout": 5`), 400, ""},
		"NaN":                    {route(`"timeout": NaN`), 400, ""},
		"Infinity":               {route(`"timeout": -Infinity`), 400, ""},
		"hexadecimal":            {route(`"timeout": 0x10`), 400, ""},
		"leading zero":           {route(`"timeout": 010`), 400, ""},
		"raw control character":  {route("\"name\": \"a\x01b\""), 400, ""},
		"raw NUL":                {route("\"name\": \"a\x00b\""), 400, ""},
		"invalid UTF-8":          {route("\"name\": \"\xff\""), 400, ""},
		"UTF-8 surrogate":        {route("\"name\": \"\xed\xa0\x80\""), 400, ""},
		"UTF-16":                 {"\xff\xfe{\x00}\x00", 400, ""},
		"arrays too deep":        {strings.Repeat("[", 100_000), 400, ""},
		"closed arrays too deep": {strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), 400, ""},
		"objects too deep":       {strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), 400, ""},
		"plugin too deep":        {route(`"plugins": [{"handler": "headers", "x": ` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}]`), 400, ""},

		"array":                   {`[]`, 422, "body"},
		"string":                  {`"x"`, 422, "body"},
		"null":                    {`null`, 422, "body"},
		"number":                  {`1`, 422, "body"},
		"duplicate field":         {route(`"path": "/b"`), 422, "body.path"},
		"duplicate by escape":     {route(`"p\u0061th": "/b"`), 422, "body.path"},
		"duplicate in a map":      {route(`"labels": {"a": "1", "a": "2"}`), 422, "body.labels.a"},
		"duplicate in a plugin":   {route(`"plugins": [{"handler": "encode", "handler": "exec"}]`), 422, "body.plugins[0].handler"},
		"duplicate in other case": {route(`"PATH": "/b"`), 422, "body.PATH"},
		"NUL":                     {route(`"name": "a\u0000b"`), 422, "body.name"},
		"NUL in a path":           {`{"path": "/a\u0000", "target_url": "http://x"}`, 422, "body.path"},
		"NUL in a plugin":         {route(`"plugins": [{"handler": "encode", "x": ["\u0000"]}]`), 422, "body.plugins[0].x[0]"},
		"NUL in a name":           {route(`"labels": {"\u0000": "x"}`), 422, "body.labels"},
		"NUL in an unknown field": {route(`"id": "\u0000"`), 422, "body.id"},
		"high surrogate":          {route(`"name": "\ud800"`), 422, "body.name"},
		"low surrogate":           {route(`"name": "\udc00 "`), 422, "body.name"},
		"swapped surrogates":      {route(`"name": "\udc00\ud800"`), 422, "body.name"},
		"high surrogate and text": {route(`"name": "\ud800\n\\udc00"`), 422, "body.name"},
		"surrogate in a name":     {route(`"labels": {"\uDFFF": "x"}`), 422, "body.labels"},
		"1e309":                   {route(`"timeout": 1e309`), 422, "body.timeout"},
		"1e309 in a plugin":       {route(`"plugins": [{"handler": "encode", "x": -1e309}]`), 422, "body.plugins[0].x"},
		"digits without end":      {route(`"rate_limit": 1` + strings.Repeat("0", 1000)), 422, "body.rate_limit"},
		"exponent":                {route(`"rate_limit": 1e2`), 422, "body.rate_limit"},
		"negative zero":           {route(`"rate_limit": -0.0`), 422, "body.rate_limit"},
		"long text":               {route(`"name": "` + strings.Repeat("x", 201) + `"`), 422, "body.name"},
		"long path":               {`{"path": "/` + strings.Repeat("x", 5000) + `", "target_url": "http://x"}`, 422, "body.path"},
		"many labels":             {route(`"labels": {` + manyMembers(65) + `}`), 422, "body.labels"},
		"many headers":            {route(`"headers": {` + manyMembers(33) + `}`), 422, "body.headers"},
		"prototype":               {route(`"__proto__": {"enabled": false}`), 422, "body.__proto__"},
		"empty name":              {route(`"": 1`), 422, "body."},
		"dotted name":             {route(`"upstream.protocol": "h2c"`), 422, "body.upstream.protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			for method, path := range map[string]string{"POST": "/api/routes", "PUT": "/api/routes/1", "PATCH": "/api/routes/1"} {
				a := n.do(t, method, path, c.body)
				if method == "PATCH" && name == "empty name" {
					continue
				}
				a.want(c.status)
				if c.where != "" && !contains(a.locations(), c.where) {
					t.Errorf("%s: the problem is not about %s: %s", method, c.where, a.text)
				}
			}
		})
	}
	if n.count(t) != 1 {
		t.Error("something hostile was stored")
	}
	if got := n.do(t, "GET", "/api/routes/1", "").object()["revision"]; got != 1.0 {
		t.Errorf("something hostile has changed a route: it is at revision %v", got)
	}
}

// TestHostileAnswersAreSmall: a request must not be able to make an answer that is
// much larger than itself.
func TestHostileAnswersAreSmall(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	long := strings.Repeat("k", 500_000)
	for name, body := range map[string]string{
		"unknown fields":        `{` + manyMembers(40_000) + `}`,
		"duplicates":            `{` + strings.Repeat(`"a": 1, `, 100_000) + `"a": 1}`,
		"NULs":                  `{"plugins": [` + strings.Repeat(`"\u0000",`, 100_000) + `1]}`,
		"long name over many":   `{"` + long + `": [` + strings.Repeat("1e999,", 80_000) + `1]}`,
		"long name":             `{"headers": {"` + long + `": "x"}}`,
		"long value":            `{"enabled": "` + long + `"}`,
		"long name of no field": `{"path": "/a", "target_url": "http://x", "headers": {"` + long + ` ": "x"}}`,
	} {
		a := n.do(t, "POST", "/api/routes", body).want(422)
		if len(a.text) > 64<<10 {
			t.Errorf("%s: the answer has %d bytes", name, len(a.text))
		}
	}
}

// TestPairedSurrogates is the other side: what is well-formed is kept.
func TestPairedSurrogates(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.create(t, "/a", `"name": "\ud83d\ude00 \\ud800 \u00e9 \" \\"`)
	if got, want := a.object()["name"], "😀 \\ud800 é \" \\"; got != want {
		t.Errorf("the name is %q, want %q", got, want)
	}
}

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const limit = 1 << 20
	prefix, suffix := `{"path": "/a", "target_url": "http://x"`, `}`
	fits := prefix + strings.Repeat(" ", limit-len(prefix)-len(suffix)) + suffix
	n.do(t, "POST", "/api/routes", fits).want(201)
	n.do(t, "POST", "/api/routes", fits+" ").want(413)
	n.do(t, "PUT", "/api/routes/1", fits+" ").want(413)

	// Without a length, too.
	req, err := http.NewRequestWithContext(t.Context(), "POST", n.url+"/api/routes", struct{ *strings.Reader }{strings.NewReader(fits + " ")})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	n.send(t, req).want(413)
	if n.count(t) != 1 {
		t.Error("a body over the limit was stored")
	}
}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/a")
	const body = `{"path": "/b", "target_url": "http://x"}`
	for fields, want := range map[string]int{
		"Content-Type: application/json":                    200,
		"Content-Type: Application/JSON; charset=UTF-8":     200,
		"Content-Type: application/json; charset=\"utf-8\"": 200,
		"Content-Type: application/json; charset=latin1":    415,
		"Content-Type: application/merge-patch+json":        415,
		"Content-Type: application/x-www-form-urlencoded":   415,
		"Content-Type: text/plain":                          415,
		"Content-Type: application/jsonp":                   415,
		"Content-Type: application/json, text/plain":        415,
		"Content-Type: ;":                                   415,
		"Content-Type: ":                                    415,
		"Content-Encoding: gzip":                            415,
		"Content-Encoding: identity":                        200,
	} {
		a := n.do(t, "PUT", "/api/routes/1", body, fields)
		a.want(want)
		if want == 415 && a.header.Get("Accept") != "application/json" {
			t.Errorf("%s: the answer does not say what is accepted", fields)
		}
	}
	n.do(t, "PATCH", "/api/routes/1", body, "Content-Type: text/json").want(415)
	for _, method := range []string{"PUT", "PATCH"} {
		n.do(t, method, "/api/routes/1", "").want(400)
	}
	n.do(t, "POST", "/api/routes", "").want(400)
}

func TestQueryStrings(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.create(t, "/a")
	for path, want := range map[string]int{
		"/api/routes?enable=true":                            422,
		"/api/routes?Enabled=true":                           422,
		"/api/routes?enabled=maybe":                          422,
		"/api/routes?enabled=":                               422,
		"/api/routes?enabled":                                422,
		"/api/routes?enabled&limit=5":                        422,
		"/api/routes?host=a&host=b":                          422,
		"/api/routes?limit=0":                                422,
		"/api/routes?limit=1001":                             422,
		"/api/routes?limit=x":                                422,
		"/api/routes?limit=99999999999999999999":             422,
		"/api/routes?cursor=x":                               422,
		"/api/routes?cursor=YWZ0ZXI6LTE":                     422, // after:-1
		"/api/consumers?cursor=YWZ0ZXI6MTA5OTUxMTYyNzc3Ng":   422, // after:1099511627776
		"/api/revisions/1?cursor=YWZ0ZXI6MTA5OTUxMTYyNzc3Ng": 422,
		"/api/routes?host=%zz":                               400,
		"/api/routes?a=1;b=2":                                400,
		"/api/routes/1?fields=id":                            422,
		"/api/status?verbose=1":                              422,
		"/api/openapi.json?x":                                422,
		"/health?cachebuster=1":                              200,
		"/api/routes?q=%00":                                  200,
		"/api/routes?label=a&label=b":                        200,
	} {
		n.do(t, "GET", path, "").want(want)
	}
	n.do(t, "DELETE", "/api/routes/1?dry_run=1", "").want(422)
	if n.count(t) != 1 {
		t.Error("a DELETE with an unknown option was carried out")
	}
}

// TestBrokenBody: the client says that more is to come, and leaves.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, head := range []string{
		"Content-Length: 1000\r\n\r\n{",
		"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /api/routes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s", head)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.1 400" {
			t.Errorf("the answer begins with %q, %v", answer, err)
		}
		_ = conn.Close()
	}
}

func manyMembers(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"X-%d": "x"`, i)
	}
	return strings.Join(members, ",")
}

func contains(all []string, one string) bool {
	return slices.Contains(all, one)
}
