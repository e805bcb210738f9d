package proxy

import (
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// PlaceholderPrefix begins the names of reverse_proxy's placeholders.
const PlaceholderPrefix = "http.reverse_proxy."

// laneAnswer is what placeholders tell of an answer that came by the fast lane.
type laneAnswer struct {
	head   string // as it came
	status int    // 0: the answer did not come by the fast lane
	reason string
	began  time.Time
}

// Placeholder returns the value of a placeholder of reverse_proxy for a request that
// was answered by the fast lane, so that plugins and logs can go on using them. They
// are documented at https://caddyserver.com/docs/json/apps/http/servers/routes/handle/reverse_proxy/.
func (c *Call) Placeholder(key string) (any, bool) {
	key, ok := strings.CutPrefix(key, PlaceholderPrefix)
	if !ok || !c.fast || c.last == nil {
		return nil, false
	}
	t := c.last
	switch key {
	case "upstream.address":
		return "tcp/" + t.authority, true
	case "upstream.hostport":
		return t.authority, true
	case "upstream.host", "upstream.port":
		host, port, _ := net.SplitHostPort(t.authority)
		if key == "upstream.port" {
			return port, true
		}
		return host, true
	case "upstream.requests":
		return int(t.load.inFlight.Load()), true
	case "upstream.max_requests":
		return int(t.most), true
	case "upstream.fails":
		return t.failing.recent(), true
	}
	if c.answer.status == 0 {
		return nil, false
	}
	took := time.Since(c.answer.began)
	switch key {
	case "upstream.latency":
		return c.waited, true
	case "upstream.latency_ms":
		return milliseconds(c.waited), true
	case "duration", "upstream.duration":
		return took, true
	case "duration_ms", "upstream.duration_ms":
		return milliseconds(took), true
	case "retries":
		return max(0, c.attempts-1), true
	case "status_code":
		return c.answer.status, true
	case "status_text":
		return strings.TrimSpace(strconv.Itoa(c.answer.status) + " " + c.answer.reason), true
	}
	if name, ok := strings.CutPrefix(key, "header."); ok {
		return c.answer.field(name)
	}
	return nil, false
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// field returns the values of a field, joined by commas.
func (a *laneAnswer) field(name string) (any, bool) {
	var values []string
	for line := range strings.SplitSeq(a.head, "\r\n") {
		if other, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(other, name) {
			values = append(values, strings.Trim(value, " \t"))
		}
	}
	if values == nil || name != http.CanonicalHeaderKey(name) {
		return nil, false
	}
	return strings.Join(values, ","), true
}
