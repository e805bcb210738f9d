// Package forwardauth asks another service whether a request may pass. Client is
// a plain library; Handler makes it the Caddy module
// http.handlers.isekai_forward_auth, which needs no routes.
//
// Caddy's own forward_auth is a reverse_proxy in disguise. As a plugin of a
// route that could connect anywhere, also to unix sockets, and read files for
// TLS. This one asks one URL, and as a plugin of a route only where the target
// policy allows it.
package forwardauth
