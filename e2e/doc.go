// Package e2e drives the built binary from outside: each test starts Caddy with
// Isekai as a child process, changes routes through the admin API or SQL, and
// sends requests through real sockets to upstreams in the test process.
//
// It is a module of its own, so that its dependencies stay out of the go.sum of
// whoever builds Isekai. ISEKAI_E2E_BINARY names a binary to test; without it
// the tests build cmd/caddy of the module around them. PostgreSQL comes from
// internal/pgtest.
package e2e
