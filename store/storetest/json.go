package storetest

import (
	"encoding/json"

	"github.com/google/go-cmp/cmp"
)

var rawJSON = cmp.Transformer("JSON", func(raw json.RawMessage) any {
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return string(raw)
	}
	return value
})
