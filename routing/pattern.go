package routing

import (
	"encoding/binary"
	"iter"
	"regexp"
	"strings"
)

// kind is what a segment of a pattern matches. The values are in the order in
// which patterns are tried; 0 stands for the end of a pattern.
type kind uint8

const (
	kindEnd     kind = iota
	kindLiteral      // this text
	kindExpr         // one non-empty segment that a regexp matches
	kindParam        // one non-empty segment
	kindRest         // nothing, or all that is left
)

// segment is one segment of a pattern, as offsets into the pattern's text.
type segment struct {
	kind       kind
	start, end int // the whole segment, with braces
	nameEnd    int // the name is from start+1 to here, unless kindLiteral
}

// segments are those of a pattern, one after the other, in a form that can be kept with
// other texts: the kind, and the ends of the segment and of its name in two bytes each.
// They fit, since a pattern's text is at most maxPattern long.
type segments string

// segmentSize is how many bytes one takes.
const segmentSize = 5

func appendSegment(b []byte, s segment) []byte {
	b = append(b, byte(s.kind))
	b = binary.LittleEndian.AppendUint16(b, uint16(s.end))
	return binary.LittleEndian.AppendUint16(b, uint16(s.nameEnd))
}

func (s segments) len() int { return len(s) / segmentSize }

func (s segments) kind(i int) kind { return kind(s[i*segmentSize]) }

// end returns where segment i ends in the text, 0 for the one before the first.
func (s segments) end(i int) int {
	if i < 0 {
		return 0
	}
	return s.number(i*segmentSize + 1)
}

func (s segments) number(at int) int { return int(s[at]) | int(s[at+1])<<8 }

func (s segments) at(i int) segment {
	return segment{kind: s.kind(i), start: s.end(i-1) + 1, end: s.end(i), nameEnd: s.number(i*segmentSize + 3)}
}

// all yields the segments from the given one on.
func (s segments) all(from int) iter.Seq2[int, segment] {
	return func(yield func(int, segment) bool) {
		for i := from; i < s.len(); i++ {
			if !yield(i, s.at(i)) {
				return
			}
		}
	}
}

// Pattern is a parsed path pattern. It is immutable and safe for concurrent use.
type Pattern struct {
	text  string
	segs  segments
	exprs *[]*regexp.Regexp // of the regexp segments, in order; nil if there are none
}

// Param is a parameter's name and its value in one request, which is a part of
// the canonical path and as percent-encoded as that is.
type Param struct{ Name, Value string }

// String returns the canonical text of the pattern, which parses to an equal one.
func (p *Pattern) String() string { return p.text }

func (p *Pattern) literal(s segment) string { return p.text[s.start:s.end] }

func (p *Pattern) name(s segment) string { return p.text[s.start+1 : s.nameEnd] }

// source returns the text of the regexp of a regexp segment.
func (p *Pattern) source(s segment) string { return p.text[s.nameEnd+1 : s.end-1] }

// Key returns a text that is equal for two patterns exactly if they differ in
// nothing but the names of parameters.
func (p *Pattern) Key() string {
	var b strings.Builder
	for _, s := range p.segs.all(0) {
		b.WriteByte('/')
		switch s.kind {
		case kindLiteral:
			b.WriteString(p.literal(s))
		case kindExpr:
			b.WriteString("{:" + p.source(s) + "}")
		case kindParam:
			b.WriteString("{}")
		case kindRest:
			b.WriteByte('*')
		}
	}
	return b.String()
}

// ParamNames returns the names of the parameters from left to right. The rest
// that is written "*" has no name and is not among them.
func (p *Pattern) ParamNames() []string {
	var names []string
	for _, s := range p.segs.all(0) {
		if s.kind != kindLiteral && p.name(s) != "" {
			names = append(names, p.name(s))
		}
	}
	return names
}

