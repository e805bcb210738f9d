package routing_test

import (
	"testing"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// row returns an enabled route; edit may change it.
func row(id int64, method, host, path string, edit ...func(*store.Route)) *store.Route {
	r := store.NewRoute(path, "http://127.0.0.1:9")
	r.ID, r.Method, r.Host, r.Revision = id, method, host, id
	for _, f := range edit {
		f(r)
	}
	return r
}

func mustCompile(t testing.TB, r *store.Route) *routing.Route {
	t.Helper()
	c, err := routing.Compile(r)
	if err != nil {
		t.Fatalf("compiling %s %s%s: %v", r.Method, r.Host, r.Path, err)
	}
	return c
}

func mustPattern(t testing.TB, s string) *routing.Pattern {
	t.Helper()
	p, err := routing.ParsePattern(s)
	if err != nil {
		t.Fatalf("ParsePattern(%q): %v", s, err)
	}
	return p
}

// request makes a request for a path as it is sent.
func request(t testing.TB, method, host, path string) *routing.Request {
	t.Helper()
	p, err := routing.CanonicalPath(path)
	if err != nil {
		t.Fatalf("CanonicalPath(%q): %v", path, err)
	}
	return &routing.Request{Method: method, Host: routing.RequestHost(host), Path: p.Text}
}

// id returns the id of a route, 0 for none.
func id(r *routing.Route) int64 {
	if r == nil {
		return 0
	}
	return r.ID
}
