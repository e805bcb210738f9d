package auth

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/ratelimit"
)

// Options is what a Verifier needs beside its configuration.
type Options struct {
	// Credentials looks up API keys. Default: none can be looked up.
	Credentials Credentials

	// Guesses counts the wrong passwords of clients. Default: counters of its own.
	Guesses *ratelimit.Limiter

	// Logger gets why credentials were refused, at the level debug, and what keeps
	// them from being checked. Secrets never. Default: no log.
	Logger *zap.Logger

	// Now tells the time. Default: time.Now.
	Now func() time.Time
}

// Verifier finds out who makes a request. It is safe for concurrent use. Make one
// with New and end it with Close.
type Verifier struct {
	realm       string
	methods     []string
	credentials Credentials
	keyHeaders  []string // in canonical form
	keyParams   []string
	issuers     map[string]*issuer // by the claim iss
	basic       *basic
	headers     map[string]string // by canonical name
	own         []string          // all fields that tell an identity, in canonical form
	logger      *zap.Logger
	now         func() time.Time
	workers     *worker.Group
}

// New returns the verifier of a configuration, and starts to fetch the keys of
// issuers in the background. An issuer that can't be reached is no error.
func New(cfg Config, o Options) (*Verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Credentials == nil {
		o.Credentials = NoCredentials{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Guesses == nil {
		o.Guesses = ratelimit.New(ratelimit.Config{MaxKeys: maxGuessers})
	}
	v := &Verifier{
		realm:       cfg.Realm,
		methods:     cfg.Methods(),
		credentials: o.Credentials,
		keyHeaders:  []string{"X-Api-Key"},
		issuers:     make(map[string]*issuer, len(cfg.JWT)),
		headers:     make(map[string]string),
		logger:      o.Logger,
		now:         o.Now,
	}
	if v.realm == "" {
		v.realm = DefaultRealm
	}
	if cfg.APIKey != nil {
		if len(cfg.APIKey.Headers) > 0 {
			v.keyHeaders = canonical(cfg.APIKey.Headers)
		}
		v.keyParams = cfg.APIKey.Query
	}
	var err error
	if v.basic, err = newBasic(cfg.Basic, o.Guesses); err != nil {
		return nil, fmt.Errorf("basic: %w", err)
	}
	headers := cfg.Headers
	if headers == nil {
		headers = defaultHeaders
	}
	own := make(map[string]bool)
	for name, text := range headers {
		name = textproto.CanonicalMIMEHeaderKey(name)
		v.headers[name], own[name] = text, true
	}
	v.workers = worker.New(func() *zap.Logger { return v.logger })
	for _, name := range slices.Sorted(maps.Keys(cfg.JWT)) {
		made, err := newIssuer(name, cfg.JWT[name], v)
		if err != nil {
			v.Close()
			return nil, fmt.Errorf("jwt.%s: %w", name, err)
		}
		v.issuers[cfg.JWT[name].Issuer] = made
		for header := range cfg.JWT[name].ClaimHeaders {
			own[textproto.CanonicalMIMEHeaderKey(header)] = true
		}
	}
	v.own = slices.Sorted(maps.Keys(own))
	return v, nil
}

// Close stops what runs in the background and waits for it. The verifier goes on
// with the keys that it has.
func (v *Verifier) Close() { v.workers.Stop() }

// Methods returns the configured methods.
func (v *Verifier) Methods() []string { return v.methods }

// Authenticate returns who makes a request. The methods are tried in their order, as
// far as the request has credentials for them, and the first valid one counts,
// whatever the others. Errors: ErrNoCredentials if there are none at all;
// ErrUnavailable if none is valid and one can't be checked now; ErrGuessing; else
// ErrInvalid.
func (v *Verifier) Authenticate(r *http.Request, methods []string) (*Identity, error) {
	a := readAuthorization(r.Header)
	result := ErrNoCredentials
	for _, method := range methods {
		var id *Identity
		err := ErrNoCredentials
		switch method {
		case MethodAPIKey:
			id, err = v.apiKey(r, a)
		case MethodJWT:
			if token, ok := a.bearer(); ok {
				id, err = v.token(r.Context(), token)
			}
		case MethodBasic:
			if name, password, ok := a.basic(); ok {
				id, err = v.password(r, name, password)
			}
		case MethodMTLS:
			id, err = v.certificate(r)
		}
		if err == nil {
			return id, nil
		}
		if method != MethodMTLS && a.bad {
			err = worse(err, ErrInvalid)
		}
		result = worse(result, err)
	}
	return nil, result
}

// severity orders what goes wrong: an answer must not say that credentials are wrong
// if they could be right.
var severity = []error{ErrNoCredentials, ErrInvalid, ErrGuessing, ErrUnavailable}

// worse returns the one of two errors that decides the answer.
func worse(a, b error) error {
	rank := func(err error) int {
		return slices.IndexFunc(severity, func(s error) bool { return errors.Is(err, s) })
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// invalid notes why credentials are refused, which clients are not told.
func (v *Verifier) invalid(method, why string, more ...zap.Field) error {
	if entry := v.logger.Check(zap.DebugLevel, "credentials refused"); entry != nil {
		entry.Write(append(more, zap.String("method", method), zap.String("reason", why))...)
	}
	return ErrInvalid
}

// unavailable notes what keeps credentials from being checked.
func (v *Verifier) unavailable(method string, err error) {
	if entry := v.logger.Check(zap.DebugLevel, "credentials can't be checked"); entry != nil {
		entry.Write(zap.String("method", method), zap.Error(err))
	}
}

func canonical(names []string) []string {
	out := make([]string, len(names))
	for n, name := range names {
		out[n] = textproto.CanonicalMIMEHeaderKey(name)
	}
	return out
}
