package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/crypto/bcrypt"

	"github.com/isekai-gateway/isekai/ratelimit"
)

// Account is somebody who can sign in by HTTP basic authentication.
type Account struct {
	// The bcrypt hash of the password, as `caddy hash-password` makes it, of cost 14
	// at most. Placeholders such as {env.X} are resolved when the configuration is
	// loaded. Required.
	Password string `json:"password"`

	// The account's groups. Default: none.
	Groups []string `json:"groups,omitempty"`
}

const (
	// maxBcryptCost is the cost of the hashes that Caddy makes: about a second.
	maxBcryptCost = 14

	// maxPassword is how many bytes of a password bcrypt looks at. A longer one would
	// have many equals.
	maxPassword = 72

	// maxGuessers is how many clients are counted.
	maxGuessers = 10_000

	// hashWait is how long a request waits for its turn to have a password hashed.
	hashWait = 2 * time.Second

	guessScope = "auth.basic"
)

// guesses is how many wrong passwords a client may send within a minute.
var guesses = ratelimit.Rule{Name: "guesses", Limit: 10, Window: time.Minute}

// basic is the accounts. Hashing a password is slow by design, so strangers can't
// have it done as often as they like: few at a time, and few for each client. A
// password that was right is recognized by a fast digest from then on, under a key
// that only this process has.
type basic struct {
	accounts map[string]*account
	unknown  account // whom the passwords of unknown users are compared with; its cost is the highest
	key      [32]byte
	slots    chan struct{}
	guesses  *ratelimit.Limiter
}

type account struct {
	hash   []byte
	cost   int // of the hash
	groups []string
	good   atomic.Pointer[[sha256.Size]byte] // the digest of the right password
}

func checkAccount(name string) error {
	if name == "" || strings.Contains(name, ":") {
		return fmt.Errorf("user name %q must not be empty or have a colon", name)
	}
	return nil
}

func newBasic(accounts map[string]Account, guesses *ratelimit.Limiter) (*basic, error) {
	b := &basic{
		accounts: make(map[string]*account, len(accounts)),
		slots:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		guesses:  guesses,
	}
	_, _ = rand.Read(b.key[:]) // never fails
	repl := caddy.NewReplacer()
	for name, cfg := range accounts {
		hash := []byte(repl.ReplaceKnown(cfg.Password, ""))
		cost, err := bcrypt.Cost(hash)
		switch {
		case err != nil:
			return nil, fmt.Errorf("account %s: the password must be a bcrypt hash: see caddy hash-password", name)
		case cost > maxBcryptCost:
			return nil, fmt.Errorf("account %s: the password must be a bcrypt hash of cost %d at most, not %d", name, maxBcryptCost, cost)
		case cost > b.unknown.cost:
			b.unknown.hash, b.unknown.cost = hash, cost
		}
		b.accounts[name] = &account{hash: hash, cost: cost, groups: cfg.Groups}
	}
	return b, nil
}

// password checks name and password.
func (v *Verifier) password(r *http.Request, name, password string) (*Identity, error) {
	if v.basic.unknown.hash == nil || len(password) > maxPassword {
		return nil, v.invalid(MethodBasic, "there is no account with such a password")
	}
	known, err := v.basic.check(r, name, password)
	switch {
	case errors.Is(err, ErrInvalid):
		return nil, v.invalid(MethodBasic, "the name or the password is wrong")
	case err != nil:
		v.unavailable(MethodBasic, err)
		return nil, err
	}
	return &Identity{Method: MethodBasic, ID: name, Name: name, Groups: known.groups}, nil
}

func (b *basic) check(r *http.Request, name, password string) (*account, error) {
	known, exists := b.accounts[name]
	digest := b.digest(name, password)
	if exists {
		if good := known.good.Load(); good != nil && hmac.Equal(good[:], digest[:]) {
			return known, nil
		}
	}
	clientIP, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	client := ratelimit.Charge{Rule: guesses, Scope: guessScope, Key: ratelimit.ClientKey(clientIP), Cost: 1}
	// Charged before it is known to be wrong, so that many at once count too.
	if d := b.guesses.Allow(client.Rule, client.Scope, client.Key, client.Cost); !d.Allowed {
		return nil, &guessingError{d.RetryAfter}
	}
	compared := &b.unknown
	if exists {
		compared = known
	}
	if err := b.compare(r.Context(), compared, password); err != nil {
		return nil, err
	}
	if !exists {
		return nil, ErrInvalid
	}
	known.good.Store(&digest)
	// It was no guess. The password is known now, so this can't be had again.
	_ = b.guesses.Reset(r.Context(), []ratelimit.Charge{client}) // never fails
	return known, nil
}

// compare waits for its turn and hashes the password. To find that it is wrong takes as
// long for each account, and for none, so that the time tells nobody which names exist.
func (b *basic) compare(ctx context.Context, with *account, password string) error {
	timeout := time.NewTimer(hashWait)
	defer timeout.Stop()
	select {
	case b.slots <- struct{}{}:
	case <-timeout.C:
		return ErrUnavailable
	case <-ctx.Done():
		return ErrUnavailable
	}
	defer func() { <-b.slots }()
	if bcrypt.CompareHashAndPassword(with.hash, []byte(password)) == nil {
		return nil
	}
	// Each cost takes twice the time of the one below, so these and the one above
	// together take what the highest does.
	for cost := with.cost; cost < b.unknown.cost; cost++ {
		_, _ = bcrypt.GenerateFromPassword([]byte(password), cost) // only for the time
	}
	return ErrInvalid
}

func (b *basic) digest(name, password string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, b.key[:])
	mac.Write([]byte(name))
	mac.Write([]byte{0})
	mac.Write([]byte(password))
	mac.Sum(sum[:0])
	return sum
}
