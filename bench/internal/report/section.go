package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// ReplaceSection returns doc with body between the markers of the section name,
// instead of what was there. A doc without the markers gets them at its end. One
// that has only one of them, or has them the wrong way round, is an error.
func ReplaceSection(doc, name, body string) (string, error) {
	begin, end := "<!-- "+name+": begin -->", "<!-- "+name+": end -->"
	section := begin + "\n" + strings.TrimSpace(body) + "\n" + end
	from, to := strings.Index(doc, begin), strings.Index(doc, end)
	switch {
	case from < 0 && to < 0:
		if doc = strings.TrimRight(doc, "\n"); doc != "" {
			doc += "\n\n"
		}
		return doc + section + "\n", nil
	case from < 0 || to < from:
		return "", fmt.Errorf("section %s: the markers %q and %q must both be there, in this order", name, begin, end)
	}
	return doc[:from] + section + doc[to+len(end):], nil
}

// WriteSection replaces a section of the Markdown file at path, which is made if it
// is missing.
func WriteSection(path, name, body string) error {
	doc, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading results: %w", err)
	}
	changed, err := ReplaceSection(string(doc), name, body)
	if err != nil {
		return fmt.Errorf("changing %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil { //nolint:gosec // the caller's own file
		return fmt.Errorf("writing results: %w", err)
	}
	return nil
}
