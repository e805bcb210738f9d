package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/store"
)

// The values of upstream.policy, which are the names of Caddy's selection policies.
const (
	policyRandom             = "random"
	policyRandomChoose       = "random_choose"
	policyLeastConn          = "least_conn"
	policyRoundRobin         = "round_robin"
	policyWeightedRoundRobin = "weighted_round_robin"
	policyFirst              = "first"
	policyIPHash             = "ip_hash"
	policyClientIPHash       = "client_ip_hash"
	policyURIHash            = "uri_hash"
	policyHeader             = "header"
	policyQuery              = "query"
	policyCookie             = "cookie"
)

// Policies are the values of upstream.policy.
var Policies = []string{
	policyRandom, policyRandomChoose, policyLeastConn, policyRoundRobin, policyWeightedRoundRobin, policyFirst,
	policyIPHash, policyClientIPHash, policyURIHash, policyHeader, policyQuery, policyCookie,
}

// policyOptions are the options of all policies, in the form of Caddy's JSON.
type policyOptions struct {
	Choose   *int            `json:"choose,omitempty"`
	Field    string          `json:"field,omitempty"`
	Key      string          `json:"key,omitempty"`
	Name     string          `json:"name,omitempty"`
	Secret   string          `json:"secret,omitempty"`
	MaxAge   caddy.Duration  `json:"max_age,omitempty"`
	Fallback json.RawMessage `json:"fallback,omitempty"`
}

// optionsOf names the options that each policy has.
var optionsOf = map[string][]string{
	policyRandomChoose: {"choose"},
	policyHeader:       {"field", "fallback"},
	policyQuery:        {"key", "fallback"},
	policyCookie:       {"name", "secret", "max_age", "fallback"},
}

// defaultChoose is that of the policy random_choose, and Caddy's.
const defaultChoose = 2

// maxFallbacks is how deep fallbacks can be nested.
const maxFallbacks = 4

// checkPolicy checks a policy's options as far as the policy itself would.
func checkPolicy(errs *store.FieldErrors, policy, field string, raw json.RawMessage, depth int) policyOptions {
	var options policyOptions
	if len(raw) == 0 {
		raw = json.RawMessage("{}")
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(raw, &given); err != nil || given == nil {
		errs.Add(field, "must be an object with the options of the policy")
		return options
	}
	for name := range given {
		if name == "policy" && depth > 0 {
			delete(given, name)
			continue
		}
		if name == "secret" && depth > 0 {
			errs.Add(field+"."+name, "must not be set for a fallback")
			delete(given, name)
		} else if !slices.Contains(optionsOf[policy], name) {
			errs.Add(field+"."+name, fmt.Sprintf("is no option of the policy %q", policy))
			delete(given, name)
		}
	}
	if err := remarshalStrict(given, &options); err != nil {
		errs.Add(field, err.Error())
		return options
	}
	switch {
	case policy == policyRandomChoose && options.Choose != nil && *options.Choose < 2:
		errs.Add(field+".choose", "must be at least 2")
	case policy == policyHeader && !httpguts.ValidHeaderFieldName(options.Field):
		errs.Add(field+".field", "is required: the name of the header field whose value is hashed")
	case policy == policyQuery && (options.Key == "" || strings.ContainsAny(options.Key, "{}")):
		errs.Add(field+".key", "is required: the query parameter whose value is hashed, without braces")
	case policy == policyCookie && options.Name != "" && !httpguts.ValidHeaderFieldName(options.Name):
		errs.Add(field+".name", "is no name that a cookie can have")
	case options.MaxAge < 0:
		errs.Add(field+".max_age", "must not be negative")
	}
	if options.Fallback != nil {
		checkFallback(errs, field+".fallback", options.Fallback, depth)
	}
	return options
}

func checkFallback(errs *store.FieldErrors, field string, raw json.RawMessage, depth int) {
	var named struct {
		Policy string `json:"policy"`
	}
	switch err := json.Unmarshal(raw, &named); {
	case err != nil:
		errs.Add(field, `must be an object with the key "policy"`)
	case depth == maxFallbacks:
		errs.Add(field, fmt.Sprintf("must not be nested deeper than %d", maxFallbacks))
	case !slices.Contains(Policies, named.Policy) || named.Policy == policyWeightedRoundRobin:
		errs.Add(field+".policy", "is no policy that can stand here")
	default:
		checkPolicy(errs, named.Policy, field, raw, depth+1)
	}
}

func remarshalStrict(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("must be one JSON object")
	}
	return nil
}

