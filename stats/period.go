package stats

import (
	"encoding/json"
	"fmt"
	"time"
)

// The windows whose parts are written to the store.
const (
	minuteWindow = 1 // its parts are minutes
	hourWindow   = 3 // its parts are hours
	lastWindow   = 3
)

// Period is what was counted in a minute or an hour.
type Period struct {
	Replica string // who has counted it; empty: this process
	Length  time.Duration
	Start   time.Time
	Tallies Tallies
}

// document is the form of a period in the store.
type document struct {
	Routes Tallies `json:"routes"`
}

// Document returns the period's tallies as the store keeps them.
func (p Period) Document() ([]byte, error) {
	text, err := json.Marshal(document{p.Tallies})
	if err != nil {
		return nil, fmt.Errorf("encoding statistics: %w", err)
	}
	return text, nil
}

// ParsePeriod is the reverse of Document.
func ParsePeriod(replica string, length time.Duration, start time.Time, text []byte) (Period, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return Period{}, fmt.Errorf("reading statistics of %s: %w", start.Format(time.RFC3339), err)
	}
	for id, tally := range d.Routes {
		if tally == nil {
			return Period{}, fmt.Errorf("reading statistics of %s: nothing for route %d", start.Format(time.RFC3339), id)
		}
	}
	return Period{replica, length, start, d.Routes}, nil
}

// Last returns the minute that is under way, for the store before the process ends.
func (r *Recorder) Last() Period {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.own.add(now.Add(-time.Millisecond), r.sinceRound(true), 0, lastWindow)
	minutes := r.own[minuteWindow]
	last := minutes[len(minutes)-1]
	return Period{Length: time.Minute, Start: last.start, Tallies: last.tallies}
}

// AddOthers counts what other replicas have counted, or this one before it was
// started. Every minute is to be given once. Hours are only of use together with the
// minutes of the same time, to begin with.
func (r *Recorder) AddOthers(periods []Period) {
	type hour struct {
		replica string
		start   time.Time
	}
	whole := make(map[hour]bool)
	for _, p := range periods {
		if p.Length == time.Hour {
			whole[hour{p.Replica, p.Start}] = true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range periods {
		first, last := minuteWindow, lastWindow
		switch {
		case p.Length == time.Hour:
			first = hourWindow
		case whole[hour{p.Replica, p.Start.Truncate(time.Hour)}]:
			last = hourWindow - 1
		}
		r.others.add(p.Start, p.Tallies, first, last)
		for id := range p.Tallies {
			if id > 0 {
				r.hit(id, p.Start)
			}
		}
	}
	r.others.forget(r.now())
}
