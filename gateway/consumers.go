package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/store"
)

// Consumers returns up to limit consumers with an id above after, by id, or with a name
// only the one that has it. They are read from the store, not from memory. Errors:
// ErrStoreDown.
func (g *Gateway) Consumers(ctx context.Context, name string, after int64, limit int) ([]*store.Consumer, error) {
	list, err := g.store.Consumers(ctx, name, after, limit)
	return list, g.storeError(err)
}

// Consumer returns the consumer with this id. Errors: store.ErrNotFound, ErrStoreDown.
func (g *Gateway) Consumer(ctx context.Context, id int64) (*store.Consumer, error) {
	c, err := g.store.Consumer(ctx, id)
	return c, g.storeError(err)
}

// CreateConsumer stores a new consumer. Errors: store.FieldErrors, store.ErrNameTaken,
// ErrStoreDown.
func (g *Gateway) CreateConsumer(ctx context.Context, c *store.Consumer, by store.Author) (*store.Consumer, error) {
	if err := validateConsumer(c); err != nil {
		return nil, err
	}
	row, err := g.store.CreateConsumer(ctx, c, by)
	return row, g.written(ctx, err)
}

// UpdateConsumer replaces the consumer with c.ID if it is still at revision ifRevision
// (0: whatever it is at); its keys follow at once. Errors as CreateConsumer, and
// store.ErrNotFound, store.ErrStale.
func (g *Gateway) UpdateConsumer(ctx context.Context, c *store.Consumer, ifRevision int64, by store.Author) (*store.Consumer, error) {
	if err := validateConsumer(c); err != nil {
		return nil, err
	}
	row, err := g.store.UpdateConsumer(ctx, c, ifRevision, by)
	return row, g.written(ctx, err)
}

// DeleteConsumer removes the consumer and its keys, under the same condition.
func (g *Gateway) DeleteConsumer(ctx context.Context, id, ifRevision int64, by store.Author) error {
	return g.written(ctx, g.store.DeleteConsumer(ctx, id, ifRevision, by))
}

// Keys returns the keys of a consumer, oldest first. Errors: store.ErrNotFound if there
// is no such consumer, ErrStoreDown.
func (g *Gateway) Keys(ctx context.Context, consumer int64) ([]*store.APIKey, error) {
	if _, err := g.store.Consumer(ctx, consumer); err != nil {
		return nil, g.storeError(err)
	}
	list, err := g.store.Keys(ctx, consumer)
	return list, g.storeError(err)
}

// CreateKey stores a key, whose ID and Hash are set. Errors: store.FieldErrors,
// store.ErrNotFound if there is no such consumer, store.ErrTooMany, ErrStoreDown.
func (g *Gateway) CreateKey(ctx context.Context, k *store.APIKey, by store.Author) (*store.APIKey, error) {
	if err := validateKey(k); err != nil {
		return nil, err
	}
	row, err := g.store.CreateKey(ctx, k, by)
	return row, g.written(ctx, err)
}

// UpdateKey changes the name, expiry and Enabled of the key with k.ID and
// k.ConsumerID, if it is still at k.Revision (0: whatever it is at). Errors:
// store.FieldErrors, store.ErrStale, store.ErrNotFound, ErrStoreDown.
func (g *Gateway) UpdateKey(ctx context.Context, k *store.APIKey, by store.Author) (*store.APIKey, error) {
	if err := validateKey(k); err != nil {
		return nil, err
	}
	row, err := g.store.UpdateKey(ctx, k, by)
	return row, g.written(ctx, err)
}

// DeleteKey revokes a key; it is refused here when this returns. Errors:
// store.ErrNotFound, ErrStoreDown.
func (g *Gateway) DeleteKey(ctx context.Context, consumer int64, id string, by store.Author) error {
	return g.written(ctx, g.store.DeleteKey(ctx, consumer, id, by))
}

// Tokens returns the tokens for the admin API, oldest first. Errors: ErrStoreDown.
func (g *Gateway) Tokens(ctx context.Context) ([]*store.AdminToken, error) {
	list, err := g.store.Tokens(ctx)
	return list, g.storeError(err)
}

// CreateToken stores a token, whose ID and Hash are set. Errors: store.FieldErrors,
// store.ErrNameTaken, ErrStoreDown.
func (g *Gateway) CreateToken(ctx context.Context, t *store.AdminToken, by store.Author) (*store.AdminToken, error) {
	if err := ValidateToken(t); err != nil {
		return nil, err
	}
	row, err := g.store.CreateToken(ctx, t, by)
	return row, g.written(ctx, err)
}