// balance sets the pool's policy. The returned function cleans it up. It must be
// called within Serialize.
func (p *pool) balance(ctx caddy.Context, u *store.Upstream) (cleanUp func(), err error) {
	nothing := func() {}
	weighted := false
	weights := make(map[string]int, len(p.targets))
	inOrder := make([]int, len(p.targets))
	for i, t := range p.targets {
		weighted = weighted || t.weight != p.targets[0].weight
		weights[t.upstream.Dial], inOrder[i] = t.weight, t.weight
	}
	p.policyName = u.Policy
	switch {
	case p.policyName == "" && weighted, p.policyName == policyRoundRobin && weighted:
		p.policyName = policyWeightedRoundRobin
	case p.policyName == "":
		p.policyName = policyRoundRobin
	case p.policyName == policyWeightedRoundRobin && !weighted:
		// The same, and it asks for at least two weights.
		p.policy = new(reverseproxy.RoundRobinSelection)
		p.second = p.policy
		return nothing, nil
	}

	var options policyOptions
	if len(u.PolicyOptions) > 0 {
		if err := json.Unmarshal(u.PolicyOptions, &options); err != nil {
			return nil, fmt.Errorf("decoding upstream.policy_options: %w", err)
		}
	}
	if weighted && p.policyName != policyWeightedRoundRobin && p.policyName != policyCookie {
		p.policy = &WeightedSelection{Weights: weights, Key: hashKey(p.policyName, &options)}
		p.second = p.policy
		return nothing, nil
	}
	switch p.policyName {
	case policyRandom:
		p.policy = reverseproxy.RandomSelection{}
	case policyLeastConn:
		p.policy = leastBusy{pool: p}
	case policyRandomChoose:
		choose := defaultChoose
		if options.Choose != nil {
			choose = *options.Choose
		}
		p.policy = leastBusy{pool: p, choose: choose}
	case policyRoundRobin:
		p.policy = new(reverseproxy.RoundRobinSelection)
	case policyFirst:
		p.policy = reverseproxy.FirstSelection{}
	case policyIPHash:
		p.policy = reverseproxy.IPHashSelection{}
	case policyClientIPHash:
		p.policy = reverseproxy.ClientIPHashSelection{}
	case policyURIHash:
		p.policy = reverseproxy.URIHashSelection{}
	}
	if p.policy != nil {
		p.second = p.policy
		return nothing, nil
	}

	// The others must be provisioned.
	module := map[string]any{}
	switch p.policyName {
	case policyWeightedRoundRobin:
		module["weights"] = inOrder
		// It knows weights by their place, and in a shorter list places change.
		p.second = &WeightedSelection{Weights: weights}
	default:
		if err := json.Unmarshal(orObject(u.PolicyOptions), &module); err != nil {
			return nil, fmt.Errorf("decoding upstream.policy_options: %w", err)
		}
		if p.policyName == policyCookie {
			p.cookie = "lb" // as the policy names it
			if options.Name != "" {
				p.cookie = options.Name
			}
			if weighted {
				module["fallback"] = map[string]any{"policy": "isekai_weighted", "weights": weights}
			}
		}
	}
	return p.loadPolicy(ctx, module)
}

func (p *pool) loadPolicy(ctx caddy.Context, module map[string]any) (cleanUp func(), err error) {
	raw, err := json.Marshal(module)
	if err != nil {
		return nil, fmt.Errorf("encoding selection policy: %w", err)
	}
	child, cancel := caddy.NewContext(ctx)
	value, err := child.LoadModuleByID("http.reverse_proxy.selection_policies."+p.policyName, raw)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("loading selection policy: %w", err)
	}
	p.policy = value.(reverseproxy.Selector)
	if p.second == nil {
		p.second = p.policy
	}
	return cancel, nil
}

func orObject(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return json.RawMessage("{}")
	}
	return raw
}

// hashKey is what a hash policy of Caddy's goes by, as text with placeholders.
// It is empty for policies that don't keep requests together.
func hashKey(policy string, options *policyOptions) string {
	switch policy {
	case policyIPHash:
		return "{http.request.remote.host}"
	case policyClientIPHash:
		return "{http.vars.client_ip}"
	case policyURIHash:
		return "{http.request.orig_uri}"
	case policyHeader:
		if options.Field == "Host" {
			return "{http.request.hostport}"
		}
		return "{http.request.header." + options.Field + "}"
	case policyQuery:
		return "{http.request.uri.query." + options.Key + "}"
	}
	return ""
}

// canWeigh says whether a policy can share requests out by weight.
func canWeigh(policy string) bool {
	switch policy {
	case policyFirst, policyLeastConn, policyRandomChoose:
		return false
	}
	return true
}
