package routing

import (
	"iter"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"

	"github.com/isekai-gateway/isekai/store"
)

// Table is all live routes at one revision, ready for matching. It is immutable
// and safe for concurrent use; changes make a new table that shares what is equal.
type Table struct {
	revision int64
	byID     byID
	served   forest
	idle     forest // routes that are not enabled, for conflicts
	exprs    pmap[string, sharedExpr]
	enabled  int
	broken   byID // those that don't compile
}

// sharedExpr is a regexp that any number of routes use: compiled, it is larger
// than all the rest of a route.
type sharedExpr struct {
	re   *regexp.Regexp
	uses int
}

// NewTable compiles the rows into a table. Rows with DeletedAt set are left out.
// Rows that don't compile are kept, for Get and All, but match nothing; they don't
// disturb the others. The caller must not change the rows any more.
func NewTable(rows []*store.Route, revision int64) *Table {
	return new(Table).Replace(rows, revision)
}

// Apply returns a table in which the changed rows take the place of those with the
// same id, or are gone if they have DeletedAt set. A row that is there already at
// the same revision keeps its *Route. The cost depends on the number of changed
// rows, hardly on that of all.
func (t *Table) Apply(changed []*store.Route, revision int64) *Table {
	next := *t
	next.revision = revision
	e := new(edit)
	for _, row := range changed {
		old, ok := next.byID.get(row.ID)
		if ok && old.Revision == row.Revision && row.DeletedAt == nil {
			continue
		}
		if ok {
			next.drop(e, old)
		}
		if row.DeletedAt == nil {
			next.add(e, next.compile(row, nil))
		}
	}
	return &next
}

// Replace returns a table of exactly these rows, as NewTable does, but with the
// *Route of every row that is deeply equal to the one that t has.
func (t *Table) Replace(rows []*store.Route, revision int64) *Table {
	next := &Table{revision: revision}
	e, hosts := new(edit), make(hostCache)
	for _, row := range rows {
		if row.DeletedAt != nil {
			continue
		}
		if twin, ok := next.byID.get(row.ID); ok {
			next.drop(e, twin)
		}
		r, ok := t.byID.get(row.ID)
		if !ok || r.Revision != row.Revision || !reflect.DeepEqual(r.Row(), row) {
			r = next.compile(row, hosts)
		}
		next.add(e, r)
	}
	return next
}

// compile compiles a row with the regexps that the table has. The result for a row
// that doesn't compile has a problem.
func (t *Table) compile(row *store.Route, hosts hostCache) *Route {
	r, err := compile(row, hosts, func(source string) (*regexp.Regexp, error) {
		if shared, ok := t.exprs.get(source); ok {
			return shared.re, nil
		}
		return compileExpr(source)
	})
	if err != nil {
		return broken(row, err)
	}
	return r
}

func (t *Table) add(e *edit, r *Route) {
	t.byID.set(e, r)
	if r.Problem() != nil {
		t.broken.set(e, r)
		return
	}
	t.shareExprs(e, r, 1)
	if !r.enabled {
		t.idle.add(e, r)
		return
	}
	t.enabled++
	t.served.add(e, r)
}

func (t *Table) drop(e *edit, r *Route) {
	t.byID.remove(e, r.ID)
	if r.Problem() != nil {
		t.broken.remove(e, r.ID)
		return
	}
	t.shareExprs(e, r, -1)
	if !r.enabled {
		t.idle.drop(e, r)
		return
	}
	t.enabled--
	t.served.drop(e, r)
}

// shareExprs counts the uses of the route's regexps up or down.
func (t *Table) shareExprs(e *edit, r *Route, by int) {
	if r.extras().exprs == nil {
		return
	}
	p := r.pattern()
	for i, s := range p.segs.all(0) {
		if s.kind != kindExpr {
			continue
		}
		source := p.source(s)
		shared, ok := t.exprs.get(source)
		if !ok {
			shared.re = p.expr(i)
		}
		if shared.uses += by; shared.uses == 0 {
			t.exprs.remove(e, source)
		} else {
			t.exprs.set(e, source, shared)
		}
	}
}

// Match returns the route that serves the request, nil if there is none. It does
// not allocate, unless a candidate asks for query parameters or matches an encoded
// segment with a regexp.
func (t *Table) Match(q *Request) *Route {
	if neverServed(q.Method) {
		return nil
	}
	return t.served.match(q)
}

// Allow returns, for a request that Match has found no route for, the methods that
// would have found one, sorted, for the Allow field of a 405. None means 404.
func (t *Table) Allow(q *Request) []string {
	found := make(map[string]struct{})
	for tr := range t.served.levels(q.Host) {
		tr.each(0, q.Path, func(r *Route) {
			if !r.predicatesHold(q) {
				return
			}
			if r.bits&bitAll != 0 {
				for _, name := range usualMethods {
					found[name] = struct{}{}
				}
				return
			}
			for _, name := range r.Methods().Names() {
				found[name] = struct{}{}
			}
			if r.bits&bitGet != 0 {
				found[http.MethodHead] = struct{}{}
			}
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// Get returns the live row with this id, as Route.Row does, and why it is not served if
// it doesn't compile.
func (t *Table) Get(id int64) (row *store.Route, problem error, ok bool) {
	r, ok := t.byID.get(id)
	if !ok {
		return nil, nil, false
	}
	return r.Row(), r.Problem(), true
}

// All yields every live row, by id, and why it is not served if it doesn't compile.
func (t *Table) All() iter.Seq2[*store.Route, error] {
	return func(yield func(*store.Route, error) bool) {
		for r := range t.byID.all() {
			if !yield(r.Row(), r.Problem()) {
				return
			}
		}
	}
}

// Routes yields the route of every live row, by id: less than All makes, for who wants few
// of the rows.
func (t *Table) Routes() iter.Seq[*Route] { return t.byID.all() }

// RoutesAfter is Routes of the rows whose ids are above one that is not negative.
func (t *Table) RoutesAfter(id int64) iter.Seq[*Route] { return t.byID.from(id + 1) }

// Problems yields the live rows that don't compile, by id, and why. It costs
// nothing where there are none, however many rows there are.
func (t *Table) Problems() iter.Seq2[*store.Route, error] {
	return func(yield func(*store.Route, error) bool) {
		for r := range t.broken.all() {
			if !yield(r.Row(), r.Problem()) {
				return
			}
		}
	}
}

// Len returns the number of live rows.
func (t *Table) Len() int { return t.byID.len() }

// Served returns the number of routes that are enabled and compile.
func (t *Table) Served() int { return t.enabled }

// Broken returns the number of live rows that don't compile.
func (t *Table) Broken() int { return t.broken.len() }

// Revision returns the revision of the rows.
func (t *Table) Revision() int64 { return t.revision }

// Conflict returns a live route other than that with r's id, enabled or not, that
// matches exactly the same and has a method in common with r; nil if there is none.
func (t *Table) Conflict(r *Route) *Route {
	p, host := r.pattern(), r.MatchHost()
	for _, f := range []*forest{&t.served, &t.idle} {
		for _, o := range f.tree(host).find(&p) {
			if o.ID != r.ID && o.sameMatch(r) && o.Methods().Overlaps(r.Methods()) {
				return o
			}
		}
	}
	return nil
}
