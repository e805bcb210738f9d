package peers

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// ServerOptions are those of Caddyfile.example that cost or save something per request.
const ServerOptions = `
	servers {
		timeouts {
			read_header 10s
			read_body_idle -1s
			idle 2m
		}
		max_header_size 16KB
		strict_sni_host on
	}`

// CaddySite is how Caddy's own reverse_proxy is set up.
type CaddySite struct {
	Tuned     bool // with ServerOptions
	AccessLog bool // into a file
	Env       []string
}

// Caddy is Caddy's reverse_proxy, by the program that Isekai is linked into.
func Caddy(s CaddySite) Start {
	return func(ctx context.Context, r *Rig, dir string) (*Running, error) {
		global, site := "", "\treverse_proxy "+r.Backend+"\n"
		if s.Tuned {
			global = ServerOptions
		}
		if s.AccessLog {
			site = fmt.Sprintf("\tlog {\n\t\toutput file %q {\n\t\t\troll_disabled\n\t\t}\n\t}\n", filepath.Join(dir, "access.log")) + site
		}
		return runCaddy(ctx, r, dir, caddyRun{program: r.Program, global: global, site: site, env: s.Env})
	}
}

// caddyRun is what a process of Caddy is started with.
type caddyRun struct {
	program, global, site string
	env                   []string
}

// runCaddy starts a program with a plain site and one with TLS.
func runCaddy(ctx context.Context, r *Rig, dir string, c caddyRun) (*Running, error) {
	free, err := procs.FreeAddresses(ctx, 3)
	if err != nil {
		return nil, err
	}
	plain, secure, admin := free[0], free[1], free[2]
	_, plainPort, _ := net.SplitHostPort(plain)
	_, securePort, _ := net.SplitHostPort(secure)
	text := fmt.Sprintf(`{
	admin %s
	http_port %s
	https_port %s
	auto_https disable_redirects
	skip_install_trust
	persist_config off
	storage file_system %q
%s
}
http:// {
	bind 127.0.0.1
%s}
https://%s {
	bind 127.0.0.1
	tls %q %q
%s}
`, admin, plainPort, securePort, filepath.Join(dir, "caddy"), c.global, c.site, load.ServerName, r.certificate, r.key, c.site)
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := procs.Launch(ctx, r.ProxyCPU, dir, secure, c.env, c.program, "run", "--config", config, "--adapter", "caddyfile")
	if err != nil {
		return nil, err
	}
	return &Running{
		Address: plain, TLS: secure, PIDs: []int{p.PID()}, Process: p,
		Admin: "http://" + admin, Dir: dir, Stop: p.Stop,
	}, nil
}
