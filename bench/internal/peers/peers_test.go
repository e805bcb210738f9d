package peers

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

func TestMain(m *testing.M) { RunTests(m) }

// script writes a program that stands for Caddy.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHasFastLane(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		want, fails  bool
	}{
		{name: "known", script: `grep -q "fast_lane off" "$3" && echo "{}"`, want: true},
		{name: "not known", script: "echo 'unrecognized option: fast_lane' >&2; exit 1"},
		{name: "no Caddy", script: "echo 'no such command' >&2; exit 1", fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := hasFastLane(t.Context(), script(t, test.script), t.TempDir())
			if (err != nil) != test.fails || got != test.want {
				t.Errorf("%t, %v", got, err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		gateway Gateway
		rig     Rig
		want    string
	}{
		{"least", Gateway{Server: "S"}, Rig{}, "S\n\tisekai {\n\t\tstore \"sqlite:///d/isekai.db\"\n\t\trequest_log off\n\t}"},
		{"full lane that there is not", Gateway{Server: "S", Log: true, FullLane: true}, Rig{}, "S\n\tisekai {\n\t\tstore \"sqlite:///d/isekai.db\"\n\t}"},
		{
			"all", Gateway{Server: "S", Log: true, FullLane: true, Postgres: true, Snapshot: true, Connections: 3, App: []string{"a", "b"}},
			Rig{FastLane: true, Postgres: "postgres://x"},
			"S\n\tisekai {\n\t\tstore \"postgres://x\" {\n\t\t\tmax_conns 3\n\t\t}\n\t\tfast_lane off\n\t\tsnapshot \"/d/" + SnapshotFile + "\"\n\t\ta\n\t\tb\n\t}",
		},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, test.gateway.options(&test.rig, "/d")); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
	if got := (Gateway{}).options(&Rig{}, "/d"); !strings.HasPrefix(got, ServerOptions) {
		t.Errorf("without options: %s", got)
	}
}

// Routes are made in batches, and what the API refuses is an error.
func TestSeed(t *testing.T) {
	t.Parallel()
	var sizes []int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var batch struct{ Operations []any }
		if err := json.NewDecoder(r.Body).Decode(&batch); err != nil || r.URL.Path != "/api/routes/batch" {
			http.Error(w, "no batch", http.StatusUnprocessableEntity)
			return
		}
		sizes = append(sizes, len(batch.Operations))
	}))
	defer server.Close()
	if err := (Gateway{Routes: batchSize + 1, Limit: true}).seed(t.Context(), server.URL, "http://127.0.0.1:9"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{batchSize, 1}, sizes); diff != "" {
		t.Error(diff)
	}
	if err := Create(t.Context(), server.URL, map[string]any{}); err == nil || !strings.Contains(err.Error(), "422") {
		t.Errorf("a refusal is %v", err)
	}
}

// A rig's loads and its backend are processes of their own, and what goes on meanwhile
// ends with the load.
func TestRig(t *testing.T) {
	t.Parallel()
	if _, err := procs.Processors(); err != nil {
		t.Skip(err)
	}
	r, err := NewRig(t.Context(), script(t, "echo fast_lane; exit 1"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at, err := r.Start(t.Context(), "direct", Direct)
	if err != nil {
		t.Fatal(err)
	}
	o, err := r.Load(t.Context(), load.Job{
		Address: at.Address, Connections: 2, Method: "GET", Answer: "128", Warm: time.Millisecond, Time: 20 * time.Millisecond, Proxy: at.PIDs,
	})
	if err != nil || o.Requests == 0 {
		t.Errorf("closed loop: %+v, %v", o, err)
	}
	j := load.OpenJob{Address: at.Address, Connections: 2, Answer: "128", Rate: 200, Warm: time.Millisecond, Time: 50 * time.Millisecond, Proxy: at.PIDs}
	ended := false
	open, err := r.OpenLoad(t.Context(), j, func(ctx context.Context) error {
		<-ctx.Done()
		ended = true
		return nil
	})
	if err != nil || !ended || len(open.Took) != 10 {
		t.Errorf("open loop: %+v, %v, ended: %t", open, err, ended)
	}
	j.Answer = "none"
	if _, err := r.OpenLoad(t.Context(), j, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a wrong answer: %v", err)
	}
	broken, tried := errors.New("broken"), 0
	for range 2 {
		_, err := r.Start(t.Context(), "broken", func(context.Context, *Rig, string) (*Running, error) {
			tried++
			return nil, broken
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
	if tried != 1 {
		t.Errorf("what is broken was started %d times", tried)
	}
}
