package stats

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Series counts the requests of one route, or of several together, since it was made.
// It is safe for concurrent use.
type Series struct {
	// Route is the route's id, or None or Other.
	Route int64

	// Began is when it began to count.
	Began time.Time

	// Requests counts how long requests took, Upstream how long targets took to
	// begin their answers.
	Requests, Upstream Histogram

	bytesIn, bytesOut          atomic.Uint64
	clientErrors, serverErrors atomic.Uint64

	mu    sync.Mutex                   // held to add a code
	codes atomic.Pointer[[]*codeCount] // never changed, but replaced

	taken Tally // what was in the tallies so far; the recorder's lock guards it
}

type codeCount struct {
	method string
	status int
	n      atomic.Uint64
}

// maxCodes bounds the pairs of method and status that a series tells apart, since an
// upstream can answer with any of 900 numbers. The others are counted with status 0.
const maxCodes = 100

// methods are those that are told apart.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}

// otherMethod stands for the others, as in OpenTelemetry's conventions.
const otherMethod = "_OTHER"

// Request is a request that is over.
type Request struct {
	Method            string
	Status            int
	Took              time.Duration
	Upstream          time.Duration // until the last target began its answer; 0 if none did
	BytesIn, BytesOut int64

	Ended time.Time // zero: now
}

func (s *Series) observe(q *Request) {
	s.Requests.Observe(q.Took)
	if q.Upstream > 0 {
		s.Upstream.Observe(q.Upstream)
	}
	if q.BytesIn > 0 {
		s.bytesIn.Add(uint64(q.BytesIn))
	}
	if q.BytesOut > 0 {
		s.bytesOut.Add(uint64(q.BytesOut))
	}
	switch {
	case q.Status >= 500:
		s.serverErrors.Add(1)
	case q.Status >= 400:
		s.clientErrors.Add(1)
	}
	s.code(q.Method, q.Status).n.Add(1)
}

// code returns the counter of a pair.
func (s *Series) code(method string, status int) *codeCount {
	if known := s.codes.Load(); known != nil {
		for _, c := range *known {
			if c.status == status && c.method == method {
				return c
			}
		}
	}
	return s.addCode(method, status)
}

func (s *Series) addCode(method string, status int) *codeCount {
	if !slices.Contains(methods, method) {
		method = otherMethod
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var known []*codeCount
	if p := s.codes.Load(); p != nil {
		known = *p
	}
	if len(known) >= maxCodes {
		status = 0
	}
	for _, c := range known {
		if c.status == status && c.method == method {
			return c
		}
	}
	c := &codeCount{method: method, status: status}
	next := append(slices.Clip(known), c)
	s.codes.Store(&next)
	return c
}

// Code is how many requests with a method had an answer with a status.
type Code struct {
	Method string // one of HTTP's own, or "_OTHER"
	Status int    // 0 for those that are not told apart
	Count  uint64
}

// Codes returns the numbers of requests by method and status.
func (s *Series) Codes() []Code {
	known := s.codes.Load()
	if known == nil {
		return nil
	}
	list := make([]Code, len(*known))
	for i, c := range *known {
		list[i] = Code{c.method, c.status, c.n.Load()}
	}
	return list
}

// Bytes returns how much of requests' bodies was read, and of answers' written.
func (s *Series) Bytes() (in, out uint64) { return s.bytesIn.Load(), s.bytesOut.Load() }

// sum is a tally of all so far.
func (s *Series) sum() Tally {
	t := Tally{
		ClientErrors: s.clientErrors.Load(), ServerErrors: s.serverErrors.Load(),
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		Took: time.Duration(s.Requests.sum.Load()),
	}
	for i := range s.Requests.counts {
		if n := s.Requests.counts[i].Load(); n > 0 {
			t.durations = append(t.durations, bucket{int16(minBucket + i), n})
			t.Requests += n
		}
	}
	return t
}

// fresh returns what has come since the last take, and the sum to take then.
func (s *Series) fresh() (since *Tally, sum Tally) {
	sum = s.sum()
	since = &Tally{
		Requests:     sum.Requests - s.taken.Requests,
		ClientErrors: sum.ClientErrors - s.taken.ClientErrors,
		ServerErrors: sum.ServerErrors - s.taken.ServerErrors,
		BytesIn:      sum.BytesIn - s.taken.BytesIn,
		BytesOut:     sum.BytesOut - s.taken.BytesOut,
		Took:         sum.Took - s.taken.Took,
	}
	before := s.taken.durations
	for _, b := range sum.durations {
		// Counters only grow, so what was there before is there now.
		if len(before) > 0 && before[0].index == b.index {
			b.count -= before[0].count
			before = before[1:]
		}
		if b.count > 0 {
			since.durations = append(since.durations, b)
		}
	}
	return since, sum
}
