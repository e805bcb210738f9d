package proxy_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/proxy"
)

func upstreams(dials ...string) reverseproxy.UpstreamPool {
	var pool reverseproxy.UpstreamPool
	for _, dial := range dials {
		pool = append(pool, &reverseproxy.Upstream{Dial: dial, Host: new(reverseproxy.Host)})
	}
	return pool
}

// keyed is a request whose key is user.
func keyed(user string) *http.Request {
	repl := caddy.NewReplacer()
	repl.Set("user", user)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	return r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl))
}

func TestWeightedSelectionShares(t *testing.T) {
	t.Parallel()
	const draws = 60_000
	pool := upstreams("a:1", "b:1", "c:1", "d:1")
	for name, key := range map[string]string{"by chance": "", "by key": "{user}"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &proxy.WeightedSelection{Weights: map[string]int{"a:1": 2, "b:1": 3, "c:1": 0}, Key: key}
			got := make(map[string]int)
			for i := range draws {
				got[s.Select(pool, keyed(fmt.Sprint("user ", i)), nil).Dial]++
			}
			// Six standard deviations: such chance does not happen.
			for dial, weight := range map[string]float64{"a:1": 2, "b:1": 3, "c:1": 0, "d:1": 1} {
				p := weight / 6
				if diff := math.Abs(float64(got[dial]) - draws*p); diff > 6*math.Sqrt(draws*p*(1-p)) {
					t.Errorf("%s got %d of %d requests, its weight is %v of 6", dial, got[dial], draws, weight)
				}
			}
		})
	}
}

// TestWeightedSelectionMovesLittle changes a weight: only keys of that upstream may
// move, and only away from it.
func TestWeightedSelectionMovesLittle(t *testing.T) {
	t.Parallel()
	pool := upstreams("a:1", "b:1", "c:1")
	before := &proxy.WeightedSelection{Weights: map[string]int{"a:1": 5, "b:1": 5, "c:1": 5}, Key: "{user}"}
	after := &proxy.WeightedSelection{Weights: map[string]int{"a:1": 2, "b:1": 5, "c:1": 5}, Key: "{user}"}
	moved := 0
	for i := range 1000 {
		r := keyed(fmt.Sprint(i))
		was, is := before.Select(pool, r, nil), after.Select(pool, r, nil)
		if was != is {
			moved++
			if was.Dial != "a:1" {
				t.Fatalf("key %d moved from %s to %s", i, was.Dial, is.Dial)
			}
		}
		if again := after.Select(pool, r, nil); again != is {
			t.Fatalf("key %d goes to %s, then to %s", i, is.Dial, again.Dial)
		}
	}
	if moved == 0 {
		t.Error("a lower weight has moved no key")
	}
}

func TestWeightedSelectionCaddyfile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       *proxy.WeightedSelection // nil: an error
	}{
		{"weights", "isekai_weighted {\n a:1 2\n b:1 0\n}", &proxy.WeightedSelection{Weights: map[string]int{"a:1": 2, "b:1": 0}}},
		{"key", "isekai_weighted {header.X-User} {\n a:1 2\n}", &proxy.WeightedSelection{Weights: map[string]int{"a:1": 2}, Key: "{header.X-User}"}},
		{"no weights", "isekai_weighted", nil},
		{"two keys", "isekai_weighted a b {\n a:1 2\n}", nil},
		{"no number", "isekai_weighted {\n a:1 two\n}", nil},
		{"negative", "isekai_weighted {\n a:1 -1\n}", nil},
		{"missing", "isekai_weighted {\n a:1\n}", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := new(proxy.WeightedSelection)
			err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tt.text))
			if tt.want == nil {
				if err == nil {
					t.Errorf("got %+v", got)
				}
				return
			}
			if err != nil || !cmp.Equal(got, tt.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}
