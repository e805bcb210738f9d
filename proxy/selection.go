package proxy

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// Select implements reverseproxy.Selector: it asks the pool's policy, of the
// targets that the request was not sent to yet and whose circuit breaker is
// closed if there are such, gets the breaker's leave, and counts the try as in flight.
func (p *pool) Select(upstreams reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	call := callOf(r)
	if call == nil {
		return p.policy.Select(upstreams, r, w)
	}
	if u := call.chosen; u != nil {
		// A second choice would take a turn, and set a cookie, once more.
		call.chosen = nil
		return u
	}
	if p.breaks || p.suspects {
		for _, t := range p.targets {
			p.observe(t)
		}
	}
	if len(call.tried) == 0 && p.allOpen() {
		// None is no verdict: Caddy's round robin passes over the only one that is healthy
		// if others take turns meanwhile. Below it is asked about that alone.
		if u := p.policy.Select(upstreams, r, w); u != nil && p.admit(call, u) {
			return u
		}
	}
	if p.cookie != "" {
		dropCookie(w.Header(), p.cookie)
	}
	fresh := p.among(func(t *target) bool { return !call.hasTried(t) })
	if u := p.selectAmong(call, fresh, r, w); u != nil {
		return u
	}
	if u := p.selectAmong(call, p.among(call.hasTried), r, w); u != nil {
		return u
	}
	return p.lastResort(call)
}

// lastResort chooses a target that is only suspected, by recent failures, when
// there is no other: rather than to be refused, the request may find out that the
// target has recovered. What active checks say stands, and so do breakers.
func (p *pool) lastResort(call *Call) *reverseproxy.Upstream {
	if !p.suspects {
		return nil
	}
	for _, again := range []bool{false, true} {
		for _, i := range rand.Perm(len(p.targets)) {
			t := p.targets[i]
			if t.weight > 0 && call.hasTried(t) == again && t.onlySuspected() && p.admit(call, t.upstream) {
				return t.upstream
			}
		}
	}
	return nil
}

// onlySuspected says whether the target is unhealthy for its failures, not for its
// checks.
func (t *target) onlySuspected() bool {
	return t.upstream.Healthy() && t.failing.suspect() && !t.full()
}

// allOpen says whether nothing that Caddy's policies don't know of, which are
// breakers, failures and bounds, keeps requests from a target.
func (p *pool) allOpen() bool {
	if !p.breaks && !p.suspects && !p.bounded {
		return true
	}
	for _, t := range p.targets {
		if !t.breaker.closed() || t.failing.suspect() || t.full() {
			return false
		}
	}
	return true
}

// among returns the upstreams of the targets that are as wanted and may get requests,
// also as a probe of their breaker.
func (p *pool) among(wanted func(*target) bool) reverseproxy.UpstreamPool {
	var list reverseproxy.UpstreamPool
	for _, t := range p.targets {
		if wanted(t) && t.available() && (t.breaker.closed() || t.breaker.state() != "open") {
			list = append(list, t.upstream)
		}
	}
	return list
}

// selectAmong chooses one of the upstreams whose breaker lets the request through.
func (p *pool) selectAmong(call *Call, list reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	for len(list) > 0 {
		u := p.second.Select(list, r, w)
		if u == nil || p.admit(call, u) {
			return u
		}
		list = slices.DeleteFunc(list, func(other *reverseproxy.Upstream) bool { return other == u })
	}
	return nil
}

// admit reserves u's target for the request's next try and asks its breaker for leave.
func (p *pool) admit(call *Call, u *reverseproxy.Upstream) bool {
	t := p.byUpstream[u]
	if t == nil || !call.reserve(t) {
		return false
	}
	done, ok := t.breaker.admit()
	if !ok {
		call.giveUp()
		return false
	}
	call.done = done
	return true
}

// dropCookie takes back a cookie that was set for a target which did not answer.
func dropCookie(h http.Header, name string) {
	lines := slices.DeleteFunc(h["Set-Cookie"], func(line string) bool {
		return strings.HasPrefix(line, name+"=")
	})
	if len(lines) == 0 {
		delete(h, "Set-Cookie")
		return
	}
	h["Set-Cookie"] = lines
}

// leastBusy chooses the available target with the fewest requests in flight: among
// all, or among some that are drawn by lot ("the power of two random choices").
type leastBusy struct {
	pool   *pool
	choose int // 0 for all
}

// Select implements reverseproxy.Selector.
func (s leastBusy) Select(upstreams reverseproxy.UpstreamPool, _ *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	var (
		best  *target
		least int64
		seen  int
		equal int
	)
	var order []int
	if s.choose > 0 {
		order = rand.Perm(len(upstreams))
	}
	for i := range upstreams {
		if order != nil {
			i = order[i]
		}
		t := s.pool.byUpstream[upstreams[i]]
		if t == nil || !t.available() {
			continue
		}
		n := t.load.inFlight.Load()
		switch {
		case best == nil || n < least:
			best, least, equal = t, n, 1
		case n == least:
			// Each of those that are as busy has the same chance.
			if equal++; rand.IntN(equal) == 0 {
				best = t
			}
		}
		if seen++; seen == s.choose {
			break
		}
	}
	if best == nil {
		return nil
	}
	return best.upstream
}

// Interface guards
var (
	_ reverseproxy.Selector = (*pool)(nil)
	_ http.RoundTripper     = (*pool)(nil)
)
