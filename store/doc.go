// Package store keeps routes, their history and the request log in PostgreSQL or
// SQLite, behind one interface and, where both databases allow it, one set of
// SQL. It knows what a row is, not what it matches or where it leads.
package store
