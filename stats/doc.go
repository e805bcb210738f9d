// Package stats counts what the gateway does, in all and for each route, and keeps
// it for a day: numbers of requests, bytes, and histograms of how long they took, which
// can be added up over time and over replicas without loss.
//
// A request costs a look-up and a few atomic additions. Only a bounded number of
// routes is counted apart, the busiest; the others are counted together.
package stats
