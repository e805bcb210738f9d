package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"go.yaml.in/yaml/v3"
)

// maxAliased bounds the values that the aliases of a document stand for: a few lines
// can stand for billions.
const maxAliased = 1_000_000

// parseYAML reads one YAML document as parseJSON does, into the same types. Anchors and
// aliases work, merge keys (<<) don't. What has no place in JSON is refused.
func parseYAML(text []byte) (value any, details []*huma.ErrorDetail, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, another yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, nil, yamlSyntax(err)
	}
	if err := decoder.Decode(&another); !errors.Is(err, io.EOF) {
		return nil, nil, &syntaxError{"the body must be one YAML document"}
	}
	p := yamlParser{left: maxAliased}
	value, err = p.value(&document, &location{name: "body"}, 0)
	return value, p.details, err
}

func yamlSyntax(err error) error {
	if errors.Is(err, io.EOF) {
		return &syntaxError{"the body is an empty YAML document"}
	}
	return &syntaxError{"the body is not YAML: " + shorten(strings.TrimPrefix(err.Error(), "yaml: "), maxMessage)}
}

type yamlParser struct {
	left    int // how many more values may be behind aliases
	aliased int // how many aliases stand above the present value
	details []*huma.ErrorDetail
}

func (p *yamlParser) fail(node *yaml.Node, message string) error {
	return &syntaxError{fmt.Sprintf("line %d: %s", node.Line, message)}
}

func (p *yamlParser) add(at *location, node *yaml.Node, message string) {
	if len(p.details) < maxDetails {
		p.details = append(p.details, &huma.ErrorDetail{Location: at.String(), Message: fmt.Sprintf("%s (line %d)", message, node.Line)})
	}
}

func (p *yamlParser) value(node *yaml.Node, at *location, depth int) (any, error) {
	if p.aliased > 0 {
		p.left--
	}
	if p.left < 0 {
		return nil, p.fail(node, fmt.Sprintf("aliases stand for more than %d values", maxAliased))
	}
	// An alias within its own anchor ends here too.
	if depth > maxDepth {
		return nil, p.fail(node, fmt.Sprintf("it is nested deeper than %d levels", maxDepth))
	}
	switch node.Kind {
	case yaml.DocumentNode:
		return p.value(node.Content[0], at, depth)
	case yaml.AliasNode:
		p.aliased++
		value, err := p.value(node.Alias, at, depth+1)
		p.aliased--
		return value, err
	case yaml.MappingNode:
		return p.mapping(node, at, depth+1)
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, item := range node.Content {
			var err error
			if list[i], err = p.value(item, at.item(i), depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		return p.scalar(node, at)
	}
}

func (p *yamlParser) mapping(node *yaml.Node, at *location, depth int) (any, error) {
	object := make(map[string]any, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			return nil, p.fail(key, "a name must be a text")
		case key.ShortTag() == "!!merge":
			return nil, p.fail(key, "merge keys (<<) are not understood; anchors and aliases are")
		}
		name := key.Value
		if strings.ContainsRune(name, 0) {
			p.add(at, key, "has a field whose name contains a NUL character")
		}
		if _, ok := object[name]; ok {
			p.add(at.field(name), key, "is there more than once")
		}
		var err error
		if object[name], err = p.value(node.Content[i+1], at.field(name), depth); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (p *yamlParser) scalar(node *yaml.Node, at *location) (any, error) {
	switch node.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		if node.Decode(&b) == nil {
			return b, nil
		}
	case "!!int":
		var n int64
		if node.Decode(&n) == nil {
			return json.Number(strconv.FormatInt(n, 10)), nil
		}
		p.add(at, node, "is a number too large for most programs")
		return json.Number("0"), nil
	case "!!float":
		var f float64
		if node.Decode(&f) == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			if json.Valid([]byte(node.Value)) {
				return json.Number(node.Value), nil
			}
			return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
		}
		p.add(at, node, "is no number that JSON has")
		return json.Number("0"), nil
	case "!!str", "!!timestamp":
		// JSON has no times; one that is not quoted is meant as it is written.
		if strings.ContainsRune(node.Value, 0) {
			p.add(at, node, "contains a NUL character")
		}
		return node.Value, nil
	}
	return nil, p.fail(node, fmt.Sprintf("values with the tag %s are not understood", shorten(node.Tag, maxLocationName)))
}

// yamlAtOnce is how many values of an array are turned into YAML together: what the
// library makes of a value on the way takes a hundred times the value's room.
const yamlAtOnce = 200

// yamlOf writes a JSON object as YAML, with its fields in the same order.
func yamlOf(document []byte) ([]byte, error) {
	w := yamlWriter{from: json.NewDecoder(bytes.NewReader(document))}
	w.from.UseNumber()
	if err := w.object(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return w.text.Bytes(), nil
}

// yamlWriter writes the fields of an object one by one, and those that are arrays in parts.
type yamlWriter struct {
	from *json.Decoder
	text bytes.Buffer
}

func (w *yamlWriter) object() error {
	if _, err := w.from.Token(); err != nil {
		return err
	}
	if !w.from.More() {
		w.text.WriteString("{}\n")
	}
	for w.from.More() {
		name, err := yamlNode(w.from)
		if err != nil {
			return err
		}
		if err := w.field(name); err != nil {
			return err
		}
	}
	return nil
}

func (w *yamlWriter) field(name *yaml.Node) error {
	token, err := w.from.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('[') || !w.from.More() {
		value, err := yamlOfToken(token, w.from)
		if err != nil {
			return err
		}
		return w.write(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{name, value}}, 0)
	}
	for first := true; w.from.More(); first = false {
		part := &yaml.Node{Kind: yaml.SequenceNode}
		for len(part.Content) < yamlAtOnce && w.from.More() {
			value, err := yamlNode(w.from)
			if err != nil {
				return err
			}
			part.Content = append(part.Content, value)
		}
		headless := 1
		if first {
			headless = 0
		}
		if err := w.write(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{name, part}}, headless); err != nil {
			return err
		}
	}
	_, err = w.from.Token()
	return err
}

