package routing

import (
	"encoding/binary"
	"math"
	"reflect"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// kept is a row in less memory than a store.Route takes, and above all with fewer
// pointers: of a large table the garbage collector visits each of them, again and again,
// while only a few of the rows are ever asked for.
type kept struct {
	// The row's id and revision.
	ID, Revision int64

	// Name, path, method, target and match key of the row, and the host if it is not the
	// route's, one after the other, each behind its length.
	texts string

	spec                         *store.Spec // nil for an empty one
	createdAt, updatedAt         int64       // ns since the Unix epoch, or never
	rateLimit, timeout, priority int32
	enabled, ownHost             bool
}

// never stands for the zero time.
const never = math.MinInt64

func keepTime(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixNano()
}

func keptTime(ns int64) time.Time {
	if ns == never {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// keep keeps a row, of a route whose host is the given one. Whether it is whole, or needs
// more than there is room for, ok says.
func keep(row *store.Route, host string) (k kept, ok bool) {
	k = kept{
		ID: row.ID, Revision: row.Revision,
		createdAt: keepTime(row.CreatedAt), updatedAt: keepTime(row.UpdatedAt),
		rateLimit: int32(row.RateLimit), timeout: int32(row.Timeout), priority: int32(row.Priority),
		enabled: row.Enabled, ownHost: row.Host != host,
	}
	ok = int(k.rateLimit) == row.RateLimit && int(k.timeout) == row.Timeout && int(k.priority) == row.Priority &&
		keptTime(k.createdAt).Equal(row.CreatedAt) && keptTime(k.updatedAt).Equal(row.UpdatedAt) && row.DeletedAt == nil
	if !reflect.ValueOf(&row.Spec).Elem().IsZero() {
		spec := row.Spec
		k.spec = &spec
	}
	texts := [...]string{row.Name, row.Path, row.Method, row.TargetURL, row.MatchKey, row.Host}
	list := texts[:]
	if !k.ownHost {
		list = texts[:len(texts)-1]
	}
	var space [512]byte // most are shorter, and copied once
	buf := space[:0]
	for _, text := range list {
		buf = binary.AppendUvarint(buf, uint64(len(text)))
		buf = append(buf, text...)
	}
	k.texts = string(buf)
	return k, ok
}

// cutText splits what begins with a text behind its length.
func cutText(s string) (text, rest string) {
	n := uint64(0)
	for i := range len(s) {
		n |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			s = s[i+1:]
			break
		}
	}
	return s[:n], s[n:]
}

// Name returns the route's name, empty if it has none.
func (k *kept) Name() string {
	name, _ := cutText(k.texts)
	return name
}

// Path returns the path pattern as the row has it.
func (k *kept) Path() string {
	_, rest := cutText(k.texts)
	path, _ := cutText(rest)
	return path
}

// Enabled returns whether the route is to be served.
func (k *kept) Enabled() bool { return k.enabled }

var noSpec store.Spec

// Spec returns the route's policies, which must not be changed.
func (k *kept) Spec() *store.Spec {
	if k.spec == nil {
		return &noSpec
	}
	return k.spec
}

// row returns the row, whose host is the given one unless it is written otherwise.
func (k *kept) row(host string) *store.Route {
	row := &store.Route{
		ID: k.ID, Revision: k.Revision, Host: host, Enabled: k.enabled,
		RateLimit: int(k.rateLimit), Timeout: int(k.timeout), Priority: int(k.priority),
		Spec: *k.Spec(), CreatedAt: keptTime(k.createdAt), UpdatedAt: keptTime(k.updatedAt),
	}
	rest := k.texts
	for _, text := range []*string{&row.Name, &row.Path, &row.Method, &row.TargetURL, &row.MatchKey} {
		*text, rest = cutText(rest)
	}
	if k.ownHost {
		row.Host, _ = cutText(rest)
	}
	return row
}
