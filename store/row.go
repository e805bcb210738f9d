package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// columns are those of a Route, in the order of scanRoute. Plain SQL may have
// set the two classic limits to NULL.
const columns = `id, name, host, path, method, target_url, enabled,
	COALESCE(rate_limit, 0), COALESCE(timeout, 30), priority, spec, match_key, revision,
	created_at, updated_at, deleted_at`

// scanRoute reads a row of columns. A spec that does not decode is not an error:
// it must not keep the other rows from being read.
func scanRoute(scan func(dest ...any) error) (*Route, error) {
	var (
		r                         Route
		spec                      []byte
		created, updated, deleted timestamp
	)
	err := scan(&r.ID, &r.Name, &r.Host, &r.Path, &r.Method, &r.TargetURL, &r.Enabled,
		&r.RateLimit, &r.Timeout, &r.Priority, &spec, &r.MatchKey, &r.Revision,
		&created, &updated, &deleted)
	if err != nil {
		return nil, err
	}
	r.CreatedAt, r.UpdatedAt, r.DeletedAt = created.Time, updated.Time, deleted.pointer()
	r.setSpec(spec)
	return &r, nil
}

// setSpec decodes a spec, or says in r.DecodeError why it cannot be.
func (r *Route) setSpec(document []byte) {
	spec, err := decodeSpec(document)
	if err != nil {
		r.DecodeError = fmt.Sprintf("spec: %s", err)
		return
	}
	r.Spec = spec
}

func decodeSpec(document []byte) (Spec, error) {
	var spec Spec
	document = bytes.TrimSpace(document)
	if bytes.Equal(document, []byte("{}")) {
		return spec, nil
	}
	if len(document) == 0 || document[0] != '{' {
		return Spec{}, errors.New("must be a JSON object")
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&spec); err != nil {
		return Spec{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Spec{}, errors.New("must be one JSON object")
	}
	return spec, nil
}

// document is a row of routes as the history keeps it: a column each.
type document struct {
	ID        int64           `json:"id"`
	Name      string          `json:"name"`
	Host      string          `json:"host"`
	Path      string          `json:"path"`
	Method    string          `json:"method"`
	TargetURL string          `json:"target_url"`
	Enabled   bool            `json:"enabled"`
	RateLimit *int            `json:"rate_limit"`
	Timeout   *int            `json:"timeout"`
	Priority  int             `json:"priority"`
	Spec      json.RawMessage `json:"spec"`
	MatchKey  string          `json:"match_key"`
	Revision  int64           `json:"revision"`
	CreatedAt timestamp       `json:"created_at"`
	UpdatedAt timestamp       `json:"updated_at"`
}

// routeOfDocument returns the route in a row's JSON, nil for none.
func routeOfDocument(text []byte) (*Route, error) {
	if text == nil {
		return nil, nil
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("decoding a row of the history: %w", err)
	}
	r := &Route{
		ID: d.ID, Name: d.Name, Host: d.Host, Path: d.Path, Method: d.Method, TargetURL: d.TargetURL,
		Enabled: d.Enabled, Timeout: DefaultTimeout, Priority: d.Priority, MatchKey: d.MatchKey,
		Revision: d.Revision, CreatedAt: d.CreatedAt.Time, UpdatedAt: d.UpdatedAt.Time,
	}
	if d.RateLimit != nil {
		r.RateLimit = *d.RateLimit
	}
	if d.Timeout != nil {
		r.Timeout = *d.Timeout
	}
	r.setSpec(d.Spec)
	return r, nil
}

// now is the present with the precision that both databases keep.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// timestamp reads a time in the forms of both databases: a value from
// PostgreSQL, text from SQLite, either one's text from JSON. NULL, and text that
// plain SQL got past SQLite's checks and is no time, are the zero time.
type timestamp struct{ time.Time }

// Scan implements sql.Scanner.
func (t *timestamp) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		t.Time = time.Time{}
	case time.Time:
		t.Time = v.UTC().Truncate(time.Microsecond)
	case string:
		t.parse(v)
	case []byte:
		t.parse(string(v))
	default:
		return fmt.Errorf("a time cannot be a %T", value)
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *timestamp) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	t.parse(s)
	return nil
}

func (t *timestamp) parse(text string) {
	t.Time = time.Time{}
	for _, layout := range []string{
		"2006-01-02 15:04:05Z07:00", // as this package writes to SQLite
		"2006-01-02T15:04:05Z07:00", // PostgreSQL's JSON
		time.DateTime,               // SQLite's CURRENT_TIMESTAMP
		"2006-01-02T15:04:05",
		"2006-01-02 15:04",
		time.DateOnly,
	} {
		if parsed, err := time.Parse(layout, text); err == nil {
			t.Time = parsed.UTC().Truncate(time.Microsecond)
			return
		}
	}
}

func (t *timestamp) pointer() *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t.Time
}
