package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestYAMLInParts holds what is written in parts to what the library makes of the whole.
func TestYAMLInParts(t *testing.T) {
	t.Parallel()
	many := func(n int, item string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(item, "#", fmt.Sprint(i))
		}
		return `{"routes": [` + strings.Join(items, ",") + `]}`
	}
	const item = `{"path": "/#", "method": "no", "enabled": true, "timeout": 30, "pem": "a\nb\n", "plugins": [{"handler": "x", "list": [], "none": {}}], "labels": {"#": "1:30"}}`
	for name, doc := range map[string]string{
		"empty":           `{}`,
		"no routes":       `{"routes": []}`,
		"one":             many(1, item),
		"a part":          many(yamlAtOnce, item),
		"a part and one":  many(yamlAtOnce+1, item),
		"parts":           many(3*yamlAtOnce-1, item),
		"scalars":         many(yamlAtOnce+1, `"#"`),
		"arrays":          many(yamlAtOnce+1, `[#, [#]]`),
		"several fields":  `{"a": [1, 2], "b": {"c": null}, "d": "x", "e": [[]]}`,
		"a name to quote": `{"yes": [1, "on"], "": [2]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			decoder := json.NewDecoder(strings.NewReader(doc))
			decoder.UseNumber()
			root, err := yamlNode(decoder)
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			encoder := yaml.NewEncoder(&want)
			encoder.SetIndent(2)
			if err := encoder.Encode(root); err != nil {
				t.Fatal(err)
			}
			if err := encoder.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := yamlOf([]byte(doc))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.String(), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
