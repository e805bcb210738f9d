package routing

import (
	"errors"
	"net/url"
	"strings"
)

// maxParameters is how many parameters a query may have where routes ask for them.
const maxParameters = 10_000

// errManyParameters says that a query has more.
var errManyParameters = errors.New("the query has more than 10000 parameters")

// Problem says why the request can't be told from others by its query, as far as Match
// or Allow had to read it; else it is nil. What they found is not to be used then: a
// route could have been passed over that asks for one of the parameters.
func (q *Request) Problem() error { return q.problem }

// parameters parses the query once, as the URL standard
// (https://url.spec.whatwg.org/#urlencoded-parsing) does: pairs end at "&" alone, and
// what is malformed stays as it is. net/url leaves such pairs out, by which a client could
// keep a parameter from being seen here that its upstream sees.
func (q *Request) parameters() url.Values {
	if q.query != nil || q.problem != nil {
		return q.query
	}
	if strings.Count(q.RawQuery, "&") >= maxParameters {
		q.problem = errManyParameters
		return nil
	}
	q.query = make(url.Values)
	for pair := range strings.SplitSeq(q.RawQuery, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name = decodeParameter(name)
		q.query[name] = append(q.query[name], decodeParameter(value))
	}
	return q.query
}

// decodeParameter undoes the encoding of a name or value: "+" is a space, and a "%" that
// two hexadecimal digits do not follow is itself.
func decodeParameter(s string) string {
	if !strings.ContainsAny(s, "+%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if v, ok := triplet(s[i:]); ok {
				c = v
				i += 2
			}
		}
		b = append(b, c)
	}
	return string(b)
}
