package routing

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ErrBadPath says that a request path is ambiguous or malformed, so that a
// gateway and the server behind it might read it differently. The text of an
// error that wraps it names the reason, holds nothing that the client sent, and
// may be shown to it.
var ErrBadPath = errors.New("bad path")

var (
	errNotRooted   = badPath("it does not start with a slash")
	errPercent     = badPath("it has a percent sign that is not followed by two hex digits")
	errControl     = badPath("it has a control character")
	errBackslash   = badPath("it has a backslash")
	errDotSegment  = badPath("it has a dot segment")
	errMultiEncode = badPath("it has a dot, slash, backslash or control character that is encoded more than once")
	errOverlong    = badPath("it has an overlong UTF-8 sequence")
)

func badPath(reason string) error { return fmt.Errorf("%w: %s", ErrBadPath, reason) }

// Path is a request path in canonical form.
type Path struct {
	// The path, percent-encoded: it starts with a slash, unreserved characters
	// stand for themselves, everything else that RFC 3986 does not allow in a
	// segment is a triplet in upper case. It has no dot segment and, apart from
	// one at the end, no empty segment.
	Text string

	// Whether the path had repeated slashes, which are one in Text.
	Merged bool
}

// CanonicalPath brings the path of a request, percent-encoded as it was sent, into
// canonical form. A "%2F" stays what it is, part of its segment. It refuses with
// ErrBadPath, rather than cleans, what servers are known to read in different
// ways, raw or encoded any number of times: dot segments (also between encoded
// slashes, and before matrix parameters: "..;x"), backslashes, control characters
// and overlong UTF-8; and invalid percent-encoding. A path that is canonical
// already is returned without an allocation.
func CanonicalPath(escaped string) (Path, error) {
	if escaped == "" || escaped[0] != '/' {
		return Path{}, errNotRooted
	}
	w := rewriter{src: escaped}
	merged := false
	for i := 0; i < len(escaped); {
		start := i + 1
		end, plain := scanSegment(escaped, start)
		if end == start && end < len(escaped) {
			merged = true
			w.replace(i, start, "")
			i = end
			continue
		}
		if err := w.segment(start, end, plain); err != nil {
			return Path{}, err
		}
		i = end
	}
	return Path{Text: w.text(), Merged: merged}, nil
}

// CanonicalURLPath is CanonicalPath for a parsed URL. It goes by u.RawPath if that
// is an encoding of u.Path, else by u.EscapedPath; unlike that alone, it keeps
// the difference between "/" and "%2F" also in paths with bytes that ought to be
// encoded and are not. An empty path is "/".
//
// The opaque form, "scheme:anything" without a path, is refused: as a request target it
// is none of RFC 9112's (3.2), but net/http takes it from an HTTP/1 client's request
// line, and sends it on in the place of the path.
func CanonicalURLPath(u *url.URL) (Path, error) {
	switch {
	case u.Opaque != "":
		return Path{}, errNotRooted
	case u.Path == "" && u.RawPath == "":
		return Path{Text: "/"}, nil
	case u.RawPath != "" && unescapesTo(u.RawPath, u.Path):
		return CanonicalPath(u.RawPath)
	}
	// net/url drops a RawPath that equals its own way to encode the path, so that
	// way, and not the bytes of Path, is what was sent.
	return CanonicalPath(u.EscapedPath())
}

// unescapesTo reports whether path is raw with its percent-encoding undone.
func unescapesTo(raw, path string) bool {
	j := 0
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			v, ok := triplet(raw[i:])
			if !ok {
				return false
			}
			c = v
			i += 2
		}
		if j == len(path) || path[j] != c {
			return false
		}
		j++
	}
	return j == len(path)
}

// Classes of bytes in a path.
const (
	unreserved byte = 1 << iota // RFC 3986, section 2.3
	plain                       // may stand in a segment as it is
	control                     // C0 controls and DEL
)

