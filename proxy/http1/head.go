package http1

import (
	"bytes"
	"io"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Field is one line of a header. Its name is in canonical form.
type Field struct{ Name, Value string }

// Head is the status line and the header of an answer.
type Head struct {
	// Status is the status code, 100 to 999.
	Status int

	// Reason is the text behind it, mostly empty or the usual.
	Reason string

	// Minor is the minor version: 0 or 1.
	Minor int

	// Fields are the lines of the header in their order. Of equal lines with
	// Content-Length there is the first.
	Fields []Field

	// Length is that of the body by Content-Length; -1 if there is none.
	Length int64

	// Chunked says that the body is in chunks.
	Chunked bool

	// Close says that the server closes the connection behind the answer, or may.
	Close bool

	named map[string]struct{} // what Connection names beside close and keep-alive
	text  string              // all of it
}

// ReadHead reads a head. Before the first byte, an error is that of the connection:
// io.EOF if it was closed. h is used again: the strings of what it had stay valid.
func (r *Reader) ReadHead(h *Head) error {
	if r.r == r.w {
		if err := r.fill(MaxHeader); err != nil {
			return err
		}
	}
	end, err := r.headEnd()
	if err != nil {
		return err
	}
	text := string(r.buf[r.r:end])
	r.r = end
	return h.parse(text)
}

// headEnd returns where the header that begins at r.r ends. Lines are looked at as
// they come, so that a server that speaks something else is not waited for.
func (r *Reader) headEnd() (int, error) {
	at := 0      // from r.r, where the line begins
	scanned := 0 // from r.r, where there is no end of it
	for {
		i := bytes.IndexByte(r.buf[r.r+scanned:r.w], '\n')
		if i < 0 {
			scanned = r.w - r.r
			if scanned > MaxHeader {
				return 0, ErrTooLarge
			}
			if at == 0 && !isVersion(r.buf[r.r:r.w]) {
				return 0, malformed("it does not begin with HTTP/1.0 or HTTP/1.1")
			}
			if err := r.fill(MaxHeader + initialBuffer); err != nil {
				return 0, cutShort(err)
			}
			continue
		}
		i += scanned - at
		switch {
		case at == 0 && !isVersion(r.buf[r.r:r.r+i+1]):
			return 0, malformed("it does not begin with HTTP/1.0 or HTTP/1.1")
		case i == 0 || r.buf[r.r+at+i-1] != '\r':
			return 0, malformed("a line ends without CR")
		case at > 0 && i == 1:
			return r.r + at + 2, nil
		case at+i > MaxHeader:
			return 0, ErrTooLarge
		}
		at += i + 1
		scanned = at
	}
}

// isVersion says whether b begins, as far as it goes, as a status line does.
func isVersion(b []byte) bool {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	return string(b[:n]) == version[:n]
}

// parse reads a head that ends with an empty line.
func (h *Head) parse(text string) error {
	*h = Head{Fields: h.Fields[:0], Length: -1, text: text}
	line, rest, _ := strings.Cut(text, "\r\n")
	if err := h.parseStatus(line); err != nil {
		return err
	}
	for rest != "\r\n" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		field, err := parseField(line)
		if err != nil {
			return err
		}
		again := field.Name == "Content-Length" && h.Length >= 0
		if err := h.note(field); err != nil {
			return err
		}
		if !again {
			h.Fields = append(h.Fields, field)
		}
	}
	if h.Minor == 0 {
		h.Close = true
	}
	switch {
	case h.Chunked && h.Length >= 0:
		return malformed("it has both Transfer-Encoding and Content-Length")
	case h.Chunked && h.Minor == 0:
		return malformed("it is HTTP/1.0 and has Transfer-Encoding")
	case h.Chunked:
		return h.checkTrailer()
	}
	return nil
}

// checkTrailer refuses to have fields behind a body that say how to read it.
func (h *Head) checkTrailer() error {
	for _, f := range h.Fields {
		if f.Name != "Trailer" {
			continue
		}
		for name := range strings.SplitSeq(f.Value, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name)); !trailerMay(name) {
				return malformed("%s is to be in its trailer", name)
			}
		}
	}
	return nil
}

// Text returns the head as it came.
func (h *Head) Text() string { return h.text }

