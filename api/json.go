package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// maxDepth bounds how deep arrays and objects stand in each other. A route with
// nested plugins needs about twelve levels.
const maxDepth = 32

// syntaxError is a text that is no JSON, or none that we care to read.
type syntaxError struct{ message string }

func (e *syntaxError) Error() string { return e.message }

// parseJSON reads one JSON value as maps, slices, strings, json.Number, booleans and
// nil. It is stricter than encoding/json, which lets the last of several equal names
// win and replaces what is no character: two programs that read the same document
// must not come to different routes. What is wrong with the value comes as details;
// a text that has no value, as *syntaxError.
func parseJSON(text []byte) (value any, details []*huma.ErrorDetail, err error) {
	if !utf8.Valid(text) {
		return nil, nil, &syntaxError{"the body is not valid UTF-8"}
	}
	// The token reader below accepts some texts that are no JSON.
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, nil, &syntaxError{fmt.Sprintf("the body is not JSON: %s (at byte %d)", syntax, syntax.Offset)}
		}
		return nil, nil, &syntaxError{"the body is not JSON"}
	}
	p := &parser{text: text, dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	value, err = p.value(&location{name: "body"}, 0)
	return value, p.details, err
}

// parser builds a value from tokens and notes what is wrong on the way.
type parser struct {
	text    []byte
	dec     *json.Decoder
	details []*huma.ErrorDetail
}

func (p *parser) value(at *location, depth int) (any, error) {
	start := p.dec.InputOffset()
	token, err := p.dec.Token()
	if err != nil {
		return nil, fmt.Errorf("reading token: %w", err)
	}
	switch token := token.(type) {
	case json.Delim:
		if depth == maxDepth {
			return nil, &syntaxError{fmt.Sprintf("the body is nested deeper than %d levels", maxDepth)}
		}
		if token == '{' {
			return p.object(at, depth+1)
		}
		return p.array(at, depth+1)
	case string:
		p.checkString(at, token, p.text[start:p.dec.InputOffset()], "")
	case json.Number:
		if _, err := strconv.ParseFloat(token.String(), 64); err != nil {
			p.add(at, "is a number too large for most programs")
		}
	}
	return token, nil
}

func (p *parser) object(at *location, depth int) (any, error) {
	object := make(map[string]any)
	for p.dec.More() {
		start := p.dec.InputOffset()
		token, err := p.dec.Token()
		if err != nil {
			return nil, fmt.Errorf("reading name: %w", err)
		}
		name, _ := token.(string)
		p.checkString(at, name, p.text[start:p.dec.InputOffset()], "has a field whose name ")
		if _, ok := object[name]; ok {
			p.add(at.field(name), "is there more than once")
		}
		if object[name], err = p.value(at.field(name), depth); err != nil {
			return nil, err
		}
	}
	return object, p.end()
}

func (p *parser) array(at *location, depth int) (any, error) {
	array := []any{}
	for i := 0; p.dec.More(); i++ {
		v, err := p.value(at.item(i), depth)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
	}
	return array, p.end()
}

// end reads the bracket that closes an array or an object.
func (p *parser) end() error {
	if _, err := p.dec.Token(); err != nil {
		return fmt.Errorf("reading end: %w", err)
	}
	return nil
}

// checkString notes characters that no database or no other program would keep as
// they are. raw is the text around the token; in valid JSON a backslash stands
// nowhere but in a string.
func (p *parser) checkString(at *location, s string, raw []byte, subject string) {
	switch {
	case strings.ContainsRune(s, 0):
		p.add(at, subject+"contains a NUL character")
	case hasLoneSurrogate(raw):
		p.add(at, subject+`contains half of a surrogate pair (\ud800 to \udfff)`)
	}
}

func (p *parser) add(at *location, message string) {
	if len(p.details) < maxDetails {
		p.details = append(p.details, &huma.ErrorDetail{Location: at.String(), Message: message})
	}
}

// hasLoneSurrogate reports whether an escape in the text of a string names one half
// of a pair without the other. encoding/json replaces it silently.
func hasLoneSurrogate(raw []byte) bool {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return false
		}
		raw = raw[i:]
		r, ok := unicodeEscape(raw)
		switch {
		case !ok:
			raw = raw[2:]
		case !utf16.IsSurrogate(r):
			raw = raw[6:]
		default:
			second, _ := unicodeEscape(raw[6:])
			if utf16.DecodeRune(r, second) == utf8.RuneError {
				return true
			}
			raw = raw[12:]
		}
	}
}

// unicodeEscape reads the \uXXXX at the start of raw.
func unicodeEscape(raw []byte) (rune, bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	return rune(n), err == nil
}
