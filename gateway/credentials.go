package gateway

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/store"
)

const (
	// maxCredentials is how many rows are remembered, with those that are not there.
	// A new one has to be asked for more than once before it takes the place of one
	// that is in use, so that guesses push nobody out.
	maxCredentials = 100_000

	// credentialTTL is how long a row is remembered after its last use, and so how
	// long an outage of the store may last for a client that comes now and then. A
	// change is not waited for: it is a revision.
	credentialTTL = time.Hour

	// lookupTimeout and maxLookups bound the look-ups of unknown rows, which are all
	// that a request ever waits for the store.
	lookupTimeout = 2 * time.Second
	maxLookups    = 8

	// maxUses bounds the uses that wait to be written.
	maxUses = 100_000

	// usesInterval is how often they are written, and so how precise they are.
	usesInterval = time.Minute
)

// Credentials looks up consumers, keys and tokens, from memory where they are known.
// All methods are safe for concurrent use.
type Credentials struct {
	store store.Store
	up    func() bool
	rows  *cache.Cache[credentialRef, *credential]
	slots chan struct{}

	// Part of every reference, so that forgetAll also makes results of look-ups
	// unfindable that are under way.
	generation atomic.Uint64

	// What a snapshot knew, until everything is read from the store.
	saved atomic.Pointer[savedCredentials]

	mu   sync.RWMutex
	used map[store.CredentialChange]time.Time
}

// credentialRef names a row of a generation.
type credentialRef struct {
	store.CredentialChange
	generation uint64
}

// credential is a row, or that there is none.
type credential struct {
	key      *store.APIKey
	consumer *store.Consumer
	token    *store.AdminToken
}

func newCredentials(st store.Store, up func() bool) (*Credentials, error) {
	rows, err := cache.New[credentialRef](cache.Options[*credential]{TTL: credentialTTL, MaxSize: maxCredentials})
	if err != nil {
		return nil, fmt.Errorf("making cache of credentials: %w", err)
	}
	return &Credentials{
		store: st, up: up, rows: rows,
		slots: make(chan struct{}, maxLookups),
		used:  make(map[store.CredentialChange]time.Time),
	}, nil
}

// Key returns the live key with this public id and its live consumer. Errors:
// store.ErrNotFound if there is none; ErrStoreDown if it is not known and can't be
// asked for now.
func (c *Credentials) Key(ctx context.Context, id string) (*store.Credential, error) {
	row, err := c.find(ctx, store.CredentialChange{Kind: store.KindAPIKey, ID: id})
	if err != nil {
		return nil, err
	}
	if row.key == nil {
		return nil, store.ErrNotFound
	}
	of := store.CredentialChange{Kind: store.KindConsumer, ID: strconv.FormatInt(row.key.ConsumerID, 10)}
	owner, err := c.find(ctx, of)
	if err != nil {
		return nil, err
	}
	if owner.consumer == nil {
		return nil, store.ErrNotFound
	}
	return &store.Credential{Key: *row.key, Consumer: *owner.consumer}, nil
}

// Token returns the live token for the admin API with this public id. Errors as Key.
func (c *Credentials) Token(ctx context.Context, id string) (*store.AdminToken, error) {
	row, err := c.find(ctx, store.CredentialChange{Kind: store.KindAdminToken, ID: id})
	if err != nil {
		return nil, err
	}
	if row.token == nil {
		return nil, store.ErrNotFound
	}
	return row.token, nil
}

// KeyUsed notes that a key was accepted. It never blocks for long.
func (c *Credentials) KeyUsed(id string) {
	c.note(store.CredentialChange{Kind: store.KindAPIKey, ID: id})
}

// TokenUsed notes that a token was accepted. It never blocks for long.
func (c *Credentials) TokenUsed(id string) {
	c.note(store.CredentialChange{Kind: store.KindAdminToken, ID: id})
}

// find returns what is known of a row, asking the store if nothing is.
func (c *Credentials) find(ctx context.Context, what store.CredentialChange) (*credential, error) {
	ref := credentialRef{what, c.generation.Load()}
	row, err := c.rows.Get(ctx, ref, c.load)
	if err != nil {
		return nil, fmt.Errorf("%w: looking up a credential: %w", ErrStoreDown, err)
	}
	return row, nil
}

