package peers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// Each of these forwards everything to the backend over kept connections, adds
// X-Forwarded-For as Caddy does, writes no access log, and uses one thread.

const nginxConfig = `daemon off;
%[7]s
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream backend {
		server %[2]s;
		keepalive 128;
		keepalive_requests 1000000000;
	}
	server {
		listen %[3]s;
		listen %[4]s ssl http2;
		ssl_certificate %[5]s;
		ssl_certificate_key %[6]s;
		ssl_protocols TLSv1.3;
		location / {
			proxy_pass http://backend;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_set_header X-Forwarded-Proto $scheme;
		}
	}
}
`

// Nginx is nginx as this machine has it.
func Nginx(ctx context.Context, r *Rig, dir string) (*Running, error) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // its own account could not read the folder
	}
	return startOther(ctx, r, dir, func(plain, secure string) (string, string, []string) {
		config := filepath.Join(dir, "nginx.conf")
		return config, fmt.Sprintf(nginxConfig, dir, r.Backend, plain, secure, r.certificate, r.key, user),
			[]string{procs.Find("nginx"), "-p", dir, "-c", config, "-e", "stderr"}
	})
}

const haproxyConfig = `global
	nbthread 1
	maxconn 4096
	ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	http-reuse always
	option forwardfor
frontend front
	bind %[2]s
	bind %[3]s ssl crt %[4]s alpn h2,http/1.1
	default_backend back
backend back
	server one %[1]s
`

// HAProxy is HAProxy as this machine has it.
func HAProxy(ctx context.Context, r *Rig, dir string) (*Running, error) {
	return startOther(ctx, r, dir, func(plain, secure string) (string, string, []string) {
		config := filepath.Join(dir, "haproxy.cfg")
		return config, fmt.Sprintf(haproxyConfig, r.Backend, plain, secure, r.both),
			[]string{procs.Find("haproxy"), "-db", "-f", config}
	})
}

const traefikConfig = `global:
  checkNewVersion: false
  sendAnonymousUsage: false
log:
  level: ERROR
entryPoints:
  plain:
    address: %q
  secure:
    address: %q
providers:
  file:
    filename: %q
    watch: false
`

const traefikRoutes = `http:
  routers:
    plain:
      entryPoints: [plain]
      rule: PathPrefix(` + "`/`" + `)
      service: backend
    secure:
      entryPoints: [secure]
      rule: PathPrefix(` + "`/`" + `)
      service: backend
      tls: {}
  services:
    backend:
      loadBalancer:
        servers:
          - url: http://%s
tls:
  stores:
    default:
      defaultCertificate:
        certFile: %q
        keyFile: %q
`

// Traefik is Traefik as this machine has it.
func Traefik(ctx context.Context, r *Rig, dir string) (*Running, error) {
	routes := filepath.Join(dir, "routes.yml")
	if err := os.WriteFile(routes, fmt.Appendf(nil, traefikRoutes, r.Backend, r.certificate, r.key), 0o600); err != nil {
		return nil, err
	}
	t, err := startOther(ctx, r, dir, func(plain, secure string) (string, string, []string) {
		config := filepath.Join(dir, "traefik.yml")
		return config, fmt.Sprintf(traefikConfig, plain, secure, routes),
			[]string{procs.Find("traefik"), "--configFile=" + config}
	})
	if err != nil {
		return nil, err
	}
	// It listens before it has read its routes, and answers 404 until then.
	url := "http://" + t.Address + load.RoutePath(0, "128")
	if err := t.Process.Ready(ctx, func(ctx context.Context) error { return load.Get(ctx, url) }); err != nil {
		t.Stop()
		return nil, err
	}
	return t, nil
}

// startOther starts a program that reads one configuration file.
func startOther(ctx context.Context, r *Rig, dir string, set func(plain, secure string) (path, config string, command []string)) (*Running, error) {
	free, err := procs.FreeAddresses(ctx, 2)
	if err != nil {
		return nil, err
	}
	path, config, command := set(free[0], free[1])
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := procs.Launch(ctx, r.ProxyCPU, dir, free[1], nil, command...)
	if err != nil {
		return nil, err
	}
	return &Running{Address: free[0], TLS: free[1], PIDs: procs.Family(p.PID()), Process: p, Dir: dir, Stop: p.Stop}, nil
}
