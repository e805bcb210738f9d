package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// Media types of request bodies.
const (
	mediaJSON  = "application/json"
	mediaMerge = "application/merge-patch+json"
)

// Bounds of a request body.
const (
	maxBody     = 1 << 20 // bytes
	bodyTimeout = 10 * time.Second
)

// requestBody is an operation's body before it is read. Huma would read it more
// leniently than parseJSON, and answer 500 when the connection breaks.
type requestBody struct {
	w http.ResponseWriter
	r *http.Request
}

// Resolve implements huma.Resolver.
func (b *requestBody) Resolve(ctx huma.Context) []error {
	b.r, b.w = humago.Unwrap(ctx)
	return nil
}

// object reads the body, which must be one JSON object of one of the media types.
func (b *requestBody) object(mediaTypes ...string) (map[string]any, error) {
	if b.r.ContentLength == 0 {
		return nil, huma.Error400BadRequest("the request needs a body: a JSON object")
	}
	if err := checkMediaType(b.r.Header, mediaTypes); err != nil {
		return nil, err
	}
	text, err := b.read(maxBody, bodyTimeout)
	if err != nil {
		return nil, err
	}
	return objectIn(text)
}

// parsed turns what a parser found wrong with a document into the answer's error.
func parsed(value any, details []*huma.ErrorDetail, err error) (any, error) {
	syntax, isSyntax := errors.AsType[*syntaxError](err)
	switch {
	case isSyntax:
		return nil, huma.Error400BadRequest(syntax.Error())
	case err != nil:
		return nil, err
	case len(details) > 0:
		return nil, invalid(details)
	}
	return value, nil
}

// objectIn parses a JSON object.
func objectIn(text []byte) (map[string]any, error) {
	value, err := parsed(parseJSON(text))
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, invalid([]*huma.ErrorDetail{{Location: "body", Message: "must be a JSON object"}})
	}
	return object, nil
}

// read reads the body, which must not be longer than limit, within a time.
func (b *requestBody) read(limit int64, within time.Duration) ([]byte, error) {
	tooLarge := fmt.Sprintf("the body must not be larger than %d bytes", limit)
	if b.r.ContentLength > limit {
		return nil, huma.NewError(http.StatusRequestEntityTooLarge, tooLarge)
	}
	// Not every server can set deadlines; those that can't have their own bound.
	conn := http.NewResponseController(b.w)
	_ = conn.SetReadDeadline(time.Now().Add(within))
	text, err := io.ReadAll(http.MaxBytesReader(b.w, b.r.Body, limit))
	// A deadline that passes later would look as if the client had left.
	_ = conn.SetReadDeadline(time.Time{})

	var large *http.MaxBytesError
	var network net.Error
	switch {
	case errors.As(err, &large):
		return nil, huma.NewError(http.StatusRequestEntityTooLarge, tooLarge)
	case errors.As(err, &network) && network.Timeout():
		return nil, huma.NewError(http.StatusRequestTimeout, "the body did not arrive in time")
	case err != nil:
		return nil, huma.Error400BadRequest("the body could not be read to its end")
	}
	return text, nil
}

// checkMediaType returns a 415 unless the body is of one of the media types, in
// UTF-8 and not compressed. A body without Content-Type is refused as well: a
// browser sends one across sites without asking.
func checkMediaType(header http.Header, mediaTypes []string) error {
	problem := ""
	media, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	switch charset, ok := params["charset"]; {
	case err != nil || !slices.Contains(mediaTypes, media):
		problem = "send the body with Content-Type: " + strings.Join(mediaTypes, " or ")
	case ok && !strings.EqualFold(charset, "utf-8"):
		problem = "send the body in UTF-8"
	case header.Get("Content-Encoding") != "" && !strings.EqualFold(header.Get("Content-Encoding"), "identity"):
		problem = "send the body without Content-Encoding"
	default:
		return nil
	}
	return huma.ErrorWithHeaders(huma.Error415UnsupportedMediaType(problem),
		http.Header{"Accept": {strings.Join(mediaTypes, ", ")}})
}

// decode makes a row of a parsed document, with the defaults for what is not in it,
// or says everything that is wrong with it. old is the route that it is to replace,
// nil for none; known is what is wrong with the document already.
func (s *server) decode(ctx context.Context, doc map[string]any, old *store.Route, known []*huma.ErrorDetail) (*store.Route, error) {
	return s.finish(ctx, doc, old, append(slices.Clip(known), s.route.check(doc)...))
}

// finish is decode for a document that was compared with the schema already: details is
// what is wrong with it, and has been taken out of it.
func (s *server) finish(ctx context.Context, doc map[string]any, old *store.Route, details []*huma.ErrorDetail) (*store.Route, error) {
	row := store.NewRoute("", "")
	if err := remarshal(doc, row); err != nil {
		return nil, fmt.Errorf("decoding a checked route: %w", err)
	}
	details = appendNew(details, resolveSecrets(row, old))
	_, compileErr := routing.Compile(row)
	var checkErr error
	if s.cfg.Check != nil {
		checkErr = s.cfg.Check(ctx, row)
	}
	for _, err := range []error{compileErr, checkErr} {
		var fields store.FieldErrors
		if err != nil && !errors.As(err, &fields) {
			if len(details) > 0 {
				break
			}
			return nil, fmt.Errorf("checking route: %w", err)
		}
		details = appendNew(details, bodyDetails(fields))
	}
	if len(details) > 0 {
		return nil, invalid(details)
	}
	return row, nil
}

// appendNew appends the errors of more whose location has none yet in details: what
// is missing or of the wrong type is wrong in other ways as well.
func appendNew(details, more []*huma.ErrorDetail) []*huma.ErrorDetail {
	seen := make(map[string]bool, len(details))
	for _, d := range details {
		seen[d.Location] = true
	}
	for _, d := range more {
		if !seen[d.Location] {
			details = append(details, d)
		}
	}
	return details
}

// mergePatch applies a JSON merge patch (RFC 7396) to target, in place, and returns
// the result. The patch is not changed, but the result may share values with it.
func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = make(map[string]any)
	}
	for name, change := range changes {
		if change == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], change)
		}
	}
	return object
}

// document returns the row as a parsed document, for mergePatch.
func document(row *store.Route) (map[string]any, error) {
	var doc map[string]any
	if err := remarshal(row, &doc); err != nil {
		return nil, fmt.Errorf("encoding route: %w", err)
	}
	return doc, nil
}

// remarshal turns one value into another by way of JSON, without rounding numbers.
func remarshal(from, to any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // plugins are kept as they are
	if err := enc.Encode(from); err != nil {
		return err
	}
	dec := json.NewDecoder(&text)
	dec.UseNumber()
	return dec.Decode(to)
}
