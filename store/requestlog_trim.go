package store

import (
	"strings"
	"unicode/utf8"
)

// Trim cuts texts that are longer than what is written, so that a record that waits holds
// no more memory than it will take in the database. Whoever writes it still sees that they
// were cut.
func (r *RequestLog) Trim() {
	trimText(&r.Method, maxLogMethod)
	trimText(&r.Path, maxLogPath)
	trimText(&r.Query, maxLogPath)
	for _, text := range []*string{&r.Host, &r.ClientIP, &r.UserAgent, &r.Upstream, &r.RequestID, &r.TraceID, &r.Consumer, &r.Error} {
		trimText(text, maxLogText)
	}
	for name, value := range r.Headers {
		trimText(&value, maxLogText)
		r.Headers[name] = value
	}
}

// trimText cuts a text that is longer than most bytes to a copy that is still longer.
func trimText(s *string, most int) {
	if most += utf8.UTFMax; len(*s) > most {
		*s = strings.Clone((*s)[:most])
	}
}
