package routing

import (
	"cmp"
	"container/heap"
	"slices"
)

// HasHost tells whether served routes name a host: exactly, and the longest of the
// wildcards that stand for it, such as "*.example.com", if there is one. Routes for
// any host don't count. The host must be in the form that ParseHost returns.
func (t *Table) HasHost(host string) (exact bool, wildcard string) {
	if host == "" || len(host) > maxHost || host[0] == '*' {
		return false, ""
	}
	exact = t.served.exact.site(host) != nil
	if t.served.wild.size == 0 {
		return exact, ""
	}
	for i := 1; i < len(host); i++ {
		if host[i] == '.' && t.served.wild.site(host[i:]) != nil {
			return exact, "*" + host[i:]
		}
	}
	return exact, ""
}

// HostRoutes is a host that served routes name, exactly or as a wildcard.
type HostRoutes struct {
	Host   string
	Routes int // how many name it
}

// Hosts returns up to limit of the hosts that served routes name and for which keep
// returns true, in the order of their bytes, from the first one behind after.
func (t *Table) Hosts(after string, limit int, keep func(host string) bool) []HostRoutes {
	var lowest lastFirst
	add := func(host string, tr tree) {
		switch {
		case host <= after, len(lowest) == limit && limit > 0 && host > lowest[0].host, !keep(host):
			return
		}
		heap.Push(&lowest, hostTree{host, tr})
		if len(lowest) > limit {
			heap.Pop(&lowest)
		}
	}
	for s := range t.served.exact.all() {
		add(s.value.host(), s.value.tree)
	}
	for s := range t.served.wild.all() {
		add("*"+s.value.host(), s.value.tree)
	}
	slices.SortFunc(lowest, func(a, b hostTree) int { return cmp.Compare(a.host, b.host) })
	out := make([]HostRoutes, len(lowest))
	for i, h := range lowest {
		out[i] = HostRoutes{h.host, h.tree.count()}
	}
	return out
}

// count returns how many routes a tree has.
func (t tree) count() int {
	if list := t.tail(); list != nil {
		return len(list)
	}
	n := t.node
	if n == nil {
		return 0
	}
	count := len(n.routes) + len(n.rests) + n.param.count()
	for s := range n.literals.all() {
		count += s.value.count()
	}
	for _, x := range n.exprs {
		count += x.tree.count()
	}
	return count
}

type hostTree struct {
	host string
	tree tree
}

// lastFirst is a heap with the last host on top.
type lastFirst []hostTree

func (h lastFirst) Len() int           { return len(h) }
func (h lastFirst) Less(i, j int) bool { return h[i].host > h[j].host }
func (h lastFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lastFirst) Push(x any)        { *h = append(*h, x.(hostTree)) }
func (h *lastFirst) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
