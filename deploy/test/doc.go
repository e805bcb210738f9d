// Package deploytest checks the dashboard and the alerts of ../grafana and
// ../prometheus with Prometheus' own engine, on what gateways under traffic of all
// kinds answer to a scrape.
//
// It is a module of its own, since Prometheus would bring other versions of what e2e
// uses, and takes a minute to compile. ISEKAI_E2E_BINARY names a binary to scrape;
// without it the tests build cmd/caddy of the module around them.
package deploytest
