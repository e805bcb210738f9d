package api

import (
	"strconv"
	"strings"
)

// Bounds of what is repeated of a request in an error, in bytes.
const (
	maxLocationName = 64 // one name in a location
	maxLocation     = 512
	maxMessage      = 4096 // a plugin module's own error may be long
)

// location is where in a request a value stands, e.g. body.plugins[0].handler. It
// becomes a text only when something is wrong there.
type location struct {
	parent *location
	name   string // of the field, or the root's
	index  int    // of the item, if isItem
	isItem bool
}

func (l *location) field(name string) *location { return &location{parent: l, name: name} }

func (l *location) item(i int) *location { return &location{parent: l, index: i, isItem: true} }

func (l *location) String() string {
	switch {
	case l.parent == nil:
		return l.name
	case l.isItem:
		return l.parent.String() + "[" + strconv.Itoa(l.index) + "]"
	}
	return l.parent.String() + "." + shorten(l.name, maxLocationName)
}

// shorten cuts a text to at most most bytes, and says so.
func shorten(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
