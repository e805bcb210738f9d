package routing

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// Bounds of a pattern.
const (
	maxPattern = 2048 // bytes
	maxParams  = 32
	maxExpr    = 512 // bytes of one regexp

	// Instructions of one compiled regexp. Repeat counts multiply, and so do the
	// instructions and the length of a segment in the time that a match takes.
	maxExprSize = 2500
)

// ParsePattern parses a path pattern. It starts with a slash, and each segment is
// one of
//
//	text            this text; percent-encoded or not, it is made canonical
//	{name}          any one segment that is not empty
//	{name:regexp}   one segment that is not empty and that the regexp (RE2)
//	                matches as a whole, once its percent-encoding is undone
//	{name...} or *  the rest of the path, also none; only at the end
//
// so "/a/*" matches "/a", "/a/" and all below. Elsewhere a slash at the end counts:
// "/a/" and "/a" differ. Names are ASCII letters, digits, "_" and "-", begin with
// no digit and no "-", and are unique in the pattern. A regexp may hold braces if
// they are balanced, escaped or in brackets. The bounds are 2,048 bytes once it is
// percent-encoded, 32 parameters, and for a regexp 512 bytes and 2,500 compiled
// instructions. Errors say what to write instead.
func ParsePattern(s string) (*Pattern, error) {
	p, err := parsePattern(s, compileExpr)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// compileExpr compiles a pattern's regexp to match whole texts only.
func compileExpr(source string) (*regexp.Regexp, error) {
	// Alone first: "a)(b" is no regexp, but would be one inside parentheses.
	parsed, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxExprSize {
		return nil, errors.New("is too complex; use smaller repeat counts")
	}
	return regexp.Compile("^(?:" + source + ")$")
}

// parsePattern is ParsePattern with a way to share compiled regexps.
func parsePattern(s string, compile func(string) (*regexp.Regexp, error)) (Pattern, error) {
	switch {
	case s == "":
		return Pattern{}, errors.New(`must not be empty; write "/*" to match every path`)
	case s[0] != '/':
		return Pattern{}, errors.New(`must start with a slash`)
	case len(s) > maxPattern:
		return Pattern{}, fmt.Errorf("must not be longer than %d bytes", maxPattern)
	}
	b := patternBuilder{compile: compile}
	for i := 0; i < len(s); {
		start := i + 1
		end := patternSegmentEnd(s, start)
		if err := b.add(s[start:end], end == len(s)); err != nil {
			return Pattern{}, fmt.Errorf("at position %d: %w", start+1, err)
		}
		i = end
	}
	if len(b.text) > maxPattern {
		return Pattern{}, fmt.Errorf("must not be longer than %d bytes once it is percent-encoded", maxPattern)
	}
	// Patterns are mostly canonical: keep no second copy of the text then.
	if string(b.text) == s {
		b.p.text = s
	} else {
		b.p.text = string(b.text)
	}
	b.p.segs = segments(b.segs)
	return b.p, nil
}

// patternSegmentEnd returns where the segment that starts at start ends: at the
// next slash that is not in braces, or at the end of s.
func patternSegmentEnd(s string, start int) int {
	depth := 0
	for i := start; i < len(s); i++ {
		switch c := s[i]; {
		case c == '/' && depth == 0:
			return i
		case c == '{':
			depth++
		case depth == 0:
		case c == '}':
			depth--
		case c == '\\':
			i++
		case c == '[':
			i = bracketsEnd(s, i)
		}
	}
	return len(s)
}

// bracketsEnd returns where the regexp's character class that starts at i ends, or
// i if it does not end.
func bracketsEnd(s string, i int) int {
	j := i + 1
	if j < len(s) && s[j] == '^' {
		j++
	}
	if j < len(s) && s[j] == ']' { // a "]" that comes first stands for itself
		j++
	}
	for ; j < len(s); j++ {
		switch s[j] {
		case '\\':
			j++
		case '[':
			if strings.HasPrefix(s[j:], "[:") {
				if n := strings.Index(s[j:], ":]"); n > 0 {
					j += n + 1
				}
			}
		case ']':
			return j
		}
	}
	return i
}

type patternBuilder struct {
	p       Pattern
	text    []byte
	segs    []byte
	params  int
	compile func(string) (*regexp.Regexp, error)
}

// add appends one segment.
func (b *patternBuilder) add(seg string, last bool) error {
	switch {
	case seg == "" && !last:
		return errors.New("an empty segment can only be the last one; write one slash")
	case seg == "*":
		if !last {
			return errors.New(`"*" matches the rest of the path and can only be the last segment; write {name} for one segment`)
		}
		b.append(kindRest, seg, 1)
		return nil
	case strings.HasPrefix(seg, "{") && patternBracesEnd(seg) == len(seg):
		return b.addParam(seg, last)
	default:
		return b.addLiteral(seg)
	}
}

// patternBracesEnd returns where the braces that seg starts with end, or 0.
func patternBracesEnd(seg string) int {
	depth := 0
	for i := 0; i < len(seg); i++ {
		switch seg[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '\\':
			i++
		case '[':
			i = bracketsEnd(seg, i)
		}
	}
	return 0
}

func (b *patternBuilder) append(k kind, text string, nameLen int) {
	b.text = append(b.text, '/')
	start := len(b.text)
	b.text = append(b.text, text...)
	b.segs = appendSegment(b.segs, segment{kind: k, end: len(b.text), nameEnd: start + nameLen})
}

func (b *patternBuilder) addLiteral(seg string) error {
	if i := strings.IndexAny(seg, "{}"); i >= 0 {
		return braceError(seg, i)
	}
	if strings.Contains(seg, "*") {
		return errors.New(`"*" must be a whole segment, and the last; write a regexp like ` +
			"{name:" + strings.ReplaceAll(regexp.QuoteMeta(seg), `\*`, ".*") + "} to match a part of a segment")
	}
	if i := strings.IndexAny(seg, "?#"); i >= 0 {
		hint := "a path ends before it"
		if seg[i] == '?' {
			hint = `put query parameters into "query"`
		}
		return fmt.Errorf("%q does not belong into a path: %s, or write %s for the character itself", seg[i:i+1], hint, escapeText[3*int(seg[i]):3*int(seg[i])+3])
	}
	path, err := CanonicalPath("/" + seg)
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), ErrBadPath.Error()+": it ")
		return fmt.Errorf("segment %q %s; requests with such paths are refused", seg, reason)
	}
	b.append(kindLiteral, path.Text[1:], 0)
	return nil
}

