// Package mirror sends copies of requests to another target, as a try of a new
// version with real traffic, without ever delaying or failing the original.
//
// A Mirror takes a copy of a request while it is forwarded: its head at once, its
// body as it streams to the upstream. A copy that is complete waits in a Queue
// until a worker sends it; the answer is thrown away. Whatever would make the
// original wait costs the copy instead, and is counted.
//
// All of that is a plain library. Handler makes it the Caddy module
// http.handlers.isekai_mirror, which needs no routes.
package mirror
