package api_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// filled returns a node with n routes but for every 97th, and their ids.
func filled(t *testing.T, n int) (*node, []int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "routes.db")
	// In one statement: thousands of writes take long where the race detector looks on.
	plainSQL(t, file, fmt.Sprintf(`INSERT INTO routes (path, target_url)
		WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < %d)
		SELECT '/r/' || i, 'http://127.0.0.1:9000' FROM numbers WHERE %d > 0`, n, n),
		`UPDATE routes SET deleted_at = updated_at WHERE id % 97 = 0`)
	var want []int64
	for id := int64(1); id <= int64(n); id++ {
		if id%97 != 0 {
			want = append(want, id)
		}
	}
	return nodeOn(t, "sqlite://"+file), want
}

func (a answer) ids() []int64 {
	a.t.Helper()
	ids := []int64{}
	for _, item := range a.object()["items"].([]any) {
		ids = append(ids, int64(item.(object)["id"].(float64)))
	}
	return ids
}

func TestPaging(t *testing.T) {
	t.Parallel()
	n, want := filled(t, 2500)
	for _, limit := range []int{0, 1000, 7, len(want) / 3} { // 0: the default
		var got []int64
		next := ""
		for {
			query := url.Values{}
			if limit > 0 {
				query.Set("limit", fmt.Sprint(limit))
			}
			if next != "" {
				query.Set("cursor", next)
			}
			page := n.do(t, "GET", "/api/routes?"+query.Encode(), "").want(200)
			ids := page.ids()
			got = append(got, ids...)
			next, _ = page.object()["next"].(string)
			if next == "" {
				break
			}
			if most := max(limit, 100*(1-min(limit, 1))); len(ids) != most {
				t.Fatalf("limit %d: a page of %d with another after it", limit, len(ids))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %d routes in pages, %d in all, or in another order", limit, len(got), len(want))
		}
	}
}

// TestPagingExactly: there is no empty page at the end.
func TestPagingExactly(t *testing.T) {
	t.Parallel()
	n, _ := filled(t, 4)
	page := n.do(t, "GET", "/api/routes?limit=2", "").want(200)
	second := n.do(t, "GET", "/api/routes?limit=2&cursor="+page.object()["next"].(string), "").want(200)
	if diff := cmp.Diff([]int64{3, 4}, second.ids()); diff != "" || second.object()["next"] != nil {
		t.Errorf("the last page is %s", second.text)
	}
	empty, _ := filled(t, 0)
	if a := empty.do(t, "GET", "/api/routes", "").want(200); string(a.text) != "{\"items\":[]}\n" {
		t.Errorf("no routes are %q", a.text)
	}
}

// TestPagingWhileWriting: what is deleted and made between two pages moves nothing.
func TestPagingWhileWriting(t *testing.T) {
	t.Parallel()
	n, _ := filled(t, 6)
	page := n.do(t, "GET", "/api/routes?limit=3", "").want(200)
	n.do(t, "DELETE", "/api/routes/1", "").want(204)
	n.do(t, "DELETE", "/api/routes/3", "").want(204)
	n.create(t, "/new")
	second := n.do(t, "GET", "/api/routes?limit=3&cursor="+page.object()["next"].(string), "").want(200)
	if diff := cmp.Diff([]int64{4, 5, 6}, second.ids()); diff != "" {
		t.Errorf("the second page (-want +got):\n%s", diff)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, body := range []string{
		`{"name": "Orders", "host": "api.example.com", "path": "/orders/{id}", "method": "GET,POST", "target_url": "http://10.0.0.5:9000", "labels": {"team": "shop", "tier": "1"}}`,
		`{"name": "carts", "host": "api.example.com", "path": "/carts", "method": "*", "target_url": "http://carts.internal", "labels": {"team": "shop"}}`,
		`{"host": "*.example.com", "path": "/orders", "enabled": false, "target_url": "http://10.0.0.6", "labels": {"team": "web", "a=b": "c"}}`,
		`{"path": "/%C3%BC/*", "method": "DELETE", "target_url": "http://10.0.0.7"}`,
	} {
		n.do(t, "POST", "/api/routes", body).want(201)
	}
	for query, want := range map[string][]int64{
		"":                                  {1, 2, 3, 4},
		"host=API.Example.com":              {1, 2},
		"host=*.example.com":                {3},
		"host=example.com":                  {},
		"path=/orders":                      {1, 3},
		"path=/orders/":                     {1},
		"path=/Orders":                      {},
		"path=orders":                       {},
		"method=post":                       {1, 2},
		"method=GET":                        {1, 2, 3},
		"method=DELETE":                     {2, 4},
		"method=*":                          {2},
		"method=GE":                         {2}, // any method is served by *
		"enabled=true":                      {1, 2, 4},
		"enabled=false":                     {3},
		"label=team":                        {1, 2, 3},
		"label=team=shop":                   {1, 2},
		"label=team=shop&label=tier":        {1},
		"label=team=shop&label=team=web":    {},
		"label=team=sh":                     {},
		"label=Team":                        {},
		"label=a,b":                         {},
		"q=ORDERS":                          {1, 3},
		"q=10.0.0":                          {1, 3, 4},
		"q=.internal":                       {2},
		"q=api.ex":                          {1, 2},
		"q=nothing":                         {},
		"q=orders&enabled=true&method=POST": {1},
		"limit=1&enabled=false":             {3},
		"path=/orders&host=*.example.com&limit=1000": {3},
	} {
		if diff := cmp.Diff(want, n.do(t, "GET", "/api/routes?"+query, "").want(200).ids()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}