// DeleteToken revokes a token. Errors: store.ErrNotFound, ErrStoreDown.
func (g *Gateway) DeleteToken(ctx context.Context, id string, by store.Author) error {
	return g.written(ctx, g.store.DeleteToken(ctx, id, by))
}

// written brings this node to a change that the store has made, if err is nil, and
// sorts err otherwise.
func (g *Gateway) written(ctx context.Context, err error) error {
	if err != nil {
		return g.storeError(err)
	}
	// The client may be gone already, but its change must take effect.
	if err := g.sync(context.WithoutCancel(ctx)); err != nil {
		g.noteStore(err)
		// Nothing that is remembered may outlive the change.
		g.Credentials.forgetAll()
		g.cfg.Log().Warn("the store failed after a change of credentials; what was known of them is forgotten", zap.Error(err))
	}
	return nil
}

// storeError sorts an error of the store: those that callers can tell apart stay, all
// others are the database's and become ErrStoreDown.
func (g *Gateway) storeError(err error) error {
	if err == nil {
		return nil
	}
	for _, known := range []error{
		store.ErrNotFound, store.ErrNameTaken, store.ErrStale, store.ErrTooMany, store.ErrInvalid, store.ErrConflict, context.Canceled,
	} {
		if errors.Is(err, known) {
			return err
		}
	}
	if _, ok := errors.AsType[store.FieldErrors](err); ok {
		return err
	}
	g.noteStore(err)
	return fmt.Errorf("%w: %w", ErrStoreDown, err)
}

// Bounds of consumers, in bytes and numbers.
const (
	maxIdentifier = 100
	maxKeyName    = 200
	maxGroups     = 64
	maxLabels     = 64
	maxLabel      = 200
)

func validateConsumer(c *store.Consumer) error {
	var errs store.FieldErrors
	validateIdentifier(&errs, "name", c.Name)
	if len(c.Groups) > maxGroups {
		errs.Add("groups", fmt.Sprintf("must be at most %d", maxGroups))
	}
	for i, group := range c.Groups {
		field := fmt.Sprintf("groups[%d]", i)
		validateIdentifier(&errs, field, group)
		if slices.Contains(c.Groups[:i], group) {
			errs.Add(field, "is there twice")
		}
	}
	if len(c.Labels) > maxLabels {
		errs.Add("labels", fmt.Sprintf("must be at most %d", maxLabels))
	}
	for key, value := range c.Labels {
		if key == "" || len(key) > maxLabel || len(value) > maxLabel {
			errs.Add("labels."+key, fmt.Sprintf("key and value must be at most %d bytes, the key not empty", maxLabel))
		}
	}
	if c.RateLimit < 0 || c.RateLimit > ratelimit.MaxLimit {
		errs.Add("rate_limit", fmt.Sprintf("must be between 0 (no limit) and %d", ratelimit.MaxLimit))
	}
	if most := int(ratelimit.MaxWindow / time.Second); c.Window < 0 || c.Window > most {
		errs.Add("window", fmt.Sprintf("must be between 1 and %d seconds", most))
	}
	return errs.Err()
}

func validateKey(k *store.APIKey) error {
	var errs store.FieldErrors
	if len(k.Name) > maxKeyName {
		errs.Add("name", fmt.Sprintf("must be at most %d bytes", maxKeyName))
	}
	validateExpiry(&errs, k.ExpiresAt)
	return errs.Err()
}

// ValidateToken checks what a client may choose of a token. Errors are
// store.FieldErrors.
func ValidateToken(t *store.AdminToken) error {
	var errs store.FieldErrors
	validateIdentifier(&errs, "name", t.Name)
	if !t.Role.Valid() {
		errs.Add("role", "must be read, write or admin")
	}
	validateExpiry(&errs, t.ExpiresAt)
	return errs.Err()
}

func validateIdentifier(errs *store.FieldErrors, field, name string) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@:"
	if name == "" || len(name) > maxIdentifier || strings.Trim(name, allowed) != "" {
		errs.Add(field, fmt.Sprintf("must be 1 to %d letters, digits or any of _-.@:", maxIdentifier))
	}
}

func validateExpiry(errs *store.FieldErrors, at *time.Time) {
	if at != nil && (at.Year() < 1 || at.Year() >= 9999) {
		errs.Add("expires_at", "must be a time before the year 9999")
	}
}
