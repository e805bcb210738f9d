package api_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

func TestConsumers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	created := n.do(t, "POST", "/api/consumers", `{"name": "shop", "groups": ["web"], "labels": {"tier": "gold"}, "rate_limit": 5}`).want(201)
	const path = "/api/consumers/1"
	if got := created.header.Get("Location"); got != path {
		t.Errorf("Location %q", got)
	}
	tag := created.header.Get("ETag")
	got := n.do(t, "GET", path, "").want(200)
	if diff := cmp.Diff(created.object(), got.object()); diff != "" || got.header.Get("ETag") != tag {
		t.Errorf("read: tag %s, was %s; %s", got.header.Get("ETag"), tag, diff)
	}
	n.do(t, "GET", path, "", "If-None-Match: "+tag).want(304)
	n.do(t, "POST", "/api/consumers", `{"name": "shop"}`).want(409)

	patched := n.do(t, "PATCH", path, `{"enabled": false, "labels": null}`, "If-Match: "+tag).want(200)
	want := created.object()
	want["enabled"] = false
	delete(want, "labels")
	have := patched.object()
	for _, changing := range []string{"revision", "updated_at"} {
		delete(want, changing)
		delete(have, changing)
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
	n.do(t, "PATCH", path, `{"enabled": true}`, "If-Match: "+tag).want(412)
	n.do(t, "PUT", path, `{"name": "store"}`).want(200)
	if got := n.do(t, "GET", path, "").want(200).object(); got["name"] != "store" || got["enabled"] != true || got["groups"] != nil {
		t.Errorf("replaced: %v", got)
	}
	n.do(t, "DELETE", path, "", "If-Match: "+tag).want(412)
	n.do(t, "DELETE", path, "").want(204)
	for _, method := range []string{"GET", "DELETE"} {
		n.do(t, method, path, "").want(404)
	}
	n.do(t, "PUT", path, `{"name": "x"}`).want(404)
	n.do(t, "GET", path+"/keys", "").want(404)
	n.do(t, "POST", path+"/keys", "").want(404)
}

func TestListConsumers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, name := range []string{"a", "b", "c"} {
		n.do(t, "POST", "/api/consumers", `{"name": "`+name+`"}`).want(201)
	}
	var names []string
	for next := ""; ; {
		page := n.do(t, "GET", "/api/consumers?limit=2"+next, "").want(200).object()
		for _, c := range page["items"].([]any) {
			names = append(names, c.(object)["name"].(string))
		}
		cursor, ok := page["next"].(string)
		if !ok {
			break
		}
		next = "&cursor=" + cursor
	}
	if got := strings.Join(names, ""); got != "abc" {
		t.Errorf("pages have %q", got)
	}
	if items := n.do(t, "GET", "/api/consumers?name=b", "").want(200).object()["items"].([]any); len(items) != 1 {
		t.Errorf("by name: %v", items)
	}
	n.do(t, "GET", "/api/consumers?cursor=x", "").want(422)
}