// LiteralPrefix returns the canonical path of the literal segments before the
// first parameter, without a slash at the end: "/orders" for "/orders/{id}", "" for
// "/{id}". For a pattern without parameters it is the whole path.
func (p *Pattern) LiteralPrefix() string {
	for _, s := range p.segs.all(0) {
		if s.kind != kindLiteral {
			return p.text[:s.start-1]
		}
	}
	return p.text
}

// Match reports whether the pattern matches a canonical path.
func (p *Pattern) Match(path string) bool { return p.matchFrom(0, path) }

// AppendParams appends the parameters of the pattern and their values in a
// canonical path that it matches. A named rest has the value without its leading
// slash, and an empty one if nothing is left.
func (p *Pattern) AppendParams(dst []Param, path string) []Param {
	for _, s := range p.segs.all(0) {
		if s.kind == kindRest {
			if name := p.name(s); name != "" {
				dst = append(dst, Param{name, strings.TrimPrefix(path, "/")})
			}
			return dst
		}
		if path == "" {
			return dst
		}
		var value string
		value, path = cutSegment(path)
		if s.kind != kindLiteral {
			dst = append(dst, Param{p.name(s), value})
		}
	}
	return dst
}

// cutSegment splits path, which starts with a slash, into its first segment and
// what follows, which is empty or starts with a slash.
func cutSegment(path string) (seg, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

// matchFrom reports whether the segments of the pattern from the given one on
// match rest, which is empty or starts with a slash.
func (p *Pattern) matchFrom(depth int, rest string) bool {
	for i, s := range p.segs.all(depth) {
		if s.kind == kindRest {
			return true
		}
		if rest == "" {
			return false
		}
		if s.kind == kindLiteral {
			// With the slash before it, and up to one.
			n := s.end - s.start + 1
			if len(rest) < n || rest[:n] != p.text[s.start-1:s.end] || len(rest) > n && rest[n] != '/' {
				return false
			}
			rest = rest[n:]
			continue
		}
		var seg string
		seg, rest = cutSegment(rest)
		switch {
		case seg == "":
			return false
		case s.kind == kindExpr:
			if !p.expr(i).MatchString(unescapeSegment(seg)) {
				return false
			}
		}
	}
	return rest == ""
}

// expr returns the regexp of segment i.
func (p *Pattern) expr(i int) *regexp.Regexp {
	n := 0
	for j := range i {
		if p.segs.kind(j) == kindExpr {
			n++
		}
	}
	return (*p.exprs)[n]
}

// kindAt returns the kind of segment i, kindEnd after the last.
func (p *Pattern) kindAt(i int) kind {
	if i < p.segs.len() {
		return p.segs.kind(i)
	}
	return kindEnd
}

// compare orders two patterns that match the same path by how specific they are:
// negative if p comes first.
func (p *Pattern) compare(o *Pattern) int {
	for i := 0; ; i++ {
		a, b := p.kindAt(i), o.kindAt(i)
		if a != b {
			return int(a) - int(b)
		}
		if a == kindEnd || a == kindRest {
			return 0
		}
	}
}

// sameSegment reports whether segment i of both patterns matches the same texts.
func (p *Pattern) sameSegment(o *Pattern, i int) bool {
	a, b := p.segs.at(i), o.segs.at(i)
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case kindLiteral:
		return p.literal(a) == o.literal(b)
	case kindExpr:
		return p.source(a) == o.source(b)
	default:
		return true
	}
}

// textFrom returns the text from the given segment on, with the slash before it.
func (p *Pattern) textFrom(depth int) string {
	return p.text[p.segs.end(depth-1):]
}

// sameFrom reports whether both patterns are equal, but for names of parameters,
// from the given segment on.
func (p *Pattern) sameFrom(o *Pattern, depth int) bool {
	if p.segs.len() != o.segs.len() {
		return false
	}
	for i := depth; i < p.segs.len(); i++ {
		if !p.sameSegment(o, i) {
			return false
		}
	}
	return true
}
