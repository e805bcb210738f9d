package ratelimit_test

import (
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/isekai-gateway/isekai/ratelimit"
)

func TestKey(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text, client, caller string
		want                 string
		normal               string // of the client's address
	}{
		{"", "192.0.2.1", "", "192.0.2.1", "192.0.2.1"},
		{"", "2001:db8::1", "", "2001:db8::/64", "2001:db8::/64"},
		{"", "2001:db8::1", "consumer:3", "consumer:3", "2001:db8::/64"},
		{"{client_ip}", "2001:db8::1", "consumer:3", "2001:db8::/64", "2001:db8::/64"},
		{"{http.vars.client_ip}", "::ffff:192.0.2.1", "consumer:3", "192.0.2.1", "192.0.2.1"},
		{"{http.request.header.X-Tenant}", "2001:db8::1", "consumer:3", "shop", "2001:db8::1"},
		{"{client_ip}/{http.request.header.X-Tenant}", "2001:db8::1", "", "2001:db8::1/shop", "2001:db8::1"},
		{"{http.request.header.X-None}", "192.0.2.1", "", "", "192.0.2.1"},
		{"{no.such.thing}x", "192.0.2.1", "", "x", "192.0.2.1"},
		{"all", "192.0.2.1", "consumer:3", "all", "192.0.2.1"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Tenant", "shop")
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), nil)
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, tt.client)
		key := ratelimit.ParseKey(tt.text)
		if got := key.Of(r, tt.caller); got != tt.want {
			t.Errorf("%q of %s, %q: %q, want %q", tt.text, tt.client, tt.caller, got, tt.want)
		}
		if got := key.Normal(tt.client); got != tt.normal {
			t.Errorf("%q: normal form of %s is %q, want %q", tt.text, tt.client, got, tt.normal)
		}
	}
}
