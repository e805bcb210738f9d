package isekai

import (
	"net/http"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/api"
	"github.com/isekai-gateway/isekai/gateway"
)

func init() {
	caddy.RegisterModule(new(Admin))
}

// Admin mounts the admin API on Caddy's admin endpoint, under /api/ and at
// /health and below. It has no state: Caddy keeps an instance alive after a failed reload,
// and each request must find the app that really runs.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.isekai", New: func() caddy.Module { return new(Admin) }}
}

// Routes implements caddy.AdminRouter.
func (*Admin) Routes() []caddy.AdminRoute {
	handler := caddy.AdminHandlerFunc(serveAdmin)
	return []caddy.AdminRoute{
		{Pattern: "/api/", Handler: handler},
		{Pattern: "/health", Handler: handler},
		{Pattern: "/health/", Handler: handler},
	}
}

func serveAdmin(w http.ResponseWriter, r *http.Request) error {
	app, err := activeApp()
	if err != nil {
		w.Header().Set("Retry-After", "1")
		switch r.URL.Path {
		case "/health", "/health/ready":
			return writeJSON(w, "application/json", http.StatusServiceUnavailable,
				gateway.Health{Status: gateway.StatusNotReady, Reasons: []string{errNotRunning.Error()}})
		case "/health/live":
			return writeJSON(w, "application/json", http.StatusOK, healthWord{gateway.StatusOK})
		}
		return writeJSON(w, "application/problem+json", http.StatusServiceUnavailable, problem{
			Title:  http.StatusText(http.StatusServiceUnavailable),
			Status: http.StatusServiceUnavailable,
			Detail: errNotRunning.Error(),
		})
	}
	app, held := app.hold()
	if held {
		defer app.release() //nolint:errcheck // logged where it can fail
	}
	app.api.ServeHTTP(w, r)
	return nil
}

// newAPI returns the admin API of this app.
func (a *App) newAPI() http.Handler {
	return api.New(api.Config{
		Gateway:   a.gateway,
		Check:     a.pipelines.Validate,
		Limits:    a.limits,
		Upstreams: a.pipelines.Upstreams,

		Certificates:       certificates,
		CertificateFailure: a.failures.Get,

		Version: version(),
		Log:     func() *zap.Logger { return caddy.Log().Named("isekai.admin") },
	})
}

// version returns the version that the build stamped, else the one that the
// module was built at, "(devel)" for one built from a work tree.
func version() string {
	if caddy.CustomVersion != "" {
		return caddy.CustomVersion
	}
	const path = "github.com/isekai-gateway/isekai"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range append(info.Deps, &info.Main) {
		if module.Path == path && module.Replace == nil && module.Version != "" {
			return module.Version
		}
	}
	return "(devel)"
}

// Interface guards
var (
	_ caddy.AdminRouter = (*Admin)(nil)
)
