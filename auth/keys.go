package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

const (
	maxKeySet = 1 << 20 // bytes
	maxKeys   = 100     // a token without a key id is tried with them all

	// unknownInterval is how often tokens with unknown keys can have the set fetched.
	unknownInterval = time.Minute

	// keysWait and maxWaiting bound the requests that wait for a fetch.
	keysWait   = 2 * time.Second
	maxWaiting = 256

	fetchTimeout = 10 * time.Second
	fileInterval = 10 * time.Second

	// firstRetry and lastRetry are how long it takes until a failed fetch is tried
	// again.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// keySource has the keys of an issuer.
type keySource interface {
	// key returns the key, or a jwt.VerificationKeySet, for a token whose signature is
	// still to be checked. ErrUnavailable: it can't be known now.
	key(ctx context.Context, token *jwt.Token) (any, error)
}

// staticKey is a key that never changes.
type staticKey struct{ value any }

func (k staticKey) key(context.Context, *jwt.Token) (any, error) { return k.value, nil }

// keySet is a JSON Web Key Set that is loaded in the background. keyfunc has a client
// of its own for that, which is not used: it makes one request wait for the fetch and
// refuses the others meanwhile, drops a whole set for one key that it can't read, and
// its goroutine can't be waited for.
type keySet struct {
	name     string
	logger   *zap.Logger
	load     func(ctx context.Context) ([]byte, error)
	interval time.Duration
	now      func() time.Time

	loaded  atomic.Pointer[loadedKeys]
	waiting atomic.Int32
	wake    chan struct{}

	mu      sync.Mutex
	next    chan struct{} // closed when the load is over that is under way or comes next
	pending bool          // there is one to wait for
	asked   time.Time     // when a token with an unknown key last had the set loaded
	failed  error         // of the last load
}

// loadedKeys is the keys of one load.
type loadedKeys struct {
	keyfunc.Keyfunc
	text string
}

func newKeySet(logger *zap.Logger, name string, load func(context.Context) ([]byte, error), interval time.Duration, now func() time.Time) *keySet {
	return &keySet{
		name: name, logger: logger, load: load, interval: interval, now: now,
		wake: make(chan struct{}, 1), next: make(chan struct{}), pending: true,
	}
}

// key implements keySource. An unknown key has the set loaded, at most once a minute,
// and the request waits a moment for that.
func (s *keySet) key(ctx context.Context, token *jwt.Token) (any, error) {
	if key, err := s.find(ctx, token); err == nil || !errors.Is(err, errUnknownKey) {
		return key, err
	}
	if !s.wait(ctx) {
		return nil, s.unknown()
	}
	key, err := s.find(ctx, token)
	if errors.Is(err, errUnknownKey) {
		return nil, s.unknown()
	}
	return key, err
}

var errUnknownKey = errors.New("the issuer has no such key")

func (s *keySet) find(ctx context.Context, token *jwt.Token) (any, error) {
	keys := s.loaded.Load()
	if keys == nil {
		return nil, errUnknownKey
	}
	key, err := keys.KeyfuncCtx(ctx)(token)
	if errors.Is(err, jwkset.ErrKeyNotFound) {
		return nil, errUnknownKey
	}
	return key, err
}

// unknown tells a key that is not there from one that may be.
func (s *keySet) unknown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded.Load() == nil || s.failed != nil {
		return ErrUnavailable
	}
	return errUnknownKey
}

