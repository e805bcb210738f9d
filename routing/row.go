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

	// What the constants that begin with text count, each behind its length.
	texts string

	spec                         *store.Spec // nil for an empty one
	createdAt, updatedAt         int64       // ns since the Unix epoch, or never
	rateLimit, timeout, priority int32
	enabled                      bool
	ownPath, ownHost, ownKey     bool // they can't be had from what the route matches
}

// The texts of a row, in their order. Those that can be had from what the route matches
// are empty or left out.
const (
	textSegments = iota // Pattern.segs
	textPattern         // Pattern.text
	textHost            // as ParseHost returns it
	textName
	textMethod
	textTarget
	textMatchKey // if ownKey
	textPath     // if ownPath
	textRowHost  // if ownHost
)

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

// keep keeps a row with what it matches. derived says that the row's match key is that of
// what it matches. Whether the row is whole, or needs more than there is room for, ok says.
func keep(row *store.Route, host string, p *Pattern, derived bool) (k kept, ok bool) {
	k = kept{
		ID: row.ID, Revision: row.Revision,
		createdAt: keepTime(row.CreatedAt), updatedAt: keepTime(row.UpdatedAt),
		rateLimit: int32(row.RateLimit), timeout: int32(row.Timeout), priority: int32(row.Priority),
		enabled: row.Enabled, ownPath: row.Path != p.text, ownHost: row.Host != host, ownKey: !derived,
	}
	ok = int(k.rateLimit) == row.RateLimit && int(k.timeout) == row.Timeout && int(k.priority) == row.Priority &&
		keptTime(k.createdAt).Equal(row.CreatedAt) && keptTime(k.updatedAt).Equal(row.UpdatedAt) && row.DeletedAt == nil
	if !reflect.ValueOf(&row.Spec).Elem().IsZero() {
		spec := row.Spec
		k.spec = &spec
	}
	texts := [...]string{
		textSegments: string(p.segs), textPattern: p.text, textHost: host, textName: row.Name,
		textMethod: row.Method, textTarget: row.TargetURL, textMatchKey: "", textPath: "", textRowHost: "",
	}
	if k.ownKey {
		texts[textMatchKey] = row.MatchKey
	}
	end := textPath
	if k.ownPath {
		texts[textPath], end = row.Path, textRowHost
	}
	if k.ownHost {
		texts[textRowHost], end = row.Host, len(texts)
	}
	var space [512]byte // most are shorter, and copied once
	buf := space[:0]
	for _, text := range texts[:end] {
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

// text returns one of the texts.
func (k *kept) text(which int) string {
	text, rest := cutText(k.texts)
	for range which {
		text, rest = cutText(rest)
	}
	return text
}

// MatchHost returns the host that the route matches, as ParseHost returns it.
func (k *kept) MatchHost() string { return k.text(textHost) }

// Name returns the route's name, empty if it has none.
func (k *kept) Name() string { return k.text(textName) }

// Path returns the path pattern as the row has it.
func (k *kept) Path() string {
	if k.ownPath {
		return k.text(textPath)
	}
	return k.text(textPattern)
}

// Host returns the host as the row has it.
func (k *kept) Host() string {
	if k.ownHost {
		return k.text(textRowHost)
	}
	return k.MatchHost()
}

// Enabled returns whether the row is enabled.
func (k *kept) Enabled() bool { return k.enabled }

var noSpec store.Spec

// Spec returns the route's policies, which must not be changed.
func (k *kept) Spec() *store.Spec {
	if k.spec == nil {
		return &noSpec
	}
	return k.spec
}

// row returns the row, without a match key that can be had from what the route matches.
func (k *kept) row() *store.Route {
	return &store.Route{
		ID: k.ID, Revision: k.Revision, Enabled: k.enabled,
		Name: k.Name(), Host: k.Host(), Path: k.Path(), Method: k.text(textMethod),
		TargetURL: k.text(textTarget), MatchKey: k.text(textMatchKey),
		RateLimit: int(k.rateLimit), Timeout: int(k.timeout), Priority: int(k.priority),
		Spec: *k.Spec(), CreatedAt: keptTime(k.createdAt), UpdatedAt: keptTime(k.updatedAt),
	}
}
