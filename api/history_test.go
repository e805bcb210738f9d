package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/internal/certtest"
	"github.com/isekai-gateway/isekai/store"
)

// brief puts changes of routes into short texts.
func brief(changes any) []string {
	list, _ := changes.([]any)
	texts := []string{}
	for _, c := range list {
		c := c.(object)
		text := fmt.Sprint(c["action"], " ", c["path"])
		fields, _ := c["fields"].([]any)
		for _, f := range fields {
			f := f.(object)
			if c["action"] == "updated" {
				text += fmt.Sprintf(" %v:%v>%v", f["field"], f["from"], f["to"])
			}
		}
		texts = append(texts, text)
	}
	return texts
}

func (a answer) items() []object {
	a.t.Helper()
	var list []object
	for _, item := range a.object()["items"].([]any) {
		list = append(list, item.(object))
	}
	return list
}

func wantDiff(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRevisions(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.create(t, "/a", `"limits": {"window": 10}`, `"rate_limit": 5`).id()
	n.do(t, "PATCH", pathOf(a), `{"timeout": 10, "limits": {"window": 20}, "labels": {"x": "y"}}`).want(200)
	n.do(t, "DELETE", pathOf(a), "").want(204)
	n.do(t, "POST", pathOf(a)+"/restore", "").want(200)
	key := n.do(t, "POST", "/api/consumers", `{"name": "shop", "labels": {"team": "x"}}`).want(201)
	n.do(t, "PATCH", fmt.Sprintf("/api/consumers/%d", key.id()), `{"enabled": false, "labels": {"team": "z"}}`).want(200)
	n.do(t, "POST", fmt.Sprintf("/api/consumers/%d/keys", key.id()), `{"expires_at": "2030-01-02T00:00:00Z"}`).want(201)

	all := n.do(t, "GET", "/api/revisions", "").want(200).items()
	var got []string
	for _, r := range all {
		if r["actor"] != "admin" || r["source"] != "127.0.0.1" {
			t.Errorf("revision %v is by %v from %v", r["revision"], r["actor"], r["source"])
		}
		if at, err := time.Parse(time.RFC3339, r["time"].(string)); err != nil || time.Since(at) > time.Hour {
			t.Errorf("revision %v was made at %v", r["revision"], r["time"])
		}
		text := fmt.Sprintf("%v: %s", r["revision"], strings.Join(brief(r["routes"]), ", "))
		for _, c := range r["credentials"].([]any) {
			c := c.(object)
			text += fmt.Sprintf("%v %v", c["action"], c["kind"])
			if c["action"] == "updated" {
				text += fmt.Sprint(c["fields"])
			}
		}
		got = append(got, text)
	}
	wantDiff(t, []string{
		"7: created api_key",
		"6: updated consumer[map[field:enabled from:true to:false] map[field:labels.team from:x to:z]]",
		"5: created consumer",
		"4: restored /a",
		"3: deleted /a",
		"2: updated /a labels:<nil>>map[x:y] limits.window:10>20 timeout:30>10",
		"1: created /a",
	}, got)

	// Pages and filters.
	page := n.do(t, "GET", "/api/revisions?limit=3", "").want(200).object()
	next := n.do(t, "GET", "/api/revisions?limit=4&cursor="+page["next"].(string), "").want(200).object()
	numbers := func(o object) (list []float64) {
		for _, item := range o["items"].([]any) {
			list = append(list, item.(object)["revision"].(float64))
		}
		return list
	}
	wantDiff(t, []float64{7, 6, 5}, numbers(page))
	wantDiff(t, []float64{4, 3, 2, 1}, numbers(next))
	if next["next"] != nil {
		t.Error("there is a page after the last")
	}
	for query, want := range map[string][]float64{
		fmt.Sprint("route=", a):                            {4, 3, 2, 1},
		"actor=admin&limit=2":                              {7, 6},
		"actor=nobody":                                     nil,
		"to=2020-01-01T00:00:00Z":                          nil,
		"from=2020-01-01T00:00:00Z&route=" + fmt.Sprint(a): {4, 3, 2, 1},
	} {
		wantDiff(t, want, numbers(n.do(t, "GET", "/api/revisions?"+query, "").want(200).object()))
	}
	n.do(t, "GET", "/api/revisions?cursor=nonsense", "").want(422)

	// One as a whole.
	whole := n.do(t, "GET", "/api/revisions/2", "").want(200).object()
	change := whole["routes"].([]any)[0].(object)
	if before, after := change["before"].(object), change["after"].(object); before["timeout"] != 30.0 || after["timeout"] != 10.0 || after["revision"] != 2.0 {
		t.Errorf("before %v, after %v", before, after)
	}
	n.do(t, "GET", "/api/revisions/8", "").want(404)
}

func TestRevisionOfManyRoutes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.do(t, "POST", "/api/routes/batch", batchOf(50, "create")).want(200)
	listed := n.do(t, "GET", "/api/revisions", "").want(200).items()[0]
	if len(listed["routes"].([]any)) != 20 || listed["total_routes"] != 50.0 {
		t.Errorf("%d of %v routes are listed", len(listed["routes"].([]any)), listed["total_routes"])
	}
	seen := 0
	for path := "/api/revisions/1?limit=30"; path != ""; {
		page := n.do(t, "GET", path, "").want(200).object()
		seen += len(page["routes"].([]any))
		path = ""
		if next, ok := page["next"].(string); ok {
			path = "/api/revisions/1?limit=30&cursor=" + next
		}
	}
	if seen != 50 {
		t.Errorf("%d of 50 routes in all pages", seen)
	}
}

