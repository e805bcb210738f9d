// Command caddy is Caddy with Isekai linked in, for go run and debuggers.
// Releases and make build use xcaddy, which makes the same program.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/isekai-gateway/isekai"
	_ "github.com/isekai-gateway/isekai/ratelimit/redis"
)

func main() { caddycmd.Main() }
