package mirror

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
)

// Marker is the field by which the receiver of a copy can tell that it is one.
const Marker = "X-Isekai-Mirror"

// token is the value of Marker in this process's copies. It is random, so that
// only a copy made here can have it, and never changes. By it a copy that comes
// back, because a mirror's target leads here again, is known and not copied anew.
var token = rand.Text()

// IsCopy says whether h is the header of a copy that this process has sent. A
// Marker of any other value, from whomever, proves nothing.
func IsCopy(h http.Header) bool {
	values := h[Marker]
	return len(values) == 1 && subtle.ConstantTimeCompare([]byte(values[0]), []byte(token)) == 1
}

// Sanitize removes a Marker that is not of this process from h. Whoever sent it
// can neither have a request taken for a copy nor keep it from being copied.
func Sanitize(h http.Header) {
	if _, ok := h[Marker]; ok && !IsCopy(h) {
		delete(h, Marker)
	}
}
