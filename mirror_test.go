package isekai_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// mirrorCounts are the counters of /api/status.
type mirrorCounts struct {
	Sent    int
	Failed  int
	Waiting int
	Dropped map[string]int
}

func (s *server) mirrorCounts() (counts mirrorCounts) {
	s.t.Helper()
	var status struct{ Mirror mirrorCounts }
	if err := json.Unmarshal([]byte(s.do("GET", s.admin+"/api/status", "").body), &status); err != nil {
		s.t.Fatal(err)
	}
	return status.Mirror
}

// copies is a mirror that hands over the path and the marker of what it gets.
func copies(t *testing.T) (url string, got chan string) {
	t.Helper()
	got = make(chan string, 1000)
	m := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.RequestURI() + " " + string(body)
	}))
	t.Cleanup(m.Close)
	return m.URL, got
}

func awaitCopy(t *testing.T, got <-chan string, want string) {
	t.Helper()
	select {
	case c := <-got:
		if c != want {
			t.Errorf("the mirror got %q, want %q", c, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the mirror did not get %q", want)
	}
}

func TestMirrorFollowsEdits(t *testing.T) {
	s, upstream := start(t, nil), echo(t)
	first, gotFirst := copies(t)
	second, gotSecond := copies(t)
	id := s.create(route{"path": "/a/*", "method": "*", "target_url": upstream.URL + "/up", "strip_prefix": true, "mirror": route{"target_url": first + "/m"}})
	edit := func(mirror any) {
		t.Helper()
		if res := s.write("PATCH", fmt.Sprintf("/api/routes/%d", id), route{"mirror": mirror}); res.StatusCode != 200 {
			t.Fatalf("%d %s", res.StatusCode, res.body)
		}
	}
	s.get("/a/1?x")
	awaitCopy(t, gotFirst, "/m/up/1?x ")
	edit(route{"target_url": second})
	s.do("POST", s.site+"/a/2", "hello")
	awaitCopy(t, gotSecond, "/up/2 hello")
	edit(route{"body_max": 4})
	s.do("POST", s.site+"/a/3", "hello")
	s.do("POST", s.site+"/a/3", "hell")
	awaitCopy(t, gotSecond, "/up/3 hell")
	edit(nil)
	s.get("/a/4")
	edit(route{"target_url": first})
	s.get("/a/5")
	awaitCopy(t, gotFirst, "/up/5 ")
	if len(gotFirst)+len(gotSecond) > 0 {
		t.Error("there are copies that there should not be")
	}
	eventually(t, "all is counted", func() bool {
		c := s.mirrorCounts()
		return c.Sent == 4 && c.Failed == 0 && c.Waiting == 0 && c.Dropped["too_large"] == 1
	})
}

// TestMirrorToItself has a copy come back to the route that it was made of.
func TestMirrorToItself(t *testing.T) {
	s := start(t, nil)
	markers := make(chan string, 100)
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		markers <- r.Header.Get("X-Isekai-Mirror")
	}))
	defer upstream.Close()
	s.create(route{"path": "/*", "target_url": upstream.URL, "mirror": route{"target_url": s.site}})
	for range 3 {
		s.get("/x", "X-Isekai-Mirror", "forged")
	}
	eventually(t, "the copies have come back", func() bool {
		c := s.mirrorCounts()
		return c.Sent == 3 && c.Dropped["skipped"] == 3
	})
	marked := 0
	for range 6 {
		switch marker := <-markers; marker {
		case "":
		case "forged":
			t.Error("a client's marker came through")
		default:
			marked++
		}
	}
	if marked != 3 || len(markers) > 0 {
		t.Errorf("%d of the upstream's requests were marked, %d are too many", marked, len(markers))
	}
}

