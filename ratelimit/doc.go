// Package ratelimit limits how many requests a key, such as a client address,
// may make in a sliding window. Limiter is a plain library; Handler makes it the
// Caddy module http.handlers.isekai_rate_limit, which needs no routes.
package ratelimit
