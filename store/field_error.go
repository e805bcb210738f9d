package store

import "strings"

// FieldError says what is wrong with one field of a route and what to write
// instead.
type FieldError struct {
	Field   string // JSON path, e.g. "path" or "plugins[0].handler"
	Message string // e.g. "must start with a slash"
}

func (e FieldError) Error() string { return e.Field + ": " + e.Message }

// FieldErrors is everything that is wrong with one route. It matches ErrInvalid.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	texts := make([]string, len(e))
	for i, fe := range e {
		texts[i] = fe.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e FieldErrors) Unwrap() error { return ErrInvalid }

// Add appends an error for field.
func (e *FieldErrors) Add(field, message string) {
	*e = append(*e, FieldError{Field: field, Message: message})
}

// Err returns e as an error, or nil if it is empty.
func (e FieldErrors) Err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}
