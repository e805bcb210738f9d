// Package requestlog takes a record of every request and writes it to the store, in
// batches and in the background. The request path pays one attempt to put the record
// into a bounded queue; what does not fit is dropped and counted.
package requestlog
