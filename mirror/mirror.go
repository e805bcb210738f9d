package mirror

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

// Defaults and bounds of Settings.
const (
	DefaultSample  = 1.0
	DefaultBodyMax = 64 << 10 // bytes
	MaxBodyMax     = 1 << 20  // bytes
	DefaultTimeout = 10 * time.Second
	MaxTimeout     = time.Minute
)

// Settings say what is copied and how it is sent.
type Settings struct {
	// The part of the requests that is copied, above 0 and at most 1, at random.
	// Default (nil): 1, all of them.
	Sample *float64

	// The most bytes of a body; a request with a longer one is not copied. 1 to
	// 1,048,576. Default: 65,536.
	BodyMax int

	// How long the mirror may take to answer a copy, connecting included, 1s to
	// 1m. Default: 10s.
	Timeout time.Duration

	// Whether the mirror sees the client's Host instead of its own.
	// Default: false.
	PreserveHost bool
}

// Validate returns store.FieldErrors with the names sample, body_max and timeout,
// or nil.
func (s Settings) Validate() error { return s.validate().Err() }

func (s Settings) validate() (errs store.FieldErrors) {
	if s.Sample != nil && !(*s.Sample > 0 && *s.Sample <= 1) {
		errs.Add("sample", "must be above 0 and at most 1, such as 0.1 for every tenth request; to mirror nothing, leave out the mirror")
	}
	if s.BodyMax < 0 || s.BodyMax > MaxBodyMax {
		errs.Add("body_max", fmt.Sprintf("must be between 1 and %d bytes", MaxBodyMax))
	}
	if s.Timeout != 0 && (s.Timeout < time.Second || s.Timeout > MaxTimeout) {
		errs.Add("timeout", fmt.Sprintf("must be between 1 and %d seconds", MaxTimeout/time.Second))
	}
	return errs
}

// ParseTarget parses the URL of a mirror and holds it against the policy, as far
// as that is possible without resolving names. What proxy.ParseTarget says of
// parameters does not apply: a mirror's URL can name none.
func ParseTarget(raw string, policy *proxy.Policy) (*proxy.Target, error) {
	if raw == "" {
		return nil, errors.New("is required")
	}
	target, err := proxy.ParseTarget(raw, nil)
	if err != nil {
		return nil, err
	}
	if err := policy.CheckTarget(target); err != nil {
		return nil, err
	}
	return target, nil
}

// Mirror copies requests to one target. It is safe for concurrent use.
type Mirror struct {
	destination *Destination
	target      *proxy.Target
	sample      float64
	bodyMax     int64
	timeout     time.Duration
	host        string // empty to preserve the client's
}

// New returns a mirror that sends copies to a destination, below the path of
// target, which must be of the destination's server. The settings must be valid.
func New(d *Destination, target *proxy.Target, s Settings) *Mirror {
	m := &Mirror{
		destination: d, target: target,
		sample: DefaultSample, bodyMax: DefaultBodyMax, timeout: DefaultTimeout, host: target.Host,
	}
	if s.Sample != nil {
		m.sample = *s.Sample
	}
	if s.BodyMax > 0 {
		m.bodyMax = int64(s.BodyMax)
	}
	if s.Timeout > 0 {
		m.timeout = s.Timeout
	}
	if s.PreserveHost {
		m.host = ""
	}
	return m
}

// Begin takes a copy of r, which is about to be forwarded, if r is one to be
// copied. The function that it returns must be called once r has been forwarded.
//
// If r has a body, it is replaced by one that copies what is read of it. The copy
// is queued as soon as its body is complete, without a body at once: it waits
// neither for the upstream's answer nor for anything else.
func (m *Mirror) Begin(r *http.Request) (end func()) {
	if m.sample < 1 && rand.Float64() >= m.sample {
		return nothing
	}
	d, counters := m.destination, m.destination.queue.counters
	switch {
	case skipped(r):
		counters.skipped.Add(1)
		return nothing
	case r.ContentLength > m.bodyMax:
		counters.tooLarge.Add(1)
		return nothing
	}
	c := newCopy(m, r)
	d.refs.Add(1)
	if !d.reserve(c.memory) {
		c.memory = 0
		c.dropFull()
		return nothing
	}
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		d.queue.push(c)
		return nothing
	}
	c.original, c.source = r.Body, r
	r.Body = c
	return c.end
}

func nothing() {}

// address points u, the URL of a forwarded request, to the mirror.
func (m *Mirror) address(u *url.URL) {
	u.Scheme, u.Host, u.User = m.target.Scheme, m.target.Address, nil
	escaped := m.target.Append(u.EscapedPath())
	if path, err := url.PathUnescape(escaped); err == nil {
		u.Path, u.RawPath = path, escaped
	}
}
