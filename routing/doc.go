// Package routing decides which route serves a request. It parses path patterns,
// hosts, methods and predicates, keeps the compiled routes in an immutable table,
// and brings request paths into the one canonical form that matching, policies
// and forwarding share. It does no I/O.
//
// Of all routes that match a request, the first in this order is chosen:
//
//  1. the host: exact, then the longest wildcard, then routes for any host;
//  2. the path, segment by segment: literal, regexp, parameter, rest; a pattern
//     that ends comes before a rest that matches nothing;
//  3. the method: named, then HEAD served by a route for GET, then "*";
//  4. more header predicates, then more query predicates;
//  5. the higher priority, then the lower id.
//
// A route that doesn't match in one of these respects is no candidate: a less
// specific path with the right method wins over one with the wrong method.
package routing