// errBusy says that too many look-ups are under way.
var errBusy = errors.New("too many credentials are being looked up")

func (c *Credentials) load(ctx context.Context, ref credentialRef) (*credential, error) {
	if !c.up() {
		if row := c.saved.Load().find(ref.CredentialChange); row != nil {
			return row, nil
		}
		return nil, errors.New("the store is down")
	}
	// Others may wait for the answer when the client that asked has left.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, errBusy
	}
	row, err := c.read(ctx, ref.CredentialChange)
	if errors.Is(err, store.ErrNotFound) {
		return new(credential), nil
	}
	return row, err
}

func (c *Credentials) read(ctx context.Context, what store.CredentialChange) (*credential, error) {
	switch what.Kind {
	case store.KindAPIKey:
		found, err := c.store.Credential(ctx, what.ID)
		if err != nil {
			return nil, err
		}
		return &credential{key: &found.Key}, nil
	case store.KindAdminToken:
		token, err := c.store.Token(ctx, what.ID)
		return &credential{token: token}, err
	default:
		id, err := strconv.ParseInt(what.ID, 10, 64)
		if err != nil {
			return nil, store.ErrNotFound
		}
		consumer, err := c.store.Consumer(ctx, id)
		return &credential{consumer: consumer}, err
	}
}

// forget makes the next look-ups of what has changed ask the store. A result that is
// on its way is thrown away.
func (c *Credentials) forget(changes []store.CredentialChange) {
	generation := c.generation.Load()
	for _, what := range changes {
		c.rows.Invalidate(credentialRef{what, generation})
	}
}

// forgetAll is forget for everything.
func (c *Credentials) forgetAll() {
	c.saved.Store(nil)
	c.generation.Add(1)
}

// savedCredentials are those of a snapshot. The nil one has none.
type savedCredentials struct {
	keys      map[string]*store.APIKey
	consumers map[string]*store.Consumer
}

// restore takes what a snapshot knew for what there is while the store is down. What it
// does not have may be there all the same.
func (c *Credentials) restore(known []*store.Credential) {
	saved := &savedCredentials{keys: make(map[string]*store.APIKey, len(known)), consumers: make(map[string]*store.Consumer)}
	for _, one := range known {
		saved.keys[one.Key.ID] = &one.Key
		saved.consumers[strconv.FormatInt(one.Consumer.ID, 10)] = &one.Consumer
	}
	c.saved.Store(saved)
}

// find returns a row, nil if it is not known.
func (s *savedCredentials) find(what store.CredentialChange) *credential {
	if s == nil {
		return nil
	}
	switch what.Kind {
	case store.KindAPIKey:
		if key := s.keys[what.ID]; key != nil {
			return &credential{key: key}
		}
	case store.KindConsumer:
		if consumer := s.consumers[what.ID]; consumer != nil {
			return &credential{consumer: consumer}
		}
	}
	return nil
}

func (c *Credentials) note(what store.CredentialChange) {
	c.mu.RLock()
	_, noted := c.used[what]
	full := len(c.used) >= maxUses
	c.mu.RUnlock()
	if noted || full {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[what] = time.Now()
}

// writeUses writes the uses since the last call, if there were any. What can't be written
// is lost: it is of use to people who look for keys that nobody needs, and comes again
// with the next use.
func (c *Credentials) writeUses(ctx context.Context) (tried bool, err error) {
	c.mu.Lock()
	used := c.used
	c.used = make(map[store.CredentialChange]time.Time)
	c.mu.Unlock()
	byKind := make(map[store.CredentialKind]map[string]time.Time)
	for what, at := range used {
		if byKind[what.Kind] == nil {
			byKind[what.Kind] = make(map[string]time.Time)
		}
		byKind[what.Kind][what.ID] = at
	}
	for kind, at := range byKind {
		if err := c.store.Used(ctx, kind, at); err != nil {
			return true, err
		}
	}
	return len(used) > 0, nil
}

func (c *Credentials) close() { c.rows.Close() }