// secretRoute returns members of a route that holds a private key and a cookie secret.
func secretRoute(t *testing.T) (members string, secrets []string) {
	t.Helper()
	pair := certtest.NewAuthority(t, "ca").Valid("client")
	quoted := func(s string) string { text, _ := json.Marshal(s); return string(text) }
	return fmt.Sprintf(`"upstream": {"policy": "cookie", "policy_options": {"name": "lb", "secret": "planted-cookie-secret"}, "tls": {"certificate": %s, "key": %s}}`,
		quoted(pair.Certificate), quoted(pair.Key)), []string{"planted-cookie-secret", "PRIVATE KEY"}
}

func TestHistoryKeepsSecrets(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	members, secrets := secretRoute(t)
	id := n.do(t, "POST", "/api/routes", fmt.Sprintf(`{"path": "/s", "target_url": "https://10.0.0.1", %s}`, members)).want(201).id()
	n.do(t, "PATCH", pathOf(id), `{"upstream": {"policy_options": {"secret": "planted-cookie-secret-2"}}}`).want(200)
	row, _, _ := n.Get(id)
	n.do(t, "DELETE", pathOf(id), "").want(204)
	n.create(t, "/other")
	var answers []answer
	for _, path := range []string{"/api/revisions", "/api/revisions/1", "/api/revisions/2", "/api/revisions/3", "/api/config?revision=2", "/api/config?revision=2&format=yaml"} {
		answers = append(answers, n.do(t, "GET", path, "").want(200))
	}
	answers = append(answers,
		n.do(t, "POST", "/api/revisions/2/rollback?dry_run=true", "").want(200),
		n.do(t, "POST", "/api/revisions/2/rollback", "").want(200))
	for _, a := range answers {
		for _, secret := range secrets {
			if strings.Contains(string(a.text), secret) {
				t.Errorf("%s shows %q", a.what, secret)
			}
		}
	}
	// A change of a secret is told, though not what it is.
	change := n.do(t, "GET", "/api/revisions/2", "").object()["routes"].([]any)
	wantDiff(t, []string{"updated /s upstream.policy_options.secret:***>***"}, brief(change))
	// Going back brings the secrets back.
	now, _, _ := n.Get(id)
	if !gateway.SameContent(row, now) || now.Upstream.CookieSecret() != "planted-cookie-secret-2" || now.Upstream.TLS.Key == store.Mask {
		t.Error("the route is not what it was")
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a, b, c := n.create(t, "/a").id(), n.create(t, "/b").id(), n.create(t, "/c").id()
	before := n.do(t, "GET", "/api/config", "").want(200).text
	// a and b change places; c goes, d comes.
	n.do(t, "PATCH", pathOf(a), `{"path": "/x"}`).want(200)
	n.do(t, "PATCH", pathOf(b), `{"path": "/a"}`).want(200)
	n.do(t, "PATCH", pathOf(a), `{"path": "/b", "timeout": 1}`).want(200)
	n.do(t, "DELETE", pathOf(c), "").want(204)
	d := n.create(t, "/d").id()
	n.create(t, "/c", `"name": "another"`)
	if n.Table().Revision() != 9 {
		t.Fatalf("revision %d", n.Table().Revision())
	}

	want := []string{"updated /a path:/b>/a timeout:1>30", "updated /b path:/a>/b", "restored /c", "deleted /d", "deleted /c"}
	dry := n.do(t, "POST", "/api/revisions/3/rollback?dry_run=true", "").want(200).object()
	wantDiff(t, want, brief(dry["changes"]))
	if dry["dry_run"] != true || dry["changed"] != true || dry["revision"] != 9.0 || n.Table().Revision() != 9 {
		t.Errorf("the dry run answers %v", dry)
	}
	n.do(t, "POST", "/api/revisions/3/rollback?if_revision=8", "").want(412)

	done := n.do(t, "POST", "/api/revisions/3/rollback?if_revision=9", "").want(200).object()
	wantDiff(t, want, brief(done["changes"]))
	if done["revision"] != 10.0 || done["updated"] != 2.0 || done["restored"] != 1.0 || done["deleted"] != 2.0 || done["created"] != 0.0 {
		t.Errorf("the answer is %v", done)
	}
	wantDiff(t, string(before), string(n.do(t, "GET", "/api/config", "").text))
	for id, path := range map[int64]string{a: "/a", b: "/b", c: "/c"} {
		if got := n.do(t, "GET", pathOf(id), "").want(200).object()["path"]; got != path {
			t.Errorf("route %d is at %v", id, got)
		}
	}
	n.do(t, "GET", pathOf(d), "").want(404)

	// Back and forth, and nothing to do.
	again := n.do(t, "POST", "/api/revisions/3/rollback", "").want(200).object()
	if again["changed"] != false || again["revision"] != 10.0 || n.Table().Revision() != 10 {
		t.Errorf("the answer is %v", again)
	}
	n.do(t, "POST", "/api/revisions/10/rollback", "").want(200)
	n.do(t, "POST", "/api/revisions/9/rollback", "").want(200)
	n.do(t, "GET", pathOf(d), "").want(200)
	n.do(t, "POST", "/api/revisions/99/rollback", "").want(404)
	n.do(t, "GET", "/api/config?revision=99", "").want(404)

	if _, err := n.Store().PruneHistory(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if a := n.do(t, "POST", "/api/revisions/3/rollback", "").want(404); !strings.Contains(string(a.text), "does not reach back") {
		t.Errorf("the answer is %s", a.text)
	}
}

func TestRollbackToWhatIsNotAllowedAnyMore(t *testing.T) {
	t.Parallel()
	forbidden := ""
	n := newNode(t, checkOf(&forbidden))
	id := n.create(t, "/a").id()
	n.do(t, "PATCH", pathOf(id), `{"target_url": "http://127.0.0.1:9001"}`).want(200)
	n.create(t, "/b")
	forbidden = "http://127.0.0.1:9000"
	a := n.do(t, "POST", "/api/revisions/1/rollback", "").want(422)
	wantDiff(t, []string{fmt.Sprintf("routes.%d.target_url", id)}, a.locations())
	if n.Table().Revision() != 3 || n.count(t) != 2 {
		t.Error("something was changed")
	}
}

func TestWhatHasExpiredDoesNotComeBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	pair := certtest.NewAuthority(t, "ca").Issue("old", time.Now().Add(-time.Hour))
	row := store.NewRoute("/mutual", "https://10.0.0.5")
	row.Upstream = &store.Upstream{TLS: &store.UpstreamTLS{Certificate: pair.Certificate, Key: pair.Key}}
	row, err := n.Store().Create(t.Context(), row, store.Author{}) // as if it had been valid then
	if err != nil {
		t.Fatal(err)
	}
	n.create(t, "/other")
	// As long as it is there it may stay.
	n.do(t, "POST", "/api/revisions/1/rollback", "").want(200)
	n.do(t, "DELETE", pathOf(row.ID), "").want(204)
	rollback := n.do(t, "POST", "/api/revisions/1/rollback", "").want(422)
	wantDiff(t, []string{fmt.Sprintf("routes.%d.upstream.tls.certificate", row.ID)}, rollback.locations())
	restore := n.do(t, "POST", pathOf(row.ID)+"/restore", "").want(422)
	wantDiff(t, []string{"body.upstream.tls.certificate"}, restore.locations())
}

func TestRestore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id := n.create(t, "/a", `"name": "old"`).id()
	n.do(t, "POST", pathOf(id)+"/restore", "").want(409)
	n.do(t, "POST", "/api/routes/99/restore", "").want(404)
	n.do(t, "DELETE", pathOf(id), "").want(204)
	other := n.create(t, "/a").id()
	if c := n.do(t, "POST", pathOf(id)+"/restore", "").want(409).object()["conflict"].(object); c["id"] != float64(other) {
		t.Errorf("the conflict is with %v", c)
	}
	n.do(t, "DELETE", pathOf(other), "").want(204)
	restored := n.do(t, "POST", pathOf(id)+"/restore", "").want(200)
	if o := restored.object(); o["id"] != float64(id) || o["name"] != "old" || restored.header.Get("ETag") != fmt.Sprintf(`"%d-5"`, id) {
		t.Errorf("restored %v", o)
	}
	n.do(t, "GET", pathOf(id), "").want(200)
}