// braceError explains the brace at i of a segment that is no parameter.
func braceError(seg string, i int) error {
	if seg[i] == '}' {
		return errors.New(`"}" has no "{" before it; write %7D for the character itself`)
	}
	n := patternBracesEnd(seg[i:])
	if n == 0 {
		return errors.New(`"{" has no "}" after it; write %7B for the character itself`)
	}
	name, source, isExpr := strings.Cut(seg[i+1:i+n-1], ":")
	after := seg[i+n:]
	if !isName(name) || strings.ContainsAny(after, "{}") {
		return errors.New("a parameter must be a whole segment, like {name}")
	}
	if !isExpr {
		source = ".*"
	}
	return fmt.Errorf("a parameter must be a whole segment; write {%s:%s%s%s}", name, regexp.QuoteMeta(seg[:i]), source, regexp.QuoteMeta(after))
}

// addParam appends the segment seg, which is in braces.
func (b *patternBuilder) addParam(seg string, last bool) error {
	if b.params++; b.params > maxParams {
		return fmt.Errorf("a pattern can have no more than %d parameters", maxParams)
	}
	name, source, isExpr := strings.Cut(seg[1:len(seg)-1], ":")
	isRest := false
	if !isExpr {
		name, isRest = strings.CutSuffix(name, "...")
	}
	switch {
	case name == "$":
		return errors.New(`{$} is not needed: a path that ends in a slash matches only itself`)
	case name == "" && isRest:
		return errors.New(`a parameter needs a name; write {name...} or "*"`)
	case name == "":
		return errors.New("a parameter needs a name, like {name}")
	case !isName(name):
		return fmt.Errorf(`%q is no name for a parameter: use letters, digits, "_" and "-", and begin with a letter or "_"`, name)
	case isRest && !last:
		return fmt.Errorf("{%[1]s...} matches the rest of the path and can only be the last segment; write {%[1]s} for one segment", name)
	case slices.Contains(b.names(), name):
		return fmt.Errorf("the parameter {%s} is there twice; give each its own name", name)
	}
	k := kindParam
	switch {
	case isRest:
		k = kindRest
	case isExpr:
		k = kindExpr
		re, err := b.expr(name, source)
		if err != nil {
			return err
		}
		if b.p.exprs == nil {
			b.p.exprs = new([]*regexp.Regexp)
		}
		*b.p.exprs = append(*b.p.exprs, re)
	}
	b.append(k, seg, 1+len(name))
	return nil
}

// expr checks and compiles the regexp of a parameter.
func (b *patternBuilder) expr(name, source string) (*regexp.Regexp, error) {
	switch {
	case source == "":
		return nil, fmt.Errorf("{%[1]s:} has no regexp; write {%[1]s}", name)
	case len(source) > maxExpr:
		return nil, fmt.Errorf("the regexp of {%s} must not be longer than %d bytes", name, maxExpr)
	}
	re, err := b.compile(source)
	if err != nil {
		return nil, fmt.Errorf("the regexp of {%s}: %w", name, err)
	}
	return re, nil
}

func (b *patternBuilder) names() []string {
	p := Pattern{text: string(b.text), segs: segments(b.segs)}
	return p.ParamNames()
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '_', c|0x20 >= 'a' && c|0x20 <= 'z':
		case i > 0 && (c == '-' || c >= '0' && c <= '9'):
		default:
			return false
		}
	}
	return s != ""
}
