package store

import (
	"encoding/json"
	"testing"
)

// What passes must come back from both databases; above all the scan of escapes
// must stay within any document that is JSON.
func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{
		`{}`, `"\u0000"`, `"\\u0000"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00"`, `["\ud83d","\ude00"]`, `"\\\u0041"`, `1e309`, `[[1.5,-0]]`, "\"\xff\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		if !json.Valid(document) || checkJSON(document) != nil {
			return
		}
		var value any
		if err := json.Unmarshal(document, &value); err != nil {
			t.Fatalf("accepted %q, which does not decode: %v", document, err)
		}
		again, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkJSON(again); err != nil {
			t.Errorf("accepted %q, but not %q: %v", document, again, err)
		}
	})
}

func FuzzDecodeSpec(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"headers":{"a":"b"}}`, `{"plugins":[{}]} x`, ` { "limits":null } `, `{"cors":{"origins":["*"],"max_age":-1}}`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		spec, err := decodeSpec(document)
		if err != nil {
			return
		}
		text, err := json.Marshal(spec)
		if err != nil {
			t.Fatalf("accepted %q, which cannot be written again: %v", document, err)
		}
		if _, err := decodeSpec(text); err != nil {
			t.Errorf("accepted %q, but not %q: %v", document, text, err)
		}
	})
}
