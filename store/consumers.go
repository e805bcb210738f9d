package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrNameTaken says that another live consumer or token has the name.
var ErrNameTaken = errors.New("the name is taken")

// Credentials keeps consumers, their API keys and the tokens for the admin API. Every
// change but a use is a revision, like a change of a route, whoever makes it.
type Credentials interface {
	// Consumers returns up to limit live consumers with an id above after, by id. With
	// a name, only the one that has it.
	Consumers(ctx context.Context, name string, after int64, limit int) ([]*Consumer, error)

	// Consumer returns the live consumer with this id, or ErrNotFound.
	Consumer(ctx context.Context, id int64) (*Consumer, error)

	// CreateConsumer inserts the consumer and returns it with its id, revision and
	// times. ErrNameTaken if a live one has its name.
	CreateConsumer(ctx context.Context, c *Consumer, by Author) (*Consumer, error)

	// UpdateConsumer replaces the live consumer that has c.ID. If ifRevision is not
	// 0 and the consumer is at another revision: ErrStale. Otherwise as
	// CreateConsumer.
	UpdateConsumer(ctx context.Context, c *Consumer, ifRevision int64, by Author) (*Consumer, error)

	// DeleteConsumer marks the consumer and its keys deleted. ErrNotFound, or
	// ErrStale as in UpdateConsumer.
	DeleteConsumer(ctx context.Context, id, ifRevision int64, by Author) error

	// Keys returns the live keys of a consumer, oldest first.
	Keys(ctx context.Context, consumer int64) ([]*APIKey, error)

	// CreateKey inserts the key, whose ID and Hash are set, and returns it with its
	// revision and times. ErrNotFound if there is no such consumer; ErrTooMany if it
	// has MaxKeys already.
	CreateKey(ctx context.Context, k *APIKey, by Author) (*APIKey, error)

	// UpdateKey sets the name, expiry and Enabled of the live key that has k.ID and
	// k.ConsumerID. If k.Revision is not 0 and the key is at another revision: ErrStale.
	// ErrNotFound.
	UpdateKey(ctx context.Context, k *APIKey, by Author) (*APIKey, error)

	// DeleteKey marks the key deleted. ErrNotFound.
	DeleteKey(ctx context.Context, consumer int64, id string, by Author) error

	// Credential returns the live key with this id and its live consumer, or
	// ErrNotFound.
	Credential(ctx context.Context, id string) (*Credential, error)

	// LiveCredentials returns up to limit live keys with their live consumers, those
	// that were used last first.
	LiveCredentials(ctx context.Context, limit int) ([]*Credential, error)

	// Tokens returns the live tokens for the admin API, oldest first.
	Tokens(ctx context.Context) ([]*AdminToken, error)

	// Token returns the live token with this id, or ErrNotFound.
	Token(ctx context.Context, id string) (*AdminToken, error)

	// CreateToken inserts the token, whose ID and Hash are set, and returns it with
	// its revision and time. ErrNameTaken if a live one has its name.
	CreateToken(ctx context.Context, t *AdminToken, by Author) (*AdminToken, error)

	// DeleteToken marks the token deleted. ErrNotFound.
	DeleteToken(ctx context.Context, id string, by Author) error

	// Used notes when credentials of a kind were last used, by id. Earlier times
	// than those known are passed over. It is no revision.
	Used(ctx context.Context, kind CredentialKind, at map[string]time.Time) error
}

// ErrTooMany says that there are as many as there may be.
var ErrTooMany = errors.New("there are too many already")

// MaxKeys is how many live keys a consumer may have.
const MaxKeys = 100

// CredentialKind is what kind of row a change of credentials is of.
type CredentialKind string

// The kinds.
const (
	KindConsumer   CredentialKind = "consumer"
	KindAPIKey     CredentialKind = "api_key"
	KindAdminToken CredentialKind = "admin_token"
)

// CredentialChange names a row that a revision has changed.
type CredentialChange struct {
	Kind CredentialKind
	ID   string
}

const consumerColumns = `id, name, enabled, spec, revision, created_at, updated_at`

func scanConsumer(scan func(dest ...any) error) (*Consumer, error) {
	var (
		c                Consumer
		spec             []byte
		created, updated timestamp
	)
	if err := scan(&c.ID, &c.Name, &c.Enabled, &spec, &c.Revision, &created, &updated); err != nil {
		return nil, err
	}
	c.CreatedAt, c.UpdatedAt = created.Time, updated.Time
	c.setSpec(spec)
	return &c, nil
}

// setSpec decodes a spec. One that plain SQL has spoiled closes the consumer, since
// nobody knows what it was meant to forbid.
func (c *Consumer) setSpec(document []byte) {
	if err := json.Unmarshal(document, &c.ConsumerSpec); err != nil {
		c.ConsumerSpec, c.Enabled = ConsumerSpec{}, false
		c.DecodeError = fmt.Sprintf("spec: %s", err)
	}
}

