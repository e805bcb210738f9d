package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// wantedRoute is a route of a document, and what came of it in the last attempt.
type wantedRoute struct {
	doc     map[string]any
	details []*huma.ErrorDetail // what the schema says

	// The row as it is written there, by which it is recognized; the mask stands for
	// secrets. exact tells that nothing had to be left out.
	rough *store.Route
	exact bool

	done bool // row and err are for old
	old  *store.Route
	row  *store.Route
	err  error
}

func (s *server) newWantedRoute(doc map[string]any) (*wantedRoute, error) {
	w := &wantedRoute{doc: doc, rough: store.NewRoute("", "")}
	// What is only read can be there, as in an answer of this API.
	for _, name := range []string{"id", "revision", "created_at", "updated_at", "warnings", "error"} {
		delete(doc, name)
	}
	w.exact = remarshal(doc, w.rough) == nil
	w.details = s.route.check(doc)
	if !w.exact {
		w.rough = store.NewRoute("", "")
		if err := remarshal(doc, w.rough); err != nil {
			return nil, fmt.Errorf("decoding a checked route: %w", err)
		}
	}
	return w, nil
}

// settle returns the row that a route of the document is to be, nil if old is that
// already. Then it does not matter whether it would be accepted today.
func (s *server) settle(ctx context.Context, w *wantedRoute, old *store.Route) (*store.Route, error) {
	if w.done && w.old == old {
		return w.row, w.err
	}
	w.done, w.old, w.row, w.err = true, old, nil, nil
	if w.doc == nil {
		w.err = invalid(w.details)
		return nil, w.err
	}
	if old != nil && w.exact && sameAs(w.rough, old) {
		return nil, nil
	}
	row, err := s.finish(ctx, w.doc, old, slices.Clip(w.details))
	if err != nil {
		w.err = err
		return nil, err
	}
	if old != nil {
		row.ID, row.Revision, row.CreatedAt = old.ID, old.Revision, old.CreatedAt
	}
	w.row = row
	return row, nil
}

// sameAs reports whether a route of a document says what the row does, with the mask
// for the row's secrets, and apart from how hosts and methods are spelt.
func sameAs(wanted, old *store.Route) bool {
	row := *wanted
	if u := row.Upstream; u != nil {
		upstream := *u
		if u.TLS != nil {
			settings := *u.TLS
			upstream.TLS = &settings
		}
		row.Upstream = &upstream
	}
	if len(resolveSecrets(&row, old)) > 0 {
		return false
	}
	return gateway.SameContent(&row, old) || gateway.SameContent(normal(&row), normal(old))
}

func normal(row *store.Route) *store.Route {
	if compiled, err := routing.Compile(row); err == nil {
		return compiled.Normalized()
	}
	return row
}

// matchRoutes finds the route that each one of a document is, nil for a new one, and
// returns those that the document does not have. It goes from what says most to what
// says least; what could be several is none. Routes that can't be read are not looked
// at, since a document can't have them.
func matchRoutes(table *routing.Table, wanted []*wantedRoute) (olds []*store.Route, others []*store.Route) {
	left := make([]*store.Route, 0, table.Len())
	for row := range table.All() {
		if row.DecodeError == "" {
			left = append(left, row)
		}
	}
	m := matcher{
		olds: make([]*store.Route, len(wanted)), rows: left,
		have: make([]identity, len(left)), want: make([]identity, len(wanted)), taken: make([]bool, len(left)),
	}
	for i, row := range left {
		m.have[i] = identityOf(row)
	}
	for i, w := range wanted {
		m.want[i] = identityOf(w.rough)
	}
	m.by(func(i identity) identity { return i })
	m.by(func(i identity) identity { return identity{name: i.name} })
	m.by(func(i identity) identity { i.name = ""; return i })
	m.by(func(i identity) identity { i.name, i.priority = "", 0; return i })
	for i, row := range left {
		if !m.taken[i] {
			others = append(others, row)
		}
	}
	return m.olds, others
}

// identity is what a route is recognized by, or a part of that.
type identity struct {
	name, host, path, method, predicates string
	priority                             int
}

func identityOf(row *store.Route) identity {
	row = normal(row)
	return identity{
		name: row.Name, host: row.Host, path: row.Path, method: row.Method,
		predicates: predicates(row), priority: row.Priority,
	}
}

// predicates writes a row's header and query predicates in a fixed order.
func predicates(row *store.Route) string {
	if len(row.Headers) == 0 && len(row.Query) == 0 {
		return ""
	}
	text, _ := json.Marshal([]map[string]string{row.Headers, row.Query}) // maps of texts can be written
	return string(text)
}

type matcher struct {
	olds       []*store.Route // found so far
	rows       []*store.Route
	have, want []identity
	taken      []bool // of rows
}

// by matches what is left by a part of the identity, if that is there once on either
// side.
func (m *matcher) by(part func(identity) identity) {
	type candidates struct{ have, want, at, to int }
	found := make(map[identity]*candidates)
	of := func(i identity) *candidates {
		key := part(i)
		if key == (identity{}) {
			return new(candidates) // a name that is not there says nothing
		}
		c, ok := found[key]
		if !ok {
			c = new(candidates)
			found[key] = c
		}
		return c
	}
	for i, id := range m.have {
		if !m.taken[i] {
			c := of(id)
			c.have, c.at = c.have+1, i
		}
	}
	for i, id := range m.want {
		if m.olds[i] == nil {
			c := of(id)
			c.want, c.to = c.want+1, i
		}
	}
	for _, c := range found {
		if c.have == 1 && c.want == 1 {
			m.olds[c.to], m.taken[c.at] = m.rows[c.at], true
		}
	}
}
