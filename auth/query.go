package auth

import (
	"net/http"
	"net/url"
	"strings"
)

// queryName returns the decoded name of a pair of a query, which is how servers look
// it up.
func queryName(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	if decoded, err := url.QueryUnescape(name); err == nil {
		return decoded
	}
	return name
}

// queryValues returns the values that a query has for name, as far as they can be
// decoded.
func queryValues(query, name string) []string {
	var values []string
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if queryName(pair) != name {
			continue
		}
		_, value, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(value); err == nil {
			value = decoded
		}
		values = append(values, value)
	}
	return values
}

// withoutPairs returns the query without the pairs of this name. The others stay byte
// for byte.
func withoutPairs(query, name string) string {
	if !strings.Contains(query, name) && !strings.ContainsAny(query, "%+") {
		return query
	}
	kept, found := make([]string, 0, 8), false
	for pair := range strings.SplitSeq(query, "&") {
		if queryName(pair) == name && pair != "" {
			found = true
			continue
		}
		kept = append(kept, pair)
	}
	if !found {
		return query
	}
	return strings.Join(kept, "&")
}

// dropQuery removes the pairs of these names from a request's URL and RequestURI.
func dropQuery(r *http.Request, names []string) {
	query := r.URL.RawQuery
	for _, name := range names {
		query = withoutPairs(query, name)
	}
	if query == r.URL.RawQuery {
		return
	}
	r.URL.RawQuery = query
	if path, _, ok := strings.Cut(r.RequestURI, "?"); ok {
		if r.RequestURI = path; query != "" {
			r.RequestURI += "?" + query
		}
	}
}
