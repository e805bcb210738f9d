package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/cors"
	"github.com/isekai-gateway/isekai/internal/inflight"
	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/quota"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// compiler turns routes into pipelines for one Caddy configuration.
type compiler struct {
	ctx        caddy.Context
	policy     *proxy.Policy
	plugins    []string
	forwarders *proxy.Registry
	chains     *caddy.UsagePool
	limits     *limiter
	mirrors    *caddy.UsagePool
	copies     *mirror.Queue
	inFlight   *inflight.Counts
	bodyMax    int64
	verifier   *auth.Verifier // nil: nothing can be verified
}

// methods returns the configured methods of authentication.
func (c *compiler) methods() []string {
	if c.verifier == nil {
		return nil
	}
	return c.verifier.Methods()
}

// Check checks a row without setting up its plugins: what it matches, its
// target, upstream and limits, which modules its plugins name, and whether its methods
// of authentication are configured. All that is wrong comes at once, as
// store.FieldErrors. Nil arguments take the defaults of Options; of methods, api_key.
func Check(row *store.Route, plugins []string, policy *proxy.Policy, methods []string) error {
	if plugins == nil {
		plugins = DefaultPlugins
	}
	if policy == nil {
		policy = new(proxy.Policy)
	}
	if methods == nil {
		methods = defaultMethods
	}
	_, err := check(row, plugins, policy, methods)
	return err
}

// check is Check, and returns the parsed target.
func check(row *store.Route, plugins []string, policy *proxy.Policy, methods []string) (*proxy.Target, error) {
	_, err := routing.Compile(row)
	errs, err := collect(nil, err)
	if err != nil {
		return nil, err
	}
	var params []string
	if pattern, err := routing.ParsePattern(row.Path); err == nil {
		params = pattern.ParamNames()
	}
	target, err := proxy.Validate(row, params, policy)
	if errs, err = collect(errs, err); err != nil {
		return nil, err
	}
	validateTexts(&errs, row)
	texts := proxy.PlaceholderTexts(row.Upstream)
	for _, field := range slices.Sorted(maps.Keys(texts)) {
		checkText(&errs, field, texts[field])
	}
	validateLimits(&errs, row)
	validateCORS(&errs, row)
	validateLog(&errs, row.Log)
	validateAuth(&errs, row, methods)
	if err := validateMirror(&errs, row, policy); err != nil {
		return nil, err
	}
	if errs, err = collect(errs, checkPlugins(row.Plugins, plugins, policy)); err != nil {
		return nil, err
	}
	return target, errs.Err()
}

func validateLog(errs *store.FieldErrors, log *store.Log) {
	if log == nil {
		return
	}
	if log.Sample != nil && (*log.Sample <= 0 || *log.Sample > 1) {
		errs.Add("log.sample", "must be above 0 and at most 1; for none, set log.off")
	}
	if len(log.Headers) > store.MaxLogHeaders {
		errs.Add("log.headers", fmt.Sprintf("must name at most %d fields", store.MaxLogHeaders))
		return
	}
	for i, name := range log.Headers {
		if !httpguts.ValidHeaderFieldName(name) {
			errs.Add(fmt.Sprintf("log.headers[%d]", i), fmt.Sprintf("%q is not the name of a header field", name))
		}
	}
}

// collect adds the field errors of err to errs. Other errors are returned.
func collect(errs store.FieldErrors, err error) (store.FieldErrors, error) {
	var fields store.FieldErrors
	if err != nil && !errors.As(err, &fields) {
		return errs, err
	}
	return append(errs, fields...), nil
}

// Bounds of a route's free texts, in bytes and numbers.
const (
	maxName   = 200
	maxLabels = 64
	maxLabel  = 200
)

func validateTexts(errs *store.FieldErrors, row *store.Route) {
	if len(row.Name) > maxName {
		errs.Add("name", fmt.Sprintf("must be at most %d bytes", maxName))
	}
	if len(row.Labels) > maxLabels {
		errs.Add("labels", fmt.Sprintf("must be at most %d", maxLabels))
	}
	for key, value := range row.Labels {
		if key == "" || len(key) > maxLabel || len(value) > maxLabel {
			errs.Add("labels."+key, fmt.Sprintf("key and value must be at most %d bytes, the key not empty", maxLabel))
		}
	}
}