// write appends a node, without so many of its first lines.
func (w *yamlWriter) write(node *yaml.Node, without int) error {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(node), encoder.Close()); err != nil {
		return err
	}
	rest := text.Bytes()
	for range without {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	w.text.Write(rest)
	return nil
}

func yamlNode(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	return yamlOfToken(token, decoder)
}

// yamlOfToken returns the value that begins with a token.
func yamlOfToken(token json.Token, decoder *json.Decoder) (*yaml.Node, error) {
	switch token := token.(type) {
	case json.Delim:
		node := &yaml.Node{Kind: yaml.SequenceNode}
		if token == '{' {
			node.Kind = yaml.MappingNode
		}
		for decoder.More() {
			child, err := yamlNode(decoder) // of an object, names and values in turn
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		if len(node.Content) == 0 {
			node.Style = yaml.FlowStyle
		}
		_, err := decoder.Token()
		return node, err
	case string:
		return yamlText(token), nil
	case json.Number:
		node := &yaml.Node{Kind: yaml.ScalarNode, Value: token.String()}
		if !strings.ContainsAny(node.Value, ".eE") {
			node.Tag = "!!int"
		} else {
			node.Tag = "!!float"
		}
		return node, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(token)}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// yamlText writes a text so that readers of any version of YAML take it for one. Only
// lines of plain characters, as a certificate has, become a block.
func yamlText(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	plain := text != "" && text[0] != ' ' && !strings.Contains(text, " \n")
	for _, r := range text {
		plain = plain && (r == '\n' || unicode.IsPrint(r))
	}
	switch {
	case plain && strings.Contains(text, "\n") && !strings.HasPrefix(text, "\n") && !strings.Contains(text, "\n\n"):
		node.Style = yaml.LiteralStyle
	case !plain, strings.Contains(text, "\n"), oldYAML(text):
		node.Style = yaml.DoubleQuotedStyle
	}
	return node
}

// oldYAML reports whether YAML 1.1 takes the text for a boolean, a number in base 60, a
// merge or a default.
func oldYAML(text string) bool {
	switch strings.ToLower(text) {
	case "y", "yes", "on", "n", "no", "off", "<<", "=":
		return true
	}
	return strings.Contains(text, ":") && strings.Trim(text, "-+_.:0123456789") == ""
}
