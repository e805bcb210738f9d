package isekai_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/snapshot"
	"github.com/isekai-gateway/isekai/store"
)

func TestSnapshotCommand(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "snapshot.json")
	row := store.NewRoute("/a", "https://10.0.0.1")
	row.ID, row.Upstream = 1, &store.Upstream{TLS: &store.UpstreamTLS{Key: "very secret"}}
	if err := snapshot.Write(path, snapshot.Contents{Revision: 7, Len: 1, Routes: slices.Values([]*store.Route{row})}, nil, nil); err != nil {
		t.Fatal(err)
	}
	out, _, err := runCommand("snapshot", "verify", path)
	if err != nil || !strings.Contains(out, "1 route(s) at revision 7") {
		t.Errorf("verify: %q, %v", out, err)
	}
	out, _, err = runCommand("snapshot", "show", path)
	if err != nil || !strings.Contains(out, `"/a"`) || strings.Contains(out, "very secret") {
		t.Errorf("show: %q, %v", out, err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"snapshot", "verify", path}, {"snapshot", "show", path}, {"snapshot", "verify", path + ".none"},
		{"snapshot", "verify", "--store", "sqlite://data/x.db"},
		{"snapshot", "verify", "--store", "postgres://nobody@192.0.2.1/none"},
		{"snapshot", "forge"},
	} {
		if out, _, err := runCommand(args...); err == nil {
			t.Errorf("%q succeeded: %s", args, out)
		}
	}
}

// A gateway on PostgreSQL keeps its snapshot where the command looks for it, and tells
// how fast changes come.
func TestSnapshotAndPropagationOfAnApp(t *testing.T) {
	dsn := pgtest.New(t)
	s := start(t, func(cfg map[string]any) {
		isekaiApp(cfg)["store"] = route{"dsn": dsn}
	})
	s.create(route{"path": "/a", "target_url": "http://127.0.0.1:1"})
	eventually(t, "the snapshot has the route", func() bool {
		out, _, err := runCommand("snapshot", "verify", "--store", strings.Replace(dsn, "?", "?application_name=x&", 1))
		return err == nil && strings.Contains(out, "1 route(s) at revision 1")
	})
	metrics := s.do("GET", s.admin+"/metrics", "").body
	for _, line := range []string{`isekai_revision 1`, `isekai_propagation_seconds_count [1-9]`, `isekai_propagation_seconds_bucket\{le="10"\} [1-9]`} {
		if !regexp.MustCompile("(?m)^" + line).MatchString(metrics) {
			t.Errorf("the metrics have no line %s", line)
		}
	}
	replicas := s.do("GET", s.admin+"/api/replicas", "").body
	if !strings.Contains(replicas, `"self":true`) {
		t.Errorf("replicas %s", replicas)
	}
}
