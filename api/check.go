package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// checker compares a parsed document with a schema and names everything that does
// not fit. Huma's own validation takes names in any case, as encoding/json does;
// here "Path" is an unknown field, for else it and "path" could both be there.
type checker struct {
	schemas huma.Registry
	schema  *huma.Schema
}

// check returns what is wrong with doc and removes it, so that the rest can be
// looked at further. Fields that only the server writes are removed silently: what
// a client has read it can send back.
func (c checker) check(doc map[string]any) []*huma.ErrorDetail {
	for name, field := range c.schema.Properties {
		if field.ReadOnly {
			delete(doc, name)
		}
	}
	r := checkRun{schemas: c.schemas}
	r.object(c.schema, &location{name: "body"}, doc)
	return r.details
}

type checkRun struct {
	schemas huma.Registry
	details []*huma.ErrorDetail
}

// full says that nobody will read on; it bounds the work for a hostile document.
func (r *checkRun) full() bool { return len(r.details) >= maxDetails }

func (r *checkRun) add(at *location, message string, value any) {
	if r.full() {
		return
	}
	r.details = append(r.details, &huma.ErrorDetail{Location: at.String(), Message: message, Value: value})
}

func (r *checkRun) object(s *huma.Schema, at *location, doc map[string]any) {
	for _, name := range s.Required {
		if _, ok := doc[name]; !ok && !s.Properties[name].ReadOnly {
			r.add(at.field(name), "is required", nil)
		}
	}
	if s.MaxProperties != nil && len(doc) > *s.MaxProperties {
		r.add(at, fmt.Sprintf("must not have more than %d entries", *s.MaxProperties), nil)
	}
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		field, ok := s.Properties[name]
		if !ok {
			field, ok = s.AdditionalProperties.(*huma.Schema)
		}
		switch {
		case ok:
			ok = r.value(field, at.field(name), doc[name])
		case s.AdditionalProperties == true:
			ok = true
		case !r.full():
			r.add(at.field(name), "unknown field"+suggest(s, name), nil)
		}
		if !ok {
			delete(doc, name)
		}
	}
}

// value reports whether v is of the schema's type and within its bounds.
func (r *checkRun) value(s *huma.Schema, at *location, v any) bool {
	for s.Ref != "" {
		s = r.schemas.SchemaFromRef(s.Ref)
	}
	if s.Type == "" || v == nil && s.Nullable {
		return true
	}
	message := wrongType(s, v)
	switch v := v.(type) {
	case map[string]any:
		if s.Type == huma.TypeObject {
			r.object(s, at, v)
			return true
		}
	case []any:
		if s.Type == huma.TypeArray {
			return r.array(s, at, v)
		}
	case string:
		if s.Type == huma.TypeString {
			message = checkText(s, v)
		}
	case json.Number:
		switch s.Type {
		case huma.TypeInteger:
			message = checkInteger(s, v.String())
		case huma.TypeNumber:
			message = checkNumber(s, v.String())
		}
	case bool:
		if s.Type == huma.TypeBoolean {
			message = ""
		}
	}
	if message != "" && s.Format == formatSecret {
		r.add(at, message, nil)
	} else if message != "" {
		r.add(at, message, echo(v))
	}
	return message == ""
}

func (r *checkRun) array(s *huma.Schema, at *location, array []any) bool {
	if s.MaxItems != nil && len(array) > *s.MaxItems {
		r.add(at, fmt.Sprintf("must not have more than %d items", *s.MaxItems), nil)
		return false
	}
	ok := true
	for i, v := range array {
		ok = r.value(s.Items, at.item(i), v) && ok
	}
	return ok
}

func checkText(s *huma.Schema, text string) string {
	if s.MaxLength != nil && len(text) > *s.MaxLength {
		return fmt.Sprintf("must not be longer than %d bytes", *s.MaxLength)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, any(text)) {
		return "must be one of " + strings.Trim(fmt.Sprintf("%q", s.Enum), "[]")
	}
	return ""
}

func checkInteger(s *huma.Schema, text string) string {
	n, err := strconv.ParseInt(text, 10, 64)
	whole := strings.Trim(text, "-0123456789") == ""
	if err != nil && !whole {
		return "must be an integer, written without a fraction or an exponent"
	}
	// What does not fit 64 bits is out of any bounds.
	if err != nil || s.Minimum != nil && float64(n) < *s.Minimum || s.Maximum != nil && float64(n) > *s.Maximum {
		return fmt.Sprintf("must be from %s to %s", bound(s.Minimum), bound(s.Maximum))
	}
	return ""
}

func checkNumber(s *huma.Schema, text string) string {
	n, err := strconv.ParseFloat(text, 64)
	above := s.ExclusiveMinimum
	switch {
	case err == nil && (s.Minimum == nil || n >= *s.Minimum) && (above == nil || n > *above) && (s.Maximum == nil || n <= *s.Maximum):
		return ""
	case above != nil:
		return fmt.Sprintf("must be above %s and at most %s", bound(above), bound(s.Maximum))
	}
	return fmt.Sprintf("must be from %s to %s", bound(s.Minimum), bound(s.Maximum))
}

func bound(f *float64) string {
	if f == nil {
		return "any"
	}
	return strconv.FormatFloat(*f, 'f', -1, 64)
}

func wrongType(s *huma.Schema, v any) string {
	var is string
	switch v.(type) {
	case nil:
		is = "null; leave the field out for its default"
	case map[string]any:
		is = "an object"
	case []any:
		is = "an array"
	case string:
		is = "a string"
	case json.Number:
		is = "a number"
	case bool:
		is = "a boolean"
	}
	article := "a "
	if strings.ContainsAny(s.Type[:1], "aio") {
		article = "an "
	}
	return "must be " + article + s.Type + ", not " + is
}

// maxEcho bounds the values that are repeated in an answer.
const maxEcho = 100

// echo returns what to show of a value that is wrong: only short scalars.
func echo(v any) any {
	switch v := v.(type) {
	case string:
		if len(v) > maxEcho {
			return nil
		}
	case json.Number:
		if len(v) > maxEcho {
			return nil
		}
	case map[string]any, []any:
		return nil
	}
	return v
}

// suggest names the field that was meant, if the name differs from it only in case
// and in how its words are joined.
func suggest(s *huma.Schema, name string) string {
	if len(name) > maxLocationName {
		return ""
	}
	for _, known := range slices.Sorted(maps.Keys(s.Properties)) {
		if letters(known) == letters(name) {
			return fmt.Sprintf("; did you mean %q?", known)
		}
	}
	return ""
}

func letters(name string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name))
}
