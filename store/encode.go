package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep a spec may nest, which is SQLite's own bound.
const maxDepth = 1000

// encode returns the route's spec as JSON, or FieldErrors for values that
// PostgreSQL refuses; SQLite would keep some, and the two must not differ.
func encode(route *Route, by Author) (spec string, err error) {
	var errs FieldErrors
	for _, text := range []struct{ field, value string }{
		{"name", route.Name}, {"host", route.Host}, {"path", route.Path}, {"method", route.Method},
		{"target_url", route.TargetURL}, {"match_key", route.MatchKey},
	} {
		if problem := textProblem(text.value); problem != "" {
			errs.Add(text.field, problem)
		}
	}
	for _, number := range []struct {
		field string
		value int
	}{{"rate_limit", route.RateLimit}, {"timeout", route.Timeout}, {"priority", route.Priority}} {
		if number.value < math.MinInt32 || number.value > math.MaxInt32 {
			errs.Add(number.field, "must fit 32 bits")
		}
	}
	document, err := json.Marshal(route.Spec)
	if err == nil {
		err = checkJSON(document)
	}
	if err != nil {
		errs.Add("spec", err.Error())
	}
	if err := errs.Err(); err != nil {
		return "", err
	}
	return string(document), checkAuthor(by)
}

func checkAuthor(by Author) error {
	var errs FieldErrors
	if problem := textProblem(by.Actor); problem != "" {
		errs.Add("actor", problem)
	}
	if problem := textProblem(by.Source); problem != "" {
		errs.Add("source", problem)
	}
	return errs.Err()
}

func textProblem(s string) string {
	switch {
	case strings.ContainsRune(s, 0):
		return "must not contain a NUL character"
	case !utf8.ValidString(s):
		return "must be valid UTF-8"
	default:
		return ""
	}
}

// checkJSON refuses what is JSON by its grammar and yet not by every reader of
// it: NUL and halves of surrogate pairs in strings, numbers beyond a float64,
// nesting without end.
func checkJSON(document []byte) error {
	if !utf8.Valid(document) {
		return errors.New("must be valid UTF-8")
	}
	if err := checkEscapes(document); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	depth := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxDepth {
				return fmt.Errorf("must not nest deeper than %d", maxDepth)
			}
		case json.Number:
			if _, err := strconv.ParseFloat(v.String(), 64); err != nil {
				return fmt.Errorf("number %.20s is out of range", v)
			}
		}
	}
}

// checkEscapes looks at the \u escapes of a valid document.
func checkEscapes(document []byte) error {
	high := false // whether a high surrogate has just been read
	for i := 0; i < len(document); i++ {
		var unit uint64
		if document[i] == '\\' {
			i++
			if document[i] == 'u' {
				unit, _ = strconv.ParseUint(string(document[i+1:i+5]), 16, 16) // valid by grammar
				i += 4
				if unit == 0 {
					return errors.New("must not contain a NUL character")
				}
			}
		}
		low := unit >= 0xDC00 && unit <= 0xDFFF
		if high != low {
			return errors.New("must not contain half of a surrogate pair")
		}
		high = unit >= 0xD800 && unit <= 0xDBFF
	}
	return nil
}
