package storetest

import (
	"encoding/json"

	"github.com/google/go-cmp/cmp"
)

// rawJSON compares raw JSON by what it says. Two empty ones are for
// cmpopts.EquateEmpty.
var rawJSON = cmp.FilterValues(func(a, b json.RawMessage) bool { return len(a)+len(b) > 0 },
	cmp.Transformer("JSON", func(raw json.RawMessage) any {
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return string(raw)
		}
		return value
	}))
