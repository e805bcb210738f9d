package auth

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// findClaim returns the claim of this name. A name with dots that is not one itself is
// a path to a claim within others.
func findClaim(claims jwt.MapClaims, name string) any {
	if value, ok := claims[name]; ok {
		return value
	}
	var value any = map[string]any(claims)
	for part := range strings.SplitSeq(name, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		if value, ok = object[part]; !ok {
			return nil
		}
	}
	return value
}

// claimText returns a claim as text: the items of a list parted by commas, and nothing
// for an object.
func claimText(value any) string {
	if items, ok := value.([]any); ok {
		return joinList(scalars(items))
	}
	text, _ := scalar(value)
	return text
}

// claimWords returns a claim as a list: the items of one, or the words of a text.
func claimWords(value any) []string {
	switch v := value.(type) {
	case []any:
		return scalars(v)
	case string:
		return strings.Fields(v)
	}
	return nil
}

func scalars(items []any) []string {
	out := make([]string, 0, len(items))
	for _, item := range items {
		if text, ok := scalar(item); ok && text != "" {
			out = append(out, text)
		}
	}
	return out
}

func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// hasClaim reports whether there is a claim of this name with this value, or any, if
// it is empty.
func hasClaim(claims jwt.MapClaims, name, want string) bool {
	value := findClaim(claims, name)
	if value == nil || want == "" {
		return value != nil
	}
	if name == "scope" || isList(value) {
		return slices.Contains(claimWords(value), want)
	}
	text, ok := scalar(value)
	return ok && text == want
}

func isList(value any) bool {
	_, ok := value.([]any)
	return ok
}