func TestBadConsumers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for _, tt := range []struct {
		body string
		at   []string
	}{
		{`{}`, []string{"body.name"}},
		{`{"name": "a b"}`, []string{"body.name"}},
		{`{"name": "a", "groups": ["x", "x", "a b"]}`, []string{"body.groups[1]", "body.groups[2]"}},
		{`{"name": "a", "rate_limit": -1, "window": 0, "enabled": "yes", "colour": 1}`,
			[]string{"body.colour", "body.enabled", "body.rate_limit", "body.window"}},
	} {
		if diff := cmp.Diff(tt.at, n.do(t, "POST", "/api/consumers", tt.body).want(422).locations()); diff != "" {
			t.Errorf("%s: %s", tt.body, diff)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.do(t, "POST", "/api/consumers", `{"name": "shop"}`).want(201)
	const path = "/api/consumers/1/keys"
	created := n.do(t, "POST", path, `{"name": "laptop", "expires_at": "2030-01-02T03:04:05Z"}`).want(201)
	key := created.object()["key"].(string)
	secret, ok := auth.ParseSecret(auth.PrefixKey, key)
	if !ok {
		t.Fatalf("no key: %q", key)
	}
	one := path + "/" + secret.ID
	if got := created.header.Get("Location"); got != one {
		t.Errorf("Location %q, want %q", got, one)
	}
	found, err := n.Credentials.Key(t.Context(), secret.ID)
	if err != nil || !secret.Matches(found.Key.Hash) || found.Consumer.Name != "shop" {
		t.Errorf("found %+v, %v", found, err)
	}
	n.do(t, "POST", path, "").want(201)
	list := n.do(t, "GET", path, "").want(200)
	if items := list.object()["items"].([]any); len(items) != 2 || items[0].(object)["expires_at"] != "2030-01-02T03:04:05Z" {
		t.Errorf("list %s", list.text)
	}
	if bytes.Contains(list.text, []byte(key[len(key)-20:])) || bytes.Contains(list.text, []byte("hash")) {
		t.Errorf("the list shows a secret: %s", list.text)
	}

	if got := n.do(t, "PATCH", one, `{"enabled": false, "name": null, "expires_at": null}`).want(200).object(); got["enabled"] != false || got["name"] != nil || got["expires_at"] != nil {
		t.Errorf("patched %v", got)
	}
	if found, err = n.Credentials.Key(t.Context(), secret.ID); err != nil || found.Key.Enabled {
		t.Errorf("disabled: %+v, %v", found, err)
	}
	n.do(t, "PATCH", path+"/nobody", `{"enabled": false}`).want(404)
	n.do(t, "PATCH", one, `{"key": "x"}`).want(422)
	for _, bad := range []string{`{"expires_at": "tomorrow"}`, `{"expires_at": 5}`} {
		if at := n.do(t, "POST", path, bad).want(422).locations(); len(at) != 1 || at[0] != "body.expires_at" {
			t.Errorf("%s: %v", bad, at)
		}
	}
	n.do(t, "DELETE", one, "").want(204)
	n.do(t, "DELETE", one, "").want(404)
	if _, err := n.Credentials.Key(t.Context(), secret.ID); err == nil {
		t.Error("a revoked key is known")
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	created := n.do(t, "POST", "/api/tokens", `{"name": "ci", "role": "write"}`).want(201).object()
	secret, ok := auth.ParseSecret(auth.PrefixToken, created["token"].(string))
	if !ok {
		t.Fatalf("no token: %v", created)
	}
	found, err := n.Credentials.Token(t.Context(), secret.ID)
	if err != nil || !secret.Matches(found.Hash) || found.Role != store.RoleWrite {
		t.Errorf("found %+v, %v", found, err)
	}
	n.do(t, "POST", "/api/tokens", `{"name": "ci", "role": "read"}`).want(409)
	for body, at := range map[string]string{
		`{"name": "x"}`:                                    "body.role",
		`{"role": "read"}`:                                 "body.name",
		`{"name": "x y", "role": "read"}`:                  "body.name",
		`{"name": "x", "role": "root"}`:                    "body.role",
		`{"name": "x", "role": "read", "expires_at": "7"}`: "body.expires_at",
	} {
		if got := n.do(t, "POST", "/api/tokens", body).want(422).locations(); len(got) != 1 || got[0] != at {
			t.Errorf("%s: %v, want %s", body, got, at)
		}
	}
	list := n.do(t, "GET", "/api/tokens", "").want(200)
	if strings.Contains(string(list.text), "hash") || strings.Contains(string(list.text), created["token"].(string)) {
		t.Errorf("the list shows a secret: %s", list.text)
	}
	n.do(t, "DELETE", "/api/tokens/"+secret.ID, "").want(204)
	n.do(t, "DELETE", "/api/tokens/"+secret.ID, "").want(404)
}
