package isekai

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestNewRequestID(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 5, 6, 7, 8, 9, 123_000_000, time.UTC)
	seen := make(map[string]bool)
	before := ""
	for i := range 1000 {
		// One step is the finest that the id tells apart, a bit more than 244 ns.
		at := began.Add(time.Duration(i) * 245 * time.Nanosecond)
		text := newRequestID(at)
		id, err := uuid.Parse(text)
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("%s: version %v, variant %v, %v", text, id.Version(), id.Variant(), err)
		}
		if sec, ns := id.Time().UnixTime(); !time.Unix(sec, ns).Equal(at.Truncate(time.Millisecond)) {
			t.Errorf("%s is of %v, want %v", text, time.Unix(sec, ns), at)
		}
		if text <= before {
			t.Errorf("%s comes after %s", text, before)
		}
		before = text
		if !isRequestID(text) {
			t.Errorf("%s would not be kept by another gateway", text)
		}
		if again := newRequestID(at); seen[again] || seen[text] || again == text {
			t.Errorf("%s is there twice", again)
		}
		seen[text] = true
	}
}
