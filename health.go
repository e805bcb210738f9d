package isekai

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/gateway"
)

// healthWord is all that health_path tells strangers.
type healthWord struct {
	Status gateway.Status `json:"status"`
}

// healthOf returns what a request asks for by health_path, which may be followed by
// /live or /ready, and whether it does.
func (h *Handler) healthOf(path string) (ready, ok bool) {
	rest := path[min(len(h.HealthPath), len(path)):]
	if h.HealthPath == "" || path != h.HealthPath+rest {
		return false, false
	}
	switch rest {
	case "", "/ready":
		return true, true
	case "/live":
		return false, true
	}
	return false, false
}

// serveHealth answers a load balancer. It is live as long as it can answer, and ready
// unless the routes were never loaded, or the server is about to stop (Caddy's
// shutdown_delay), so that no new connections come.
func (a *App) serveHealth(w http.ResponseWriter, r *http.Request, ready bool) error {
	if !ready {
		return writeJSON(w, "application/json", http.StatusOK, healthWord{gateway.StatusOK})
	}
	status, word := http.StatusOK, a.gateway.Health().Status
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if stopping, _ := repl.Get("http.shutting_down"); stopping == true {
			word = gateway.StatusNotReady
		}
	}
	if word == gateway.StatusNotReady {
		status = http.StatusServiceUnavailable
	}
	return writeJSON(w, "application/json", status, healthWord{word})
}
