package store

import (
	"context"
	"database/sql"
	"time"
)

const (
	keyColumns = `k.id, k.consumer_id, k.name, k.hash, k.enabled, k.expires_at, u.used_at,
		k.revision, k.created_at, k.updated_at`
	keyTables = `api_keys k LEFT JOIN credential_uses u ON u.kind = 'api_key' AND u.id = k.id`

	tokenColumns = `t.id, t.name, t.role, t.hash, t.expires_at, u.used_at, t.revision, t.created_at`      //nolint:gosec // no secret
	tokenTables  = `admin_tokens t LEFT JOIN credential_uses u ON u.kind = 'admin_token' AND u.id = t.id` //nolint:gosec // no secret
)

func scanKey(scan func(dest ...any) error) (*APIKey, error) {
	var (
		k                               APIKey
		expires, used, created, updated timestamp
	)
	err := scan(&k.ID, &k.ConsumerID, &k.Name, &k.Hash, &k.Enabled, &expires, &used, &k.Revision, &created, &updated)
	if err != nil {
		return nil, err
	}
	k.ExpiresAt, k.LastUsedAt = expires.pointer(), used.pointer()
	k.CreatedAt, k.UpdatedAt = created.Time, updated.Time
	return &k, nil
}

func scanToken(scan func(dest ...any) error) (*AdminToken, error) {
	var (
		t                      AdminToken
		expires, used, created timestamp
	)
	if err := scan(&t.ID, &t.Name, &t.Role, &t.Hash, &expires, &used, &t.Revision, &created); err != nil {
		return nil, err
	}
	t.ExpiresAt, t.LastUsedAt, t.CreatedAt = expires.pointer(), used.pointer(), created.Time
	return &t, nil
}

// LiveCredentials implements Credentials.
func (s *sqlStore) LiveCredentials(ctx context.Context, limit int) ([]*Credential, error) {
	var list []*Credential
	err := s.querySnapshot(ctx, "reading credentials", func(ctx context.Context, q querier, _ func()) (err error) {
		list, err = readAll(ctx, q, scanCredential, "SELECT "+keyColumns+`,
				c.id, c.name, c.enabled, c.spec, c.revision, c.created_at, c.updated_at
			FROM `+keyTables+` JOIN consumers c ON c.id = k.consumer_id
			WHERE k.deleted_at IS NULL AND c.deleted_at IS NULL
			ORDER BY CASE WHEN u.used_at IS NULL THEN 1 ELSE 0 END, u.used_at DESC, k.id LIMIT $1`, limit)
		return err
	})
	return list, err
}

// Keys implements Credentials.
func (s *sqlStore) Keys(ctx context.Context, consumer int64) ([]*APIKey, error) {
	if !validID(consumer) {
		return nil, nil
	}
	var list []*APIKey
	err := s.query(ctx, "reading keys", func(ctx context.Context, q querier) (err error) {
		list, err = readAll(ctx, q, scanKey, "SELECT "+keyColumns+" FROM "+keyTables+`
			WHERE k.deleted_at IS NULL AND k.consumer_id = $1 ORDER BY k.created_at, k.id`, consumer)
		return err
	})
	return list, err
}

