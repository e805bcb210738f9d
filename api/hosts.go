package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
)

// Types that describe the packages' own, as in status.go.
type (
	host struct {
		Host         string              `json:"host" doc:"The host as it is matched: in lower case, international names as punycode, or a wildcard." example:"api.example.com"`
		Routes       int                 `json:"routes" doc:"How many enabled routes name it."`
		Certificates []certificate       `json:"certificates" doc:"The certificates in this node's memory that can be served for it, the one that is valid longest first. For a wildcard these are wildcard certificates only. Empty: none was asked for since the start, or none could be obtained, or somebody else ends TLS."`
		LastError    *certificateFailure `json:"last_error,omitempty" doc:"Why this node could not obtain or renew a certificate for it, the last time it tried. Absent once it could."`
	}
	certificate struct {
		Names     []string  `json:"names" doc:"The host names and IP addresses that it is valid for."`
		Issuer    string    `json:"issuer" doc:"Who has issued it, as a distinguished name." example:"CN=R11,O=Let's Encrypt,C=US"`
		Serial    string    `json:"serial" doc:"Its serial number in hexadecimal."`
		NotBefore time.Time `json:"not_before" doc:"When its validity began."`
		NotAfter  time.Time `json:"not_after" doc:"When it expires."`
	}
	certificateFailure struct {
		Message string    `json:"message" doc:"What went wrong, as the certificate authority or Caddy says."`
		Time    time.Time `json:"time" doc:"When."`
		Renewal bool      `json:"renewal" doc:"Whether the certificate was to be renewed."`
	}
	hostPage struct {
		Items []host `json:"items" doc:"The hosts, in the order of their bytes."`
		Next  string `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
)

type (
	hostsInput struct {
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most hosts in one answer."`
		Cursor string `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
		Host   string `query:"host" doc:"Only this host, in any case." example:"api.example.com"`
		Query  string `query:"q" doc:"Only hosts with this text, in any case, in their name."`
	}
	hostsOutput struct {
		Body hostPage
	}
)

func (s *server) registerHosts(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "list-hosts", Method: http.MethodGet, Path: "/api/hosts", Tags: []string{"status"},
		Summary: "Show hosts and their certificates",
		Description: "Lists the hosts that enabled routes name, and the state of their certificates on this node. It asks neither the store nor a " +
			"certificate authority. Replicas that share certificates load one when they are first asked for it.",
		Errors: []int{400, 503},
	}, s.hosts)
}

func (s *server) hosts(_ context.Context, in *hostsInput) (*hostsOutput, error) {
	after, ok := parseHostCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	table := s.cfg.Gateway.Table()
	if table == nil {
		return nil, gateway.ErrNotReady
	}
	name, text := in.Host, strings.ToLower(in.Query)
	if normal, err := routing.ParseHost(in.Host); err == nil {
		name = normal
	}
	found := table.Hosts(after, in.Limit+1, func(host string) bool {
		return (name == "" || host == name) && strings.Contains(host, text)
	})
	page := hostPage{Items: []host{}}
	for _, h := range found {
		if len(page.Items) == in.Limit {
			page.Next = hostCursor(page.Items[in.Limit-1].Host)
			break
		}
		page.Items = append(page.Items, s.newHost(h))
	}
	return &hostsOutput{Body: page}, nil
}

func (s *server) newHost(h routing.HostRoutes) host {
	out := host{Host: h.Host, Routes: h.Routes, Certificates: []certificate{}}
	if s.cfg.Certificates != nil {
		for _, c := range s.cfg.Certificates(h.Host) {
			out.Certificates = append(out.Certificates, certificate(c))
		}
	}
	if s.cfg.CertificateFailure != nil {
		if failure, ok := s.cfg.CertificateFailure(h.Host); ok {
			described := certificateFailure(failure)
			out.LastError = &described
		}
	}
	return out
}

const hostCursorPrefix = "after host:"

// hostCursor returns the text that stands for all hosts behind one.
func hostCursor(host string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(hostCursorPrefix + host))
}

// parseHostCursor is the reverse of hostCursor. No cursor is the beginning.
func parseHostCursor(text string) (after string, ok bool) {
	if text == "" {
		return "", true
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(plain), hostCursorPrefix)
}