// batchOf returns a batch that creates n routes.
func batchOf(n int, op string) string {
	operations := make([]string, n)
	for i := range operations {
		operations[i] = fmt.Sprintf(`{"op": %q, "route": {"path": "/%d", "target_url": "http://127.0.0.1:9000"}}`, op, i)
	}
	return `{"operations": [` + strings.Join(operations, ",") + `]}`
}

func TestBatch(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a, b, c := n.create(t, "/a").id(), n.create(t, "/b").id(), n.create(t, "/c").id()
	body := fmt.Sprintf(`{"operations": [
		{"op": "create", "route": {"path": "/c", "target_url": "http://127.0.0.1:9000", "name": "new"}},
		{"op": "update", "id": %d, "route": {"path": "/b", "target_url": "http://127.0.0.1:9000"}},
		{"op": "patch", "id": %d, "if_match": 2, "route": {"path": "/a"}},
		{"op": "patch", "id": %d, "route": {"timeout": 5}},
		{"op": "delete", "id": %d}]}`, a, b, b, c)
	want := []string{"created /c", "updated /b path:/a>/b", "updated /a path:/b>/a timeout:30>5", "deleted /c"}
	dry := n.do(t, "POST", "/api/routes/batch?dry_run=true", body).want(200).object()
	wantDiff(t, want, brief(dry["changes"]))
	if n.Table().Revision() != 3 {
		t.Error("a dry run has changed something")
	}
	done := n.do(t, "POST", "/api/routes/batch", body).want(200)
	wantDiff(t, want, brief(done.object()["changes"]))
	created := int64(done.items()[0]["id"].(float64))
	wantDiff(t, []object{
		{"id": float64(created), "revision": 4.0}, {"id": float64(a), "revision": 4.0},
		{"id": float64(b), "revision": 4.0}, {"id": float64(b), "revision": 4.0}, {"id": float64(c)},
	}, done.items())
	if got := n.do(t, "GET", pathOf(created), "").want(200).object(); got["name"] != "new" || got["revision"] != 4.0 {
		t.Errorf("created %v", got)
	}
	// What changes nothing makes no revision.
	none := n.do(t, "POST", "/api/routes/batch", fmt.Sprintf(`{"operations": [{"op": "patch", "id": %d, "route": {"timeout": 5}}]}`, b)).want(200).object()
	if none["changed"] != false || n.Table().Revision() != 4 {
		t.Errorf("the answer is %v", none)
	}
}