// parseStatus reads a status line: HTTP/1.1 SP 3DIGIT [SP reason].
func (h *Head) parseStatus(line string) error {
	const least = len("HTTP/1.1 200")
	if len(line) < least || line[8] != ' ' || len(line) > least && line[least] != ' ' {
		return malformed("its status line is no status line")
	}
	switch line[:8] {
	case "HTTP/1.1":
		h.Minor = 1
	case "HTTP/1.0":
	default:
		return malformed("its version is not 1.0 or 1.1")
	}
	for _, c := range []byte(line[9:least]) {
		if c < '0' || c > '9' {
			return malformed("its status is not a number of three digits")
		}
		h.Status = 10*h.Status + int(c-'0')
	}
	if h.Status < 100 {
		return malformed("its status is below 100")
	}
	if len(line) > least {
		h.Reason = line[least+1:]
	}
	if !validText(h.Reason) {
		return malformed("there are control characters in its status line")
	}
	return nil
}

// parseField reads a line of a header. Lines that go on with the one before, the
// "obs-fold" of RFC 9112, section 5.2, are refused.
func parseField(line string) (Field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" {
		return Field{}, malformed("a line of its header has no name")
	}
	for _, c := range []byte(name) {
		if c >= 0x80 || !httpguts.IsTokenRune(rune(c)) {
			return Field{}, malformed("a name in its header is none, or the line goes on with the one before")
		}
	}
	// Not textproto.TrimString, which takes a CR for a blank.
	if !validText(value) {
		return Field{}, malformed("there are control characters in its header")
	}
	return Field{textproto.CanonicalMIMEHeaderKey(name), strings.Trim(value, " \t")}, nil
}

// validText says whether s may be a field's value (RFC 9110, section 5.5).
func validText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// note takes what a field says about the answer's bounds and the connection.
func (h *Head) note(f Field) error {
	switch f.Name {
	case "Content-Length":
		n, ok := parseLength(f.Value)
		if !ok || h.Length >= 0 && h.Length != n {
			return malformed("its Content-Length is no number, or there are two")
		}
		h.Length = n
	case "Transfer-Encoding":
		// Anything else was not asked for, and can't be delimited.
		if h.Chunked || !strings.EqualFold(f.Value, "chunked") {
			return malformed("its Transfer-Encoding is not chunked")
		}
		h.Chunked = true
	case "Connection":
		for token := range strings.SplitSeq(f.Value, ",") {
			switch token = textproto.TrimString(token); {
			case strings.EqualFold(token, "close"):
				h.Close = true
			case token != "" && !strings.EqualFold(token, "keep-alive"):
				if h.named == nil {
					h.named = make(map[string]struct{})
				}
				h.named[textproto.CanonicalMIMEHeaderKey(token)] = struct{}{}
			}
		}
	}
	return nil
}

// parseLength reads digits, and nothing else, below 2^63.
func parseLength(s string) (int64, bool) {
	const mostDigits = 18
	if s == "" || len(s) > mostDigits {
		return 0, false
	}
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// HopByHop says whether a field of the header concerns the connection only: those of
// RFC 9110, section 7.6.1, what proxies are known to misuse, and what Connection
// names. The name is in canonical form.
func (h *Head) HopByHop(name string) bool {
	_, named := h.named[name]
	return named || IsHopByHop(name)
}

// IsHopByHop says whether a field concerns the connection only, by its name in
// canonical form. They are those that Caddy's reverse_proxy does not forward.
func IsHopByHop(name string) bool {
	switch name {
	case "Alt-Svc", "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// Informational says whether another head follows this one.
func (h *Head) Informational() bool {
	return h.Status >= 100 && h.Status <= 199 && h.Status != 101
}

// Body returns the body of the answer to a request with this method, and says in Close
// what it finds out about the connection.
func (r *Reader) Body(h *Head, method string) Body {
	b := Body{r: r}
	switch {
	case method == "HEAD" || h.Status == 304:
	case h.Status == 204 || h.Informational():
		// There must be none (RFC 9110, section 15.3.5). A server that announces one
		// may send one.
		if h.Chunked || h.Length > 0 {
			h.Close = true
		}
	case h.Chunked:
		b.state = chunkSize
	case h.Length >= 0:
		if b.left = h.Length; b.left > 0 {
			b.state = counted
		}
	default:
		b.state, h.Close = untilClose, true
	}
	return b
}

var _ io.Reader = (*Body)(nil)