// CreateKey implements Credentials.
func (s *sqlStore) CreateKey(ctx context.Context, k *APIKey, by Author) (*APIKey, error) {
	if err := checkNamed(k.Name, by); err != nil {
		return nil, err
	}
	created := *k
	created.LastUsedAt = nil
	err := s.change(ctx, "creating a key", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		if err := checkRevision(ctx, tx, "consumers", k.ConsumerID, 0); err != nil {
			return err
		}
		var there int
		err := tx.QueryRowContext(ctx, "SELECT count(*) FROM api_keys WHERE deleted_at IS NULL AND consumer_id = $1",
			k.ConsumerID).Scan(&there)
		if err != nil {
			return err
		}
		if there >= MaxKeys {
			return ErrTooMany
		}
		created.Revision, created.CreatedAt = revision, now()
		created.UpdatedAt, created.ExpiresAt = created.CreatedAt, precise(k.ExpiresAt)
		_, err = tx.ExecContext(ctx, `INSERT INTO api_keys
				(id, consumer_id, name, hash, enabled, expires_at, revision, updated_by, updated_from, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)`,
			k.ID, k.ConsumerID, k.Name, k.Hash, k.Enabled, created.ExpiresAt, revision, by.Actor, by.Source, created.CreatedAt)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &created, nil
}

// UpdateKey implements Credentials.
func (s *sqlStore) UpdateKey(ctx context.Context, k *APIKey, by Author) (*APIKey, error) {
	if err := checkNamed(k.Name, by); err != nil {
		return nil, err
	}
	if !validID(k.ConsumerID) || textProblem(k.ID) != "" {
		return nil, ErrNotFound
	}
	there := foundAtRevision(k.Revision, "SELECT revision FROM api_keys WHERE id = $1 AND consumer_id = $2 AND deleted_at IS NULL",
		k.ID, k.ConsumerID)
	err := s.change(ctx, "updating a key", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		if err := inTurn(ctx, tx, []step{there}); err != nil {
			return err
		}
		return changedOne(tx.ExecContext(ctx, `UPDATE api_keys SET
				name = $3, enabled = $4, expires_at = $5,
				revision = $6, updated_by = $7, updated_from = $8, updated_at = $9
			WHERE id = $1 AND consumer_id = $2 AND deleted_at IS NULL`,
			k.ID, k.ConsumerID, k.Name, k.Enabled, precise(k.ExpiresAt), revision, by.Actor, by.Source, now()))
	})
	if err != nil {
		return nil, err
	}
	return readOne(ctx, s, "reading a key", scanKey,
		"SELECT "+keyColumns+" FROM "+keyTables+" WHERE k.deleted_at IS NULL AND k.id = $1", k.ID)
}

// DeleteKey implements Credentials.
func (s *sqlStore) DeleteKey(ctx context.Context, consumer int64, id string, by Author) error {
	if err := checkAuthor(by); err != nil {
		return err
	}
	if !validID(consumer) || textProblem(id) != "" {
		return ErrNotFound
	}
	return s.change(ctx, "deleting a key", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		return changedOne(tx.ExecContext(ctx, `UPDATE api_keys SET
				deleted_at = $3, updated_at = $3, revision = $4, updated_by = $5, updated_from = $6
			WHERE id = $1 AND consumer_id = $2 AND deleted_at IS NULL`,
			id, consumer, now(), revision, by.Actor, by.Source))
	})
}

// Credential implements Credentials.
func (s *sqlStore) Credential(ctx context.Context, id string) (*Credential, error) {
	if textProblem(id) != "" {
		return nil, ErrNotFound
	}
	return readOne(ctx, s, "reading a credential", scanCredential, "SELECT "+keyColumns+`,
			c.id, c.name, c.enabled, c.spec, c.revision, c.created_at, c.updated_at
		FROM `+keyTables+` JOIN consumers c ON c.id = k.consumer_id
		WHERE k.deleted_at IS NULL AND c.deleted_at IS NULL AND k.id = $1`, id)
}

func scanCredential(scan func(dest ...any) error) (*Credential, error) {
	var (
		cred       Credential
		k, c       = &cred.Key, &cred.Consumer
		spec       []byte
		times      [6]timestamp
		keyExpires = &times[0]
	)
	err := scan(&k.ID, &k.ConsumerID, &k.Name, &k.Hash, &k.Enabled, keyExpires, &times[1], &k.Revision, &times[2], &times[3],
		&c.ID, &c.Name, &c.Enabled, &spec, &c.Revision, &times[4], &times[5])
	if err != nil {
		return nil, err
	}
	k.ExpiresAt, k.LastUsedAt = keyExpires.pointer(), times[1].pointer()
	k.CreatedAt, k.UpdatedAt = times[2].Time, times[3].Time
	c.CreatedAt, c.UpdatedAt = times[4].Time, times[5].Time
	c.setSpec(spec)
	return &cred, nil
}

