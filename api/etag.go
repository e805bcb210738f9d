package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/store"
)

// etag returns the strong entity tag of a row. Revisions are never used twice, so it
// changes with every change.
func etag(id, revision int64) string { return fmt.Sprintf(`"%d-%d"`, id, revision) }

// ifMatch is the If-Match of a request, all its lines joined. Empty means that there
// is none.
type ifMatch string

// Resolve implements huma.Resolver. Huma itself reads only the first line, and takes
// an empty one, which promises a condition without naming it, for none.
func (m *ifMatch) Resolve(ctx huma.Context) []error {
	var lines []string
	ctx.EachHeader(func(name, value string) {
		if http.CanonicalHeaderKey(name) == "If-Match" {
			lines = append(lines, value)
		}
	})
	if lines == nil {
		return nil
	}
	*m = ifMatch(strings.Join(lines, ","))
	if _, ok := entityTags(string(*m)); !ok {
		return []error{badHeader{&huma.ErrorDetail{
			Location: "header.If-Match",
			Message:  `must be "*" or a list of entity tags in double quotes, as in the ETag of an answer`,
		}}}
	}
	return nil
}

// badHeader is an error in a header field, which huma would call a 422.
type badHeader struct{ *huma.ErrorDetail }

// GetStatus implements huma.StatusError.
func (badHeader) GetStatus() int { return http.StatusBadRequest }

// named reports whether the request is about particular versions of the route.
func (m ifMatch) named() bool { return m != "" && strings.TrimSpace(string(m)) != "*" }

// holds reports whether the condition, if any, is true of the row with this tag.
func (m ifMatch) holds(tag string) bool {
	if !m.named() {
		return true
	}
	tags, _ := entityTags(string(m))
	return slices.Contains(tags, tag)
}

// newerThan reports whether the condition names a later version of the row, which
// this node may not have heard of yet.
func (m ifMatch) newerThan(row *store.Route) bool {
	tags, _ := entityTags(string(m))
	return slices.ContainsFunc(tags, func(tag string) bool {
		var id, revision int64
		_, err := fmt.Sscanf(tag, `"%d-%d"`, &id, &revision)
		return err == nil && id == row.ID && revision > row.Revision
	})
}

// notModified reports whether an If-None-Match names the row with this tag. A
// malformed one names nothing.
func notModified(ifNoneMatch, tag string) bool {
	tags, _ := entityTags(ifNoneMatch)
	return slices.ContainsFunc(tags, func(t string) bool {
		return t == "*" || strings.TrimPrefix(t, "W/") == tag
	})
}

// entityTags reads a list of entity tags (RFC 9110, section 8.8.3), or "*" alone,
// and whether it is one.
func entityTags(list string) (tags []string, ok bool) {
	if strings.Trim(list, " \t") == "*" {
		return []string{"*"}, true
	}
	for {
		list = strings.TrimLeft(list, " \t,")
		if list == "" {
			return tags, len(tags) > 0
		}
		rest, weak := strings.CutPrefix(list, "W/")
		if !strings.HasPrefix(rest, `"`) {
			return nil, false
		}
		value, rest, closed := strings.Cut(rest[1:], `"`)
		if !closed || strings.ContainsAny(value, " \t") {
			return nil, false
		}
		tag := `"` + value + `"`
		if weak {
			tag = "W/" + tag
		}
		tags = append(tags, tag)
		list = strings.TrimLeft(rest, " \t")
		if list != "" && list[0] != ',' {
			return nil, false
		}
	}
}
