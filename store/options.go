package store

import "time"

// Options sets how Open connects. The zero value takes the defaults.
type Options struct {
	// The most connections to PostgreSQL, or readers of SQLite. Default: 16.
	MaxConns int

	// How long to wait for a new connection. Default: 5s.
	ConnectTimeout time.Duration

	// How long one statement may take, if the caller's context sets no earlier
	// deadline. Default: 5s.
	QueryTimeout time.Duration

	// Where to listen for revisions, as a DSN that leads to the same database past a pooler
	// that can't be listened through. PostgreSQL only. Default: the store's own DSN.
	ListenDSN string

	// Is told of every call of a kind in Call, how long it took, and whether it failed
	// for a reason of the database's own. It must not block. Optional.
	Observe func(call Call, took time.Duration, failed bool) `json:"-"`
}

// Call is a kind of calls of a Store.
type Call int

// The kinds of calls.
const (
	CallRead  Call = iota // reads some rows
	CallLoad              // reads all rows, or all changes, from one state of the database
	CallWrite             // makes a revision
	CallLog               // appends to the request log

	Calls int = iota // how many kinds there are
)

// String returns the kind's name in metrics.
func (c Call) String() string { return [Calls]string{"read", "load", "write", "log"}[c] }

// Defaults of Options.
const (
	DefaultMaxConns       = 16
	DefaultConnectTimeout = 5 * time.Second
	DefaultQueryTimeout   = 5 * time.Second
)

// withDefaults returns o with the defaults in place of what is not set.
func (o Options) withDefaults() Options {
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = DefaultConnectTimeout
	}
	if o.QueryTimeout <= 0 {
		o.QueryTimeout = DefaultQueryTimeout
	}
	return o
}