// TestMirrorThatHangs takes the routes' mirror through an edit, a reload and an exit
// without waiting for what it never answers.
func TestMirrorThatHangs(t *testing.T) {
	// The mirror ends after the gateway: it waits until nothing is open any more.
	hanging, upstream := newHolding(t), echo(t)
	s := start(t, nil)
	id := s.create(route{"path": "/*", "target_url": upstream.URL, "mirror": route{"target_url": hanging.URL, "timeout": 60}})
	for range 300 {
		if res := s.get("/hold"); res.StatusCode != 200 {
			t.Fatalf("status %d", res.StatusCode)
		}
	}
	<-hanging.arrived
	full := s.mirrorCounts()
	if full.Waiting != 250 || full.Dropped["queue_full"] != 300-250-8 {
		t.Errorf("the counts are %+v", full)
	}
	if res := s.write("DELETE", fmt.Sprintf("/api/routes/%d", id), nil); res.StatusCode != 204 {
		t.Fatalf("%d %s", res.StatusCode, res.body)
	}
	if err := s.load(nil); err != nil {
		t.Fatal(err)
	}
	if c := s.mirrorCounts(); c.Waiting != full.Waiting || c.Dropped["queue_full"] != full.Dropped["queue_full"] {
		t.Errorf("after a reload the counts are %+v, were %+v", c, full)
	}
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
	// The gateway is gone while the mirror still answers nothing.
	close(hanging.release)
}

// TestMirrorOfASiteAndOfARoute have one request each.
func TestMirrorOfASiteAndOfARoute(t *testing.T) {
	site, gotSite := copies(t)
	s, upstream := start(t, func(cfg map[string]any) {
		siteOf(cfg)["routes"] = handle(route{"handler": "isekai_mirror", "target_url": site}, route{"handler": "isekai"})
	}), echo(t)
	mirror, gotRoute := copies(t)
	s.create(route{"path": "/*", "method": "*", "target_url": upstream.URL + "/up", "mirror": route{"target_url": mirror}})
	s.do("POST", s.site+"/x", "hello")
	awaitCopy(t, gotSite, "/x hello")
	awaitCopy(t, gotRoute, "/up/x hello")
	eventually(t, "both are counted", func() bool { return s.mirrorCounts().Sent == 2 })
}

func TestMirrorObeysTheTargetPolicy(t *testing.T) {
	s := start(t, func(cfg map[string]any) { isekaiApp(cfg)["targets"] = route{"deny": []string{"10.0.0.0/8"}} })
	for _, target := range []string{s.admin, "http://10.0.0.9", "http://169.254.169.254", "http://10.0.0.9/{x}", "", "http://[::1", "10.0.0.9"} {
		res := s.write("POST", "/api/routes", route{"path": "/x", "target_url": "http://127.0.0.1:1", "mirror": route{"target_url": target}})
		if res.StatusCode != 422 || !strings.Contains(res.body, `"body.mirror.target_url"`) {
			t.Errorf("%s: %d %s", target, res.StatusCode, res.body)
		}
	}
	for field, value := range map[string]any{"sample": 0, "body_max": 0, "timeout": 61, "colour": "red"} {
		res := s.write("POST", "/api/routes", route{"path": "/x", "target_url": "http://127.0.0.1:1", "mirror": route{"target_url": "http://127.0.0.1:2", field: value}})
		if res.StatusCode != 422 || !strings.Contains(res.body, `"body.mirror.`+field+`"`) {
			t.Errorf("%s: %d %s", field, res.StatusCode, res.body)
		}
	}
	for _, sample := range []string{"0", "0.0", "-0.5", "1.01", "1e400", `"0.5"`, "null"} {
		body := `{"path": "/x", "target_url": "http://127.0.0.1:1", "mirror": {"target_url": "http://127.0.0.1:2", "sample": ` + sample + `}}`
		res := s.do("POST", s.admin+"/api/routes", body, "Content-Type", "application/json")
		if res.StatusCode != 422 || !strings.Contains(res.body, `"body.mirror.sample"`) {
			t.Errorf("sample %s: %d %s", sample, res.StatusCode, res.body)
		}
	}
}
