package stats

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
)

// Tally is what was counted of a route in some period. Tallies can be added. The zero
// value is one of nothing.
type Tally struct {
	Requests     uint64        `json:"n,omitempty"`
	ClientErrors uint64        `json:"e4,omitempty"` // answers 4xx, with 499
	ServerErrors uint64        `json:"e5,omitempty"` // answers 5xx, and broken ones
	BytesIn      uint64        `json:"in,omitempty"`
	BytesOut     uint64        `json:"out,omitempty"`
	Took         time.Duration `json:"sum,omitempty"` // all requests together

	durations sparse
}

// sparse is a histogram's buckets that are not empty, in order.
type sparse []bucket

type bucket struct {
	index int16
	count uint64
}

// add returns the sum of both, which share nothing with it.
func (s sparse) add(other sparse) sparse {
	sum := make(sparse, 0, max(len(s), len(other)))
	for len(s) > 0 && len(other) > 0 {
		switch a, b := s[0], other[0]; {
		case a.index < b.index:
			sum, s = append(sum, a), s[1:]
		case a.index > b.index:
			sum, other = append(sum, b), other[1:]
		default:
			sum = append(sum, bucket{a.index, a.count + b.count})
			s, other = s[1:], other[1:]
		}
	}
	return append(append(sum, s...), other...)
}

// Add adds another tally.
func (t *Tally) Add(other *Tally) {
	t.Requests += other.Requests
	t.ClientErrors += other.ClientErrors
	t.ServerErrors += other.ServerErrors
	t.BytesIn += other.BytesIn
	t.BytesOut += other.BytesOut
	t.Took += other.Took
	t.durations = t.durations.add(other.durations)
}

// Quantile returns how long the fastest part q of the requests took, q from 0 to 1,
// within 9 %; 0 of no requests.
func (t *Tally) Quantile(q float64) time.Duration {
	var total uint64
	for _, b := range t.durations {
		total += b.count
	}
	if total == 0 {
		return 0
	}
	rank := min(max(q, 0), 1) * float64(total)
	var below float64
	for _, b := range t.durations {
		if count := float64(b.count); below+count < rank {
			below += count
			continue
		}
		// Within a bucket as if they were spread evenly over its logarithm.
		part := (rank - below) / float64(b.count)
		return seconds(math.Exp2((float64(b.index) - 1 + part) / perOctave))
	}
	return seconds(Bound(int(t.durations[len(t.durations)-1].index)))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// MarshalJSON implements json.Marshaler. The buckets are pairs of index and count, one
// after the other.
func (t *Tally) MarshalJSON() ([]byte, error) {
	flat := make([]int64, 0, 2*len(t.durations))
	for _, b := range t.durations {
		flat = append(flat, int64(b.index), int64(b.count))
	}
	return json.Marshal(encodedTally{(*plainTally)(t), flat})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Tally) UnmarshalJSON(text []byte) error {
	e := encodedTally{plainTally: new(plainTally)}
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	*t = Tally(*e.plainTally)
	for pair := range slices.Chunk(e.Durations, 2) {
		if len(pair) != 2 || pair[0] < minBucket || pair[0] > maxBucket || pair[1] < 0 {
			return fmt.Errorf("%v is no bucket with its count", pair)
		}
		t.durations = t.durations.add(sparse{{int16(pair[0]), uint64(pair[1])}})
	}
	return nil
}

type plainTally Tally

type encodedTally struct {
	*plainTally
	Durations []int64 `json:"h,omitempty"`
}

// Tallies are those of several routes by their ids, None and Other among them.
type Tallies map[int64]*Tally

// Ids in the place of a route's.
const (
	None  int64 = 0  // requests that no route matched
	Other int64 = -1 // routes that are not counted apart
)

// add adds others, whose tallies are not changed and not kept.
func (t Tallies) add(others Tallies) {
	for id, other := range others {
		sum := t[id]
		if sum == nil {
			sum = new(Tally)
			t[id] = sum
		}
		sum.Add(other)
	}
}
