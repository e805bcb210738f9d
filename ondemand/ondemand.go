// Package ondemand decides, from the route table in memory, which host names may get
// a certificate when a client first asks for them. It knows nothing of Caddy.
package ondemand

import (
	"errors"
	"fmt"

	"github.com/isekai-gateway/isekai/routing"
)

// Reasons to refuse a name.
var (
	// ErrNotReady says that the routes were never loaded, so that nobody knows.
	ErrNotReady = errors.New("the routes are not loaded yet")

	// ErrNoRoute says that no enabled route names the host.
	ErrNoRoute = errors.New("no enabled route names this host")

	// ErrWildcard says that only a wildcard route stands for the host, and these are
	// not to get certificates.
	ErrWildcard = errors.New("only a wildcard route stands for this host, and wildcards are not allowed")

	// ErrTooMany says that a wildcard route has had its number of names for now.
	ErrTooMany = errors.New("too many different names of a wildcard route have asked for a certificate lately")
)

// Check returns nil if the name may get a certificate, or be served one that is
// stored: if a served route of the table names it exactly, or if a wildcard does and
// budget, which may be nil, has room for it. Letter case, a dot at the end and the
// form of international names don't matter. An IP address is a name like others, but
// no wildcard stands for it. A nil table allows nothing.
func Check(table *routing.Table, budget *Budget, name string) error {
	if table == nil {
		return ErrNotReady
	}
	host, err := routing.ParseHost(name)
	if err != nil {
		return fmt.Errorf("the name %w", err)
	}
	exact, wildcard := table.HasHost(host)
	switch {
	case exact:
		return nil
	case wildcard == "":
		return ErrNoRoute
	case budget == nil:
		return ErrWildcard
	case !budget.take(wildcard, host):
		return ErrTooMany
	}
	return nil
}