var class = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~", byte(c)) >= 0:
			t[c] = unreserved | plain
		case strings.IndexByte("!$&'()*+,;=:@", byte(c)) >= 0:
			t[c] = plain
		case c < 0x20, c == 0x7f:
			t[c] = control
		}
	}
	return t
}()

// scanSegment returns the end of the segment that starts at start, and whether all
// of its bytes may stand as they are.
func scanSegment(s string, start int) (end int, isPlain bool) {
	isPlain = true
	for end = start; end < len(s) && s[end] != '/'; end++ {
		if class[s[end]]&plain == 0 {
			isPlain = false
		}
	}
	return end, isPlain
}

// rewriter makes a changed copy of src, or none if nothing changes.
type rewriter struct {
	src  string
	done int    // src up to here is in buf, if there is one
	buf  []byte // nil before the first change
}

// replace puts text where src[from:to] was; calls come in order of from.
func (w *rewriter) replace(from, to int, text string) {
	if w.buf == nil {
		w.buf = make([]byte, 0, len(w.src)+16)
	}
	w.buf = append(w.buf, w.src[w.done:from]...)
	w.buf = append(w.buf, text...)
	w.done = to
}

func (w *rewriter) text() string {
	if w.buf == nil {
		return w.src
	}
	return string(append(w.buf, w.src[w.done:]...))
}

// segment checks src[start:end], which holds no slash, and rewrites it.
func (w *rewriter) segment(start, end int, isPlain bool) error {
	seg := w.src[start:end]
	if isPlain {
		if isDotSegment(seg) {
			return errDotSegment
		}
		return nil
	}
	for i := start; i < end; i++ {
		c := w.src[i]
		switch {
		case c == '%':
			v, ok := triplet(w.src[i:end])
			switch {
			case !ok:
				return errPercent
			case class[v]&control != 0:
				return errControl
			case v == '\\':
				return errBackslash
			case class[v]&unreserved != 0:
				w.replace(i, i+3, asciiText[v:v+1])
			case isLowerHex(w.src[i+1]) || isLowerHex(w.src[i+2]):
				w.replace(i, i+3, escapeText[3*int(v):3*int(v)+3])
			}
			i += 2
		case class[c]&control != 0:
			return errControl
		case c == '\\':
			return errBackslash
		case class[c]&plain == 0:
			w.replace(i, i+1, escapeText[3*int(c):3*int(c)+3])
		}
	}
	return checkDecoded(seg)
}

// isDotSegment reports whether s, without the matrix parameters that some servers
// cut off, is "." or "..".
func isDotSegment[T string | []byte](s T) bool {
	if len(s) == 0 || s[0] != '.' {
		return false
	}
	n := 1
	if len(s) > 1 && s[1] == '.' {
		n = 2
	}
	return len(s) == n || s[n] == ';'
}

const upperHex = "0123456789ABCDEF"

// asciiText and escapeText hold every ASCII byte and every triplet, to be cut out
// of without an allocation.
var asciiText, escapeText = func() (string, string) {
	var ascii, escapes strings.Builder
	for c := range 256 {
		if c < 0x80 {
			ascii.WriteByte(byte(c))
		}
		escapes.WriteByte('%')
		escapes.WriteByte(upperHex[c>>4])
		escapes.WriteByte(upperHex[c&15])
	}
	return ascii.String(), escapes.String()
}()

// triplet decodes the percent triplet that s starts with.
func triplet(s string) (v byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	hi, ok1 := unhex(s[1])
	lo, ok2 := unhex(s[2])
	return hi<<4 | lo, ok1 && ok2
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func isLowerHex(c byte) bool { return c >= 'a' && c <= 'f' }

// unescapeSegment undoes the percent-encoding of a canonical segment.
func unescapeSegment(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	buf := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			c, _ = triplet(s[i:])
			i += 2
		}
		buf = append(buf, c)
	}
	return string(buf)
}
