package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// changed is what a change of many routes answers, as far as tests look at it.
type changed struct {
	Changed  bool  `json:"changed"`
	Revision int64 `json:"revision"`
	Created  int   `json:"created"`
	Updated  int   `json:"updated"`
	Deleted  int   `json:"deleted"`
	Restored int   `json:"restored"`
	Changes  []struct {
		Action string `json:"action"`
		Path   string `json:"path"`
		Fields []struct {
			Field    string `json:"field"`
			From, To any
		} `json:"fields"`
	} `json:"changes"`
}

func (c changed) String() string {
	return fmt.Sprintf("%v: %d created, %d updated, %d deleted, %d restored", c.Changed, c.Created, c.Updated, c.Deleted, c.Restored)
}

// bulk makes a change of many routes, which must be accepted.
func (g *gateway) bulk(method, path string, body any, media string) changed {
	g.t.Helper()
	a, err := g.tryCall(method, path, body, http.Header{"Content-Type": {media}})
	if err != nil || a.status != http.StatusOK {
		g.t.Fatalf("%s %s: %.500s, %v", method, path, a, err)
	}
	var c changed
	a.decode(g.t, &c)
	return c
}

// TestWholeDocuments changes a thousand routes back and forth under load.
func TestWholeDocuments(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		g := startGateway(t, settings{dsn: dsn})
		one, two := textUpstream(t, "one"), textUpstream(t, "two")
		doc := func(from, to int, target func(i int) string) string {
			var b strings.Builder
			b.WriteString("routes:\n")
			for i := from; i < to; i++ {
				fmt.Fprintf(&b, "- {name: r%d, path: '/r%d/{id}', target_url: '%s/'}\n", i, i, target(i))
			}
			return b.String()
		}
		const yaml = "application/yaml"
		first := g.bulk(http.MethodPut, "/api/config", []byte(doc(0, 1000, func(int) string { return one })), yaml)
		if first.Created != 1000 || first.Revision != 1 {
			t.Fatalf("%s at %d", first, first.Revision)
		}
		before := g.call(http.MethodGet, "/api/config", nil)
		// Neither of them is gone at any time; the second changes its target.
		stays := g.startLoad(2, "/r10/x", is("one"))
		moves := g.startLoad(2, "/r500/x", func(body string) bool { return body == "one" || body == "two" })
		stays.more(20)

		next := doc(10, 1100, func(i int) string {
			if i >= 500 {
				return two
			}
			return one
		})
		const want = "true: 100 created, 500 updated, 10 deleted, 0 restored"
		dry := g.bulk(http.MethodPut, "/api/config?dry_run=true", []byte(next), yaml)
		if dry.String() != want || len(dry.Changes) != 610 || dry.Revision != 1 {
			t.Errorf("the dry run says %s, %d changes, revision %d", dry, len(dry.Changes), dry.Revision)
		}
		for _, c := range dry.Changes {
			if c.Path == "/r500/{id}" && (len(c.Fields) != 1 || c.Fields[0].Field != "target_url" || c.Fields[0].To != two+"/") {
				t.Errorf("it says of %s: %+v", c.Path, c.Fields)
			}
		}
		g.wantBody("/r500/x", "one")
		for range 3 {
			if done := g.bulk(http.MethodPut, "/api/config", []byte(next), yaml); done.String() != want {
				t.Errorf("applied %s", done)
			}
			// The answer comes when all of it is served.
			g.wantBody("/r500/x", "two")
			g.wantBody("/r1099/x", "two")
			if a := g.send(http.MethodGet, "/r5/x"); a.status != http.StatusNotFound {
				t.Errorf("a route that is not in the document answers %s", a)
			}
			stays.more(20)
			back := g.bulk(http.MethodPost, "/api/revisions/1/rollback", nil, yaml)
			if back.String() != "true: 0 created, 500 updated, 100 deleted, 10 restored" {
				t.Errorf("rolled back: %s", back)
			}
			g.wantBody("/r500/x", "one")
			g.wantBody("/r5/x", "one")
			stays.more(20)
		}
		stays.wantNoLoss()
		moves.wantNoLoss()
		after := g.call(http.MethodGet, "/api/config", nil)
		if string(after.body) != string(before.body) {
			t.Error("the document is not what it was")
		}
		if again := g.bulk(http.MethodPut, "/api/config", before.body, "application/json"); again.Changed || again.Revision != 7 {
			t.Errorf("putting what is there: %s at %d", again, again.Revision)
		}
		var list struct {
			Items []struct {
				TotalRoutes int `json:"total_routes"`
			} `json:"items"`
		}
		g.call(http.MethodGet, "/api/revisions", nil).decode(t, &list)
		if len(list.Items) != 7 || list.Items[0].TotalRoutes != 610 || list.Items[6].TotalRoutes != 1000 {
			t.Errorf("the history is %+v", list)
		}
	})
}