func TestBatchErrors(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.create(t, "/a").id()
	for _, test := range []struct {
		name, body string
		status     int
		want       []string
	}{
		{"not an object", `[]`, 422, []string{"body"}},
		{"no operations", `{}`, 422, []string{"body.operations"}},
		{"unknown field", `{"operations": [], "x": 1}`, 422, []string{"body.x"}},
		{"unknown op", `{"operations": [{"op": "move", "id": 1}]}`, 422, []string{"body.operations[0].op"}},
		{"what must not be there", `{"operations": [{"op": "create", "id": 1, "if_match": 1, "route": {}}, {"op": "delete", "id": 1, "route": {}}]}`, 422,
			[]string{"body.operations[0].id", "body.operations[0].if_match", "body.operations[1].route"}},
		{"what is missing", `{"operations": [{"op": "create"}, {"op": "delete"}]}`, 422, []string{"body.operations[0].route", "body.operations[1].id"}},
		{"bad routes", `{"operations": [{"op": "create", "route": {"path": "x", "bogus": 1}}, {"op": "create", "route": {"path": "/ok", "target_url": "http://a"}}, {"op": "patch", "id": 1, "route": {"timeout": "x"}}]}`, 422,
			[]string{"body.operations[0].route.bogus", "body.operations[0].route.path", "body.operations[0].route.target_url", "body.operations[2].route.timeout"}},
		{"not found", `{"operations": [{"op": "delete", "id": 1}, {"op": "delete", "id": 1}, {"op": "patch", "id": 77, "route": {}}]}`, 404,
			[]string{"body.operations[1].id", "body.operations[2].id"}},
		{"stale", `{"operations": [{"op": "delete", "id": 1, "if_match": 9}]}`, 412, []string{"body.operations[0].if_match"}},
		{"conflict with a route", `{"operations": [{"op": "create", "route": {"path": "/a", "target_url": "http://a"}}]}`, 409, []string{"body.operations[0]"}},
		{"conflict within", `{"operations": [{"op": "create", "route": {"path": "/{x}", "target_url": "http://a"}}, {"op": "create", "route": {"path": "/{y}", "target_url": "http://a"}}]}`, 409,
			[]string{"body.operations[1]"}},
		{"different kinds", `{"operations": [{"op": "delete", "id": 7}, {"op": "delete", "id": 1, "if_match": 9}]}`, 422,
			[]string{"body.operations[0].id", "body.operations[1].if_match"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := n.do(t, "POST", "/api/routes/batch", test.body).want(test.status)
			wantDiff(t, test.want, got.locations())
		})
	}
	if n.Table().Revision() != 1 || n.count(t) != 1 {
		t.Error("something was changed")
	}
	n.do(t, "GET", pathOf(a), "").want(200)
	n.do(t, "POST", "/api/routes/batch", "{}", "Content-Type: text/plain").want(415)
	n.do(t, "POST", "/api/routes/batch", "{").want(400)
	for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
		if got := n.do(t, method, "/api/routes/batch", "").want(405).header.Get("Allow"); got != "POST" {
			t.Errorf("Allow is %q", got)
		}
	}
}

