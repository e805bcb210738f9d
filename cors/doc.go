// Package cors answers for the CORS protocol as the Fetch standard has it
// (https://fetch.spec.whatwg.org/#http-cors-protocol). Policy is a plain library
// that edits header maps; Handler makes it the Caddy module
// http.handlers.isekai_cors, which needs no routes.
//
// It does not build on github.com/rs/cors, which writes its fields before the
// next handler runs. A proxy's upstream then adds its own to them, and a browser
// refuses an answer with two. Here the fields are written when the answer is
// complete, in place of whatever was there. rs/cors also takes "*" with
// credentials, matches anything in place of a wildcard, knows no regular
// expressions and reports no mistake in its options.
package cors