// wait asks for a load if it is time for one, and waits for it, or for the first one.
// It reports whether there was one.
func (s *keySet) wait(ctx context.Context) bool {
	if s.waiting.Add(1) > maxWaiting {
		s.waiting.Add(-1)
		return false
	}
	defer s.waiting.Add(-1)
	s.mu.Lock()
	next, now := s.next, s.now()
	if !s.pending {
		if !s.asked.IsZero() && now.Sub(s.asked) < unknownInterval {
			s.mu.Unlock()
			return false
		}
		s.asked, s.pending = now, true
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	timeout := time.NewTimer(keysWait)
	defer timeout.Stop()
	for {
		select {
		case <-next:
			s.mu.Lock()
			again := s.pending // that load had begun before it was asked for
			next = s.next
			s.mu.Unlock()
			if !again {
				return true
			}
		case <-timeout.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// run loads the set now, every interval, after failures soon again, and when asked
// to, until ctx is done.
func (s *keySet) run(ctx context.Context) {
	retry := firstRetry
	for {
		delay := s.interval
		if err := s.reload(ctx); err != nil && ctx.Err() == nil {
			delay = min(retry, s.interval)
			retry = min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		}
	}
}

// loadNow loads the set for the first time.
func (s *keySet) loadNow() error { return s.reload(context.Background()) }

// reload loads the set, keeps the keys that are there if that fails, and lets those
// go on that wait.
func (s *keySet) reload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	text, err := s.load(ctx)
	if err == nil && !s.same(text) {
		err = s.accept(ctx, text)
	}
	if err != nil {
		err = fmt.Errorf("loading keys of issuer %s: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && (s.failed == nil || s.failed.Error() != err.Error()) && !errors.Is(ctx.Err(), context.Canceled) {
		s.logger.Warn("keys of an issuer could not be loaded; those that are known go on", zap.Error(err))
	}
	s.failed, s.pending = err, len(s.wake) > 0
	close(s.next)
	s.next = make(chan struct{})
	return err
}

func (s *keySet) same(text []byte) bool {
	keys := s.loaded.Load()
	return keys != nil && keys.text == string(text)
}

// accept publishes the keys of a set that tokens can be verified with.
func (s *keySet) accept(ctx context.Context, text []byte) error {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(text, &set); err != nil {
		return fmt.Errorf("reading key set: %w", err)
	}
	storage, count := jwkset.NewMemoryStorage(), 0
	for _, marshaled := range set.Keys {
		key, err := publicKey(marshaled)
		if err != nil {
			// Sets have keys for other purposes, and of kinds to come.
			s.logger.Debug("a key of an issuer is not used", zap.String("issuer", s.name), zap.String("kid", marshaled.KID), zap.Error(err))
			continue
		}
		if count++; count > maxKeys {
			return fmt.Errorf("the key set has more than %d keys", maxKeys)
		}
		if err := storage.KeyWrite(ctx, key); err != nil {
			return fmt.Errorf("keeping a key: %w", err)
		}
	}
	if count == 0 {
		return errors.New("the key set has no key that tokens can be verified with")
	}
	find, err := keyfunc.New(keyfunc.Options{Storage: storage})
	if err != nil {
		return fmt.Errorf("making key function: %w", err)
	}
	s.loaded.Store(&loadedKeys{find, string(text)})
	return nil
}

// publicKey reads a key of a set, if it is for verifying signatures. Shared secrets
// in a set, which everybody can read, are none.
func publicKey(m jwkset.JWKMarshal) (jwkset.JWK, error) {
	if m.USE != "" && m.USE != jwkset.UseSig {
		return jwkset.JWK{}, fmt.Errorf("its use is %s", m.USE)
	}
	if m.KTY == jwkset.KtyOct {
		return jwkset.JWK{}, errors.New("it is a shared secret")
	}
	// The key itself counts; certificates beside it would have to be believed.
	m.X5C, m.X5U, m.X5T, m.X5TS256 = nil, "", "", ""
	key, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return jwkset.JWK{}, err
	}
	return key, checkKey(key.Key())
}

// fileReader returns how to load a set from a file.
func fileReader(name string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return readBounded(name, maxKeySet) }
}

// maxRedirects bounds the redirects of a key set's URL.
const maxRedirects = 3

// newFetcher returns how to load a set from a URL.
func newFetcher(address string) func(context.Context) ([]byte, error) {
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DisableKeepAlives:      true, // the next fetch is minutes away
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    fetchTimeout,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			if r.URL.Scheme != via[0].URL.Scheme || r.URL.Scheme == "http" && r.URL.Host != via[0].URL.Host {
				return fmt.Errorf("a redirect to %s is not followed", r.URL.Redacted())
			}
			return nil
		},
	}
	return func(ctx context.Context) ([]byte, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Accept", "application/jwk-set+json, application/json")
		r.Header.Set("User-Agent", "isekai")
		res, err := client.Do(r)
		if err != nil {
			if failed, ok := errors.AsType[*url.Error](err); ok {
				err = failed.Err // the address may be long, and is in the configuration
			}
			return nil, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the server answered %s", res.Status)
		}
		return readAll(res.Body, maxKeySet)
	}
}

// readAll reads at most this many bytes, and fails if there are more.
func readAll(r io.Reader, most int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return content, err
}