// Tokens implements Credentials.
func (s *sqlStore) Tokens(ctx context.Context) ([]*AdminToken, error) {
	var list []*AdminToken
	err := s.query(ctx, "reading tokens", func(ctx context.Context, q querier) (err error) {
		list, err = readAll(ctx, q, scanToken, "SELECT "+tokenColumns+" FROM "+tokenTables+`
			WHERE t.deleted_at IS NULL ORDER BY t.created_at, t.id`)
		return err
	})
	return list, err
}

// Token implements Credentials.
func (s *sqlStore) Token(ctx context.Context, id string) (*AdminToken, error) {
	if textProblem(id) != "" {
		return nil, ErrNotFound
	}
	return readOne(ctx, s, "reading a token", scanToken,
		"SELECT "+tokenColumns+" FROM "+tokenTables+" WHERE t.deleted_at IS NULL AND t.id = $1", id)
}

// CreateToken implements Credentials.
func (s *sqlStore) CreateToken(ctx context.Context, t *AdminToken, by Author) (*AdminToken, error) {
	if err := checkNamed(t.Name, by); err != nil {
		return nil, err
	}
	created := *t
	created.LastUsedAt = nil
	err := s.change(ctx, "creating a token", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		created.Revision, created.CreatedAt, created.ExpiresAt = revision, now(), precise(t.ExpiresAt)
		_, err := tx.ExecContext(ctx, `INSERT INTO admin_tokens
				(id, name, role, hash, expires_at, revision, updated_by, updated_from, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)`,
			t.ID, t.Name, string(t.Role), t.Hash, created.ExpiresAt, revision, by.Actor, by.Source, created.CreatedAt)
		return err
	})
	if err != nil {
		return nil, nameTaken(err)
	}
	return &created, nil
}

// DeleteToken implements Credentials.
func (s *sqlStore) DeleteToken(ctx context.Context, id string, by Author) error {
	if err := checkAuthor(by); err != nil {
		return err
	}
	if textProblem(id) != "" {
		return ErrNotFound
	}
	return s.change(ctx, "deleting a token", func(ctx context.Context, tx *sql.Tx, revision int64) error {
		return changedOne(tx.ExecContext(ctx, `UPDATE admin_tokens SET
				deleted_at = $2, updated_at = $2, revision = $3, updated_by = $4, updated_from = $5
			WHERE id = $1 AND deleted_at IS NULL`, id, now(), revision, by.Actor, by.Source))
	})
}

// Used implements Credentials.
func (s *sqlStore) Used(ctx context.Context, kind CredentialKind, at map[string]time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	for id, used := range at {
		_, err := s.writer.ExecContext(ctx, `INSERT INTO credential_uses (kind, id, used_at) VALUES ($1, $2, $3)
			ON CONFLICT (kind, id) DO UPDATE SET used_at = excluded.used_at
			WHERE credential_uses.used_at < excluded.used_at`, string(kind), id, *precise(&used))
		if err != nil {
			return s.explain(ctx, "noting the use of credentials", err)
		}
	}
	return nil
}

// checkNamed refuses texts that PostgreSQL does.
func checkNamed(name string, by Author) error {
	var errs FieldErrors
	if problem := textProblem(name); problem != "" {
		errs.Add("name", problem)
	}
	if err := errs.Err(); err != nil {
		return err
	}
	return checkAuthor(by)
}

// changedOne turns a statement that has found nothing into ErrNotFound.
func changedOne(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// precise returns a time with the precision that both databases keep, nil for nil.
func precise(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	at := t.UTC().Truncate(time.Microsecond)
	return &at
}
