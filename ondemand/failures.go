package ondemand

import (
	"container/list"
	"strings"
	"sync"
	"time"
)

// Bounds of Failures.
const (
	maxFailures = 10_000
	maxMessage  = 1000 // bytes
)

// Failure is why a certificate could not be obtained or renewed.
type Failure struct {
	Message string
	Time    time.Time
	Renewal bool
}

// Failures remembers the last failure of each name until a certificate was obtained
// for it; of more than 10,000 names the latest. The zero value is ready to use, and
// safe for concurrent use.
type Failures struct {
	mu     sync.Mutex
	byName map[string]*list.Element
	latest list.List // of namedFailure, the latest first
}

type namedFailure struct {
	name string
	Failure
}

// Add remembers a failure. The name is in the form that routing.ParseHost returns.
func (f *Failures) Add(name string, failure Failure) {
	if len(failure.Message) > maxMessage {
		failure.Message = strings.ToValidUTF8(failure.Message[:maxMessage], "") + "..."
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byName == nil {
		f.byName = make(map[string]*list.Element)
	}
	f.remove(name)
	f.byName[name] = f.latest.PushFront(namedFailure{name, failure})
	if f.latest.Len() > maxFailures {
		f.remove(f.latest.Back().Value.(namedFailure).name)
	}
}

// Forget forgets the failure of a name that has a certificate now.
func (f *Failures) Forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(name)
}

// Get returns the last failure of a name.
func (f *Failures) Get(name string) (Failure, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.byName[name]
	if !ok {
		return Failure{}, false
	}
	return e.Value.(namedFailure).Failure, true
}

func (f *Failures) remove(name string) {
	if e, ok := f.byName[name]; ok {
		f.latest.Remove(e)
		delete(f.byName, name)
	}
}
