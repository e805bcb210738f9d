package proxy

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/cespare/xxhash/v2"
)

func init() {
	caddy.RegisterModule(new(WeightedSelection))
}

// WeightedSelection is a selection policy that shares requests out by weight,
// whichever upstreams are available: at random, or so that requests with the same
// key go to the same upstream as long as it is available.
//
// Keys are spread by weighted rendezvous hashing (Schindelhauer and Schomaker,
// "Weighted Distributed Hash Tables", 2005): a change of one weight, or an upstream
// that comes or goes, moves no more keys than it must.
type WeightedSelection struct {
	// The upstreams' weights, by their dial addresses as configured. An upstream
	// that is not named has weight 1; one with weight 0 gets no requests.
	Weights map[string]int `json:"weights,omitempty"`

	// What keeps requests together: text with placeholders, such as
	// {http.request.header.X-User}. A request for which it is empty goes anywhere.
	// Default: none, all requests go anywhere.
	Key string `json:"key,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*WeightedSelection) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.isekai_weighted",
		New: func() caddy.Module { return new(WeightedSelection) },
	}
}

// Validate implements caddy.Validator.
func (s *WeightedSelection) Validate() error {
	for dial, weight := range s.Weights {
		if weight < 0 {
			return fmt.Errorf("the weight of %s must not be negative", dial)
		}
	}
	return nil
}

// Select implements reverseproxy.Selector.
func (s *WeightedSelection) Select(pool reverseproxy.UpstreamPool, r *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	key := ""
	if s.Key != "" {
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			key = repl.ReplaceAll(s.Key, "")
		}
	}
	var (
		best  *reverseproxy.Upstream
		score = math.Inf(-1)
	)
	for _, u := range pool {
		weight := s.weight(u)
		if weight <= 0 || !u.Available() {
			continue
		}
		// Of numbers drawn evenly from (0,1), the one whose logarithm over its
		// weight is the largest is each with the probability of its weight. That
		// holds for chance and for a hash.
		if got := math.Log(s.draw(key, u.Dial)) / float64(weight); got > score {
			best, score = u, got
		}
	}
	return best
}

func (s *WeightedSelection) weight(u *reverseproxy.Upstream) int {
	if weight, ok := s.Weights[u.Dial]; ok {
		return weight
	}
	return 1
}

// draw returns a number from (0,1): at random, or always the same for one key and
// upstream.
func (s *WeightedSelection) draw(key, dial string) float64 {
	var bits uint64
	if key == "" {
		bits = rand.Uint64()
	} else {
		var d xxhash.Digest
		d.Reset()
		_, _ = d.WriteString(dial) // never fails
		_, _ = d.WriteString("\x00")
		_, _ = d.WriteString(key)
		bits = d.Sum64()
	}
	const mantissa = 53
	return (float64(bits>>(64-mantissa)) + 0.5) / (1 << mantissa)
}

// UnmarshalCaddyfile sets up the policy from Caddyfile tokens. Syntax:
//
//	isekai_weighted [<key>] {
//		<dial> <weight>
//	}
func (s *WeightedSelection) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		s.Key = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		dial := d.Val()
		var text string
		if !d.AllArgs(&text) {
			return d.ArgErr()
		}
		weight, err := strconv.Atoi(text)
		if err != nil || weight < 0 {
			return d.Errf("the weight of %s must be a whole number, not %q", dial, text)
		}
		if s.Weights == nil {
			s.Weights = make(map[string]int)
		}
		s.Weights[dial] = weight
	}
	if len(s.Weights) == 0 {
		return d.WrapErr(errors.New("name the weights: a dial address and a number on each line"))
	}
	return nil
}

// Interface guards
var (
	_ caddy.Validator       = (*WeightedSelection)(nil)
	_ caddyfile.Unmarshaler = (*WeightedSelection)(nil)
	_ reverseproxy.Selector = (*WeightedSelection)(nil)
)