func validateLimits(errs *store.FieldErrors, row *store.Route) {
	quota.Validate(errs, row)
	if row.Timeout < 0 || row.Timeout > store.MaxTimeout {
		errs.Add("timeout", fmt.Sprintf("must be between 0 (no bound) and %d seconds", store.MaxTimeout))
	}
	if row.Limits == nil {
		return
	}
	checkText(errs, "limits.key", row.Limits.Key)
	for i, rule := range row.Limits.Rules {
		checkText(errs, fmt.Sprintf("limits.rules[%d].key", i), rule.Key)
	}
	if row.Limits.BodyMax < store.NoBodyMax || row.Limits.BodyMax > store.MaxBodyMax {
		errs.Add("limits.body_max", fmt.Sprintf("must be between 0 (the gateway's default) and %d bytes, or -1 for no bound", int64(store.MaxBodyMax)))
	}
	if row.Limits.MaxConcurrent < 0 || row.Limits.MaxConcurrent > store.MaxMaxConcurrent {
		errs.Add("limits.max_concurrent", fmt.Sprintf("must be between 0 (no bound) and %d", store.MaxMaxConcurrent))
	}
}

func validateCORS(errs *store.FieldErrors, row *store.Route) {
	if row.CORS == nil {
		return
	}
	fields, _ := errors.AsType[store.FieldErrors](cors.Config(*row.CORS).Validate())
	for _, e := range fields {
		errs.Add("cors."+e.Field, e.Message)
	}
}

// newCORS returns the policy of a route that has one, else nil.
func newCORS(route *routing.Route) (*cors.Policy, error) {
	settings := route.Spec().CORS
	if settings == nil {
		return nil, nil
	}
	policy, err := cors.New(cors.Config(*settings).WithDefaultMethods(route.Methods().Names()))
	if err != nil {
		return nil, fmt.Errorf("compiling cors: %w", err)
	}
	return policy, nil
}

// compile makes the pipeline of a route. It fails if the configuration or the
// binary has changed since the row was accepted.
func (c *compiler) compile(route *routing.Route) (*Pipeline, error) {
	row := route.Row()
	target, err := check(row, c.plugins, c.policy, c.methods())
	if err != nil {
		return nil, err
	}
	p := &Pipeline{Route: route, pattern: route.Pattern(), target: target, bodyMax: c.bodyMax, limit: c.limits.newLimit(row), limits: c.limits}
	if p.cors, err = newCORS(route); err != nil {
		return nil, err
	}
	if p.auth, err = c.newAuth(route); err != nil {
		return nil, err
	}
	if c.verifier != nil {
		p.own = c.verifier.Own()
	}
	if p.mirror, err = c.acquireMirror(row); err != nil {
		return nil, err
	}
	if limits := row.Limits; limits != nil {
		if limits.BodyMax != 0 {
			p.bodyMax = max(limits.BodyMax, 0)
		}
		p.maxConcurrent, p.inFlight = limits.MaxConcurrent, c.inFlight
	}
	err = proxy.Serialize(func() error {
		p.forwarder, err = c.forwarders.Acquire(target, row.Upstream, row.PreserveHost)
		if err != nil {
			return fmt.Errorf("making forwarder: %w", err)
		}
		p.chain, err = c.acquireChain(p, row.Plugins)
		if err != nil {
			return errors.Join(err, p.forwarder.Release())
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, p.mirror.dispose())
	}
	p.refs.Start()
	return p, nil
}

// acquireChain sets p.handler and returns how to give the plugins back.
func (c *compiler) acquireChain(p *Pipeline, plugins []json.RawMessage) (release func() error, err error) {
	if len(plugins) == 0 {
		p.handler = forward{p}
		return func() error { return nil }, nil
	}
	encoded, err := json.Marshal(plugins)
	if err != nil {
		return nil, fmt.Errorf("encoding plugins: %w", err)
	}
	key := string(encoded)
	value, _, err := c.chains.LoadOrNew(key, func() (caddy.Destructor, error) {
		return newChain(c.ctx, plugins, c.policy)
	})
	if err != nil {
		return nil, err
	}
	p.handler = value.(*chain).bind(forward{p})
	return func() error {
		_, err := c.chains.Delete(key)
		return err
	}, nil
}
