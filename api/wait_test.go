package api_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// silent puts a replica into the store that has reported now and does nothing more.
func silent(t *testing.T, dsn, id string, revision int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(dsn, "sqlite://")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `INSERT OR REPLACE INTO replicas
			(id, address, pid, version, applied_revision, failed_routes, started_at, heartbeat_at)
		VALUES (?, 'edge-2', 7, 'v1', ?, '[{"id":3,"error":"bad"}]', '2030-01-02 03:04:05+00:00', strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'))`, id, revision)
	if err != nil {
		t.Fatal(err)
	}
}

const silentID = "0190163d-8694-739b-aea5-966c26f8ad91"

func TestWritesWaitForReplicas(t *testing.T) {
	t.Parallel()
	dsn := newDSN(t)
	n := nodeOn(t, dsn)
	// Alone, a node waits for itself.
	const wait = "?wait=applied&timeout=20s"
	for _, step := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/api/routes", `{"path":"/a","target_url":"http://10.0.0.1"}`, 201},
		{"PUT", "/api/routes/1", `{"path":"/b","target_url":"http://10.0.0.1"}`, 200},
		{"PATCH", "/api/routes/1", `{"name":"b"}`, 200},
		{"POST", "/api/consumers", `{"name":"shop"}`, 201},
		{"PUT", "/api/consumers/1", `{"name":"shop"}`, 200},
		{"PATCH", "/api/consumers/1", `{"name":"store"}`, 200},
		{"POST", "/api/consumers/1/keys", `{}`, 201},
		{"POST", "/api/tokens", `{"name":"ci","role":"read"}`, 201},
		{"DELETE", "/api/consumers/1", "", 204},
		{"DELETE", "/api/routes/1", "", 204},
	} {
		n.do(t, step.method, step.path+wait, step.body).want(step.status)
	}

	silent(t, dsn, silentID, 3)
	a := n.do(t, "POST", "/api/routes?wait=applied&timeout=0s", `{"path":"/late","target_url":"http://10.0.0.1"}`).want(http.StatusGatewayTimeout)
	var late struct {
		Revision int64
		Laggards []object
		Result   struct {
			ID   int64
			Path string
		}
	}
	if err := json.Unmarshal(a.text, &late); err != nil {
		t.Fatal(err)
	}
	// This node may be among them, since it reports in the background.
	if last := late.Laggards[len(late.Laggards)-1]; cmp.Diff(object{"id": silentID, "address": "edge-2", "revision": 3.0}, last) != "" {
		t.Errorf("laggards %v", late.Laggards)
	}
	if late.Revision != 11 || late.Result.Path != "/late" {
		t.Errorf("revision %d, result %+v", late.Revision, late.Result)
	}
	n.do(t, "GET", fmt.Sprint("/api/routes/", late.Result.ID), "").want(200)

	a = n.do(t, "POST", "/api/tokens?wait=applied&timeout=1ms", `{"name":"late","role":"read"}`).want(http.StatusGatewayTimeout)
	var made struct{ Result struct{ ID, Token string } }
	if err := json.Unmarshal(a.text, &made); err != nil || !strings.HasPrefix(made.Result.Token, "ist_") {
		t.Errorf("the token is lost: %s, %v", a.text, err)
	}
	n.do(t, "DELETE", "/api/tokens/"+made.Result.ID+"?wait=applied&timeout=0s", "").want(http.StatusGatewayTimeout)

	silent(t, dsn, silentID, 14)
	n.do(t, "PATCH", fmt.Sprint("/api/routes/", late.Result.ID, wait), `{"name":"c"}`).want(200)
}

func TestBadWaits(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for query, location := range map[string]string{
		"wait=served":                   "query.wait",
		"timeout=5s":                    "query.wait",
		"wait=applied&timeout=61s":      "query.timeout",
		"wait=applied&timeout=-1s":      "query.timeout",
		"wait=applied&timeout=5":        "query.timeout",
		"wait=applied&timeout=":         "query.timeout",
		"wait=applied&wait=applied":     "query.wait",
		"wait=applied&patience=endless": "query.patience",
	} {
		a := n.do(t, "POST", "/api/routes?"+query, `{"path":"/a","target_url":"http://10.0.0.1"}`).want(http.StatusUnprocessableEntity)
		if !strings.Contains(string(a.text), `"location":"`+location+`"`) {
			t.Errorf("%s: %s", query, a.text)
		}
	}
	n.do(t, "GET", "/api/routes?wait=applied", "").want(http.StatusUnprocessableEntity)
	if n.Table().Len() != 0 {
		t.Error("something was written")
	}
}

func TestReplicas(t *testing.T) {
	t.Parallel()
	dsn := newDSN(t)
	n := nodeOn(t, dsn)
	n.do(t, "POST", "/api/routes?wait=applied", `{"path":"/a","target_url":"http://10.0.0.1"}`).want(201)
	silent(t, dsn, silentID, 0)
	var list struct {
		Revision int64
		Items    []struct {
			ID           string
			Revision     int64
			LagRevisions int64   `json:"lag_revisions"`
			LagSeconds   float64 `json:"lag_seconds"`
			Live, Self   bool
			FailedRoutes []object `json:"failed_routes"`
		}
	}
	a := n.do(t, "GET", "/api/replicas", "").want(200)
	if err := json.Unmarshal(a.text, &list); err != nil {
		t.Fatal(err)
	}
	if list.Revision != 1 || len(list.Items) != 2 {
		t.Fatalf("got %s", a.text)
	}
	self, other := list.Items[0], list.Items[1]
	if self.ID != n.ID() || !self.Self || !self.Live || self.Revision != 1 || self.LagRevisions != 0 || self.LagSeconds != 0 {
		t.Errorf("this replica is %+v", self)
	}
	if other.ID != silentID || other.Self || !other.Live || other.LagRevisions != 1 || other.LagSeconds <= 0 || len(other.FailedRoutes) != 1 {
		t.Errorf("the other is %+v", other)
	}
}
