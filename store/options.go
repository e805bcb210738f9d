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
}

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
