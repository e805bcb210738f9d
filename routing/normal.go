package routing

import "github.com/isekai-gateway/isekai/store"

// Normalized returns a copy of the route's row with host and methods in the form
// in which they are matched. The path stays as it was written.
func (r *Route) Normalized() *store.Route {
	row := *r.Row()
	row.Host = r.MatchHost()
	row.Method = r.Methods().String()
	return &row
}

// Compiled returns the compiled form of a live row, also of a disabled one, or
// nil if there is none or it does not compile.
func (t *Table) Compiled(id int64) *Route {
	r := t.Route(id)
	if r == nil || r.Problem() != nil {
		return nil
	}
	return r
}

// Route returns a live row, also one that does not compile, whose Problem says why; or
// nil if there is none.
func (t *Table) Route(id int64) *Route {
	r, _ := t.byID.get(id)
	return r
}
