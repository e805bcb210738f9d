package store

import "time"

// Consumer is somebody who calls routes: a person, an application, a tenant.
//
// A Consumer read from a Store is shared by concurrent requests and must not be
// modified; copy it first.
type Consumer struct {
	// The consumer's number, assigned by the store and never reused.
	ID int64 `json:"id"`

	// A unique name, 1 to 100 letters, digits or any of `_-.@:`. Required. Logs and
	// upstreams see it.
	Name string `json:"name"`

	// Whether the consumer's keys are accepted. Default: true.
	Enabled bool `json:"enabled"`

	ConsumerSpec

	// The number of the last change to this consumer.
	Revision int64 `json:"revision"`

	// When the consumer was made and last changed, in UTC.
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	// Why what plain SQL has made of the row can't be read. None of the keys of such
	// a consumer is accepted.
	DecodeError string `json:"-"`
}

// ConsumerSpec is what is optional of a Consumer. It is stored as one JSON document
// in the column spec.
type ConsumerSpec struct {
	// Free-form labels for people and filters.
	Labels map[string]string `json:"labels,omitempty"`

	// The groups that the consumer is in, which a route's auth.groups names.
	Groups []string `json:"groups,omitempty"`

	// Requests admitted per window over all routes together, beside the routes' own
	// limits. Default: 0, no limit.
	RateLimit int `json:"rate_limit,omitempty"`

	// The window of rate_limit in seconds, 1 to 2,678,400 (31 days). Default: 60.
	Window int `json:"window,omitempty"`
}

// APIKey is one key of a consumer, without its secret part.
type APIKey struct {
	// The public part of the key, which finds it.
	ID string `json:"id"`

	// The consumer whose key it is.
	ConsumerID int64 `json:"consumer_id"`

	// A name for people. Optional, at most 200 bytes, not unique.
	Name string `json:"name,omitempty"`

	// SHA-256 of the secret part.
	Hash []byte `json:"-"`

	// Whether the key is accepted. Default: true.
	Enabled bool `json:"enabled"`

	// When the key ends; nil for never.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	// When the key was last accepted, to about a minute; nil for never.
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`

	// The number of the last change to this key.
	Revision int64 `json:"revision"`

	// When the key was made and last changed, in UTC.
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Credential is an API key with the consumer whose key it is.
type Credential struct {
	Key      APIKey
	Consumer Consumer
}

// Role is what the holder of an AdminToken may do.
type Role string

// The roles, each of which may do what those before it may.
const (
	RoleRead  Role = "read"  // read everything but secrets
	RoleWrite Role = "write" // change routes, consumers and keys
	RoleAdmin Role = "admin" // make and revoke admin tokens
)

// Valid reports whether r is one of the roles.
func (r Role) Valid() bool { return r == RoleRead || r == RoleWrite || r == RoleAdmin }

// AdminToken opens the admin API on a site, without its secret part.
type AdminToken struct {
	// The public part of the token, which finds it.
	ID string `json:"id"`

	// A unique name, which the history has as the author of changes: 1 to 100
	// letters, digits or any of `_-.@:`. Required.
	Name string `json:"name"`

	// What its holder may do: read, write or admin. Required.
	Role Role `json:"role"`

	// SHA-256 of the secret part.
	Hash []byte `json:"-"`

	// When the token ends; nil for never.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	// When the token was last accepted, to about a minute; nil for never.
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`

	// The number of the last change to this token.
	Revision int64 `json:"revision"`

	// When the token was made, in UTC.
	CreatedAt time.Time `json:"created_at"`
}