// encodeConsumer returns the spec as JSON, or FieldErrors for values that PostgreSQL
// refuses.
func encodeConsumer(c *Consumer, by Author) (string, error) {
	var errs FieldErrors
	if problem := textProblem(c.Name); problem != "" {
		errs.Add("name", problem)
	}
	spec, err := json.Marshal(c.ConsumerSpec)
	if err == nil {
		err = checkJSON(spec)
	}
	if err != nil {
		errs.Add("labels", err.Error())
	}
	if err := errs.Err(); err != nil {
		return "", err
	}
	return string(spec), checkAuthor(by)
}

// Consumers implements Credentials.
func (s *sqlStore) Consumers(ctx context.Context, name string, after int64, limit int) ([]*Consumer, error) {
	if textProblem(name) != "" {
		return nil, nil
	}
	var list []*Consumer
	err := s.query(ctx, "reading consumers", func(ctx context.Context, q querier) (err error) {
		list, err = readAll(ctx, q, scanConsumer, "SELECT "+consumerColumns+` FROM consumers
			WHERE deleted_at IS NULL AND ($3 = '' OR name = $3) AND id > $1 ORDER BY id LIMIT $2`, after, limit, name)
		return err
	})
	return list, err
}

// Consumer implements Credentials.
func (s *sqlStore) Consumer(ctx context.Context, id int64) (*Consumer, error) {
	if !validID(id) {
		return nil, ErrNotFound
	}
	return readOne(ctx, s, "reading a consumer", scanConsumer,
		"SELECT "+consumerColumns+" FROM consumers WHERE id = $1 AND deleted_at IS NULL", id)
}

// CreateConsumer implements Credentials.
func (s *sqlStore) CreateConsumer(ctx context.Context, c *Consumer, by Author) (*Consumer, error) {
	spec, err := encodeConsumer(c, by)
	if err != nil {
		return nil, err
	}
	var created *Consumer
	err = s.change(ctx, "creating a consumer", func(ctx context.Context, tx *sql.Tx, revision int64) (err error) {
		created, err = scanConsumer(tx.QueryRowContext(ctx, `INSERT INTO consumers
				(name, enabled, spec, revision, updated_by, updated_from, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING `+consumerColumns,
			c.Name, c.Enabled, spec, revision, by.Actor, by.Source, now()).Scan)
		return err
	})
	if err != nil {
		return nil, nameTaken(err)
	}
	return created, nil
}

// UpdateConsumer implements Credentials.
func (s *sqlStore) UpdateConsumer(ctx context.Context, c *Consumer, ifRevision int64, by Author) (*Consumer, error) {
	spec, err := encodeConsumer(c, by)
	if err != nil {
		return nil, err
	}
	var updated *Consumer
	err = s.change(ctx, "updating a consumer", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		if err := checkRevision(ctx, tx, "consumers", c.ID, ifRevision); err != nil {
			return err
		}
		updated, err = scanConsumer(tx.QueryRowContext(ctx, `UPDATE consumers SET
				name = $2, enabled = $3, spec = $4, revision = $5, updated_by = $6, updated_from = $7, updated_at = $8
			WHERE id = $1 RETURNING `+consumerColumns,
			c.ID, c.Name, c.Enabled, spec, revision, by.Actor, by.Source, now()).Scan)
		return err
	})
	if err != nil {
		return nil, nameTaken(err)
	}
	return updated, nil
}

// DeleteConsumer implements Credentials.
func (s *sqlStore) DeleteConsumer(ctx context.Context, id, ifRevision int64, by Author) error {
	if err := checkAuthor(by); err != nil {
		return err
	}
	return s.change(ctx, "deleting a consumer", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		if err := checkRevision(ctx, tx, "consumers", id, ifRevision); err != nil {
			return err
		}
		const set = " SET deleted_at = $2, updated_at = $2, revision = $3, updated_by = $4, updated_from = $5 "
		for _, statement := range []string{
			"UPDATE api_keys" + set + "WHERE deleted_at IS NULL AND consumer_id = $1",
			"UPDATE consumers" + set + "WHERE id = $1",
		} {
			if _, err := tx.ExecContext(ctx, statement, id, now(), revision, by.Actor, by.Source); err != nil {
				return err
			}
		}
		return nil
	})
}

// nameTaken says what a violated unique index means to these tables.
func nameTaken(err error) error {
	if errors.Is(err, ErrConflict) {
		return ErrNameTaken
	}
	return err
}

func readOne[T any](ctx context.Context, s *sqlStore, doing string, scan func(func(...any) error) (*T, error), query string, args ...any) (*T, error) {
	var one *T
	err := s.query(ctx, doing, func(ctx context.Context, q querier) (err error) {
		one, err = scan(q.QueryRowContext(ctx, query, args...).Scan)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return one, nil
}

func readAll[T any](ctx context.Context, q querier, scan func(func(...any) error) (*T, error), query string, args ...any) ([]*T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*T
	for rows.Next() {
		one, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	return list, rows.Err()
}
