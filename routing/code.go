package routing

import (
	"bytes"
	"strings"
)

// codeMax is how long a code may be: as long as a Route has room in one line of a
// processor's cache.
const codeMax = 44

// Marks in a code. Canonical paths have no control characters.
const (
	codeParam = 1 // one segment that is not empty
	codeRest  = 2 // nothing, or all that is left, with its slash
)

// code is a pattern in the form in which most are compared with paths: the text without
// names, with a mark for each parameter. Where a table is large, a match costs what it
// costs to read the route, and this is all in one place.
type code struct {
	text [codeMax]byte
	size uint8 // 0 for patterns that are too long, or have regexps
	lead uint8 // bytes before the first mark
}

func (p *Pattern) code() code {
	var c code
	n := 0
	for _, s := range p.segs.all(0) {
		if s.kind == kindExpr || n+1+s.end-s.start > codeMax && s.kind == kindLiteral || n+2 > codeMax {
			return code{}
		}
		switch s.kind {
		case kindLiteral:
			n += copy(c.text[n:], p.text[s.start-1:s.end])
		case kindParam:
			n += copy(c.text[n:], []byte{'/', codeParam})
		default:
			n += copy(c.text[n:], []byte{codeRest})
		}
	}
	c.size, c.lead = uint8(n), uint8(n)
	if i := bytes.IndexFunc(c.text[:n], func(r rune) bool { return r <= codeRest }); i >= 0 {
		c.lead = uint8(i)
	}
	return c
}

// matchFrom is Pattern.matchFrom.
func (c *code) matchFrom(depth int, rest string) bool {
	i := 0
	if depth == 0 {
		i = int(c.lead)
		if len(rest) < i || rest[:i] != string(c.text[:i]) {
			return false
		}
		rest = rest[i:]
	} else {
		i = c.segment(depth)
	}
	for ; i < int(c.size); i++ {
		switch b := c.text[i]; b {
		case codeParam:
			n := strings.IndexByte(rest, '/')
			if n < 0 {
				n = len(rest)
			}
			if n == 0 {
				return false
			}
			rest = rest[n:]
		case codeRest:
			return rest == "" || rest[0] == '/'
		default:
			if rest == "" || rest[0] != b {
				return false
			}
			rest = rest[1:]
		}
	}
	return rest == ""
}

// segment returns where a segment begins, which may be the end.
func (c *code) segment(depth int) int {
	for i, b := range c.text[:c.size] {
		if b == '/' || b == codeRest {
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return int(c.size)
}