func TestBatchOfTenThousand(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	body := batchOf(10_000, "create")
	begin := time.Now()
	done := n.do(t, "POST", "/api/routes/batch", body).want(200).object()
	t.Logf("it took %v", time.Since(begin))
	if done["created"] != 10_000.0 || n.Table().Revision() != 1 || n.Table().Served() != 10_000 {
		t.Errorf("%v created, revision %d, %d served", done["created"], n.Table().Revision(), n.Table().Served())
	}
	n.do(t, "POST", "/api/routes/batch", batchOf(10_001, "create")).want(422)
}

func TestBulkMeetsOtherWriters(t *testing.T) {
	t.Parallel()
	dsn := newDSN(t)
	n, other := nodeOn(t, dsn), nodeOn(t, dsn)
	// Another node writes past this one, whose table is behind.
	for i := range 5 {
		other.create(t, fmt.Sprint("/other", i))
		n.do(t, "POST", "/api/routes/batch", fmt.Sprintf(`{"operations": [{"op": "create", "route": {"path": "/own%d", "target_url": "http://a"}}]}`, i)).want(200)
	}
	a := n.do(t, "POST", "/api/routes/batch", `{"operations": [{"op": "create", "route": {"path": "/other4", "target_url": "http://a"}}]}`)
	a.want(409)
	if n.count(t) != 10 {
		t.Errorf("%d routes", n.count(t))
	}
}

func TestBulkWithoutStore(t *testing.T) {
	t.Parallel()
	g := openGateway(t, newDSN(t))
	n := serve(t, g) // never started
	for _, test := range []struct{ method, path, body string }{
		{"POST", "/api/routes/batch", batchOf(1, "create")},
		{"PUT", "/api/config", `{"routes": []}`},
		{"GET", "/api/config", ""},
		{"POST", "/api/revisions/1/rollback", ""},
	} {
		n.do(t, test.method, test.path, test.body).want(http.StatusServiceUnavailable)
	}
}

// checkOf refuses routes to a target.
func checkOf(forbidden *string) func(*api.Config) {
	return func(c *api.Config) { c.Check = refuseTarget(forbidden) }
}

func refuseTarget(forbidden *string) func(context.Context, *store.Route) error {
	return func(_ context.Context, row *store.Route) error {
		if row.TargetURL == *forbidden {
			return store.FieldErrors{{Field: "target_url", Message: "is not allowed"}}
		}
		return nil
	}
}
