package certstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// Bounds of what is stored.
const (
	// MaxValue is the most bytes of a value: many times what a certificate chain has.
	MaxValue = 1 << 20

	// MaxKey is the most bytes of a key, or of a lock's name.
	MaxKey = 1024
)

// clean returns a key in the form in which it is stored, as a file system reads it:
// without slashes at the ends or doubled. "" is the root.
func clean(key string) (string, error) {
	if !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return "", fmt.Errorf("the key %q is no valid text", key)
	}
	if len(key) > MaxKey {
		return "", fmt.Errorf("the key %.40q... is longer than %d bytes", key, MaxKey)
	}
	return strings.TrimPrefix(path.Clean("/"+key), "/"), nil
}

// fileKey is clean for a key that must not be the root.
func fileKey(key string) (string, error) {
	cleaned, err := clean(key)
	if err == nil && cleaned == "" {
		err = errors.New("the key is empty")
	}
	return cleaned, err
}

// below returns the range of the keys below a directory, that is from and before.
func below(dir string) (from, before string) {
	if dir == "" {
		return "", "\U0010ffff"
	}
	return dir + "/", dir + "0" // the character after the slash
}

// Store implements certmagic.Storage. Values are at most MaxValue bytes long.
func (s *Storage) Store(ctx context.Context, key string, value []byte) error {
	key, err := fileKey(key)
	if err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	if len(value) > MaxValue {
		return fmt.Errorf("storing %s: the value has %d bytes, more than %d", key, len(value), MaxValue)
	}
	stored, id := s.seals.seal(key, value)
	if stored == nil {
		stored = []byte{} // and not NULL
	}
	err = s.run(ctx, "storing "+key, func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, `INSERT INTO certificates_storage (key, value, sealed) VALUES ($1, $2, $3)
			ON CONFLICT (key) DO UPDATE SET value = excluded.value, sealed = excluded.sealed, modified = clock_timestamp()`,
			key, stored, id)
		return err
	})
	if err != nil {
		return err
	}
	s.copies.keep(ctx, key, stored, id)
	if claim, part := authority(key); part == ".key" {
		if made := s.locks.claimed(claim); made != nil {
			s.unclaim(ctx, made)
		}
	}
	return nil
}

// Load implements certmagic.Storage. Its error is fs.ErrNotExist only if the database
// has said so: for a certificate that is not there a new one is ordered. While the
// database does not answer, the value may be a local copy, if such are kept.
func (s *Storage) Load(ctx context.Context, key string) ([]byte, error) {
	key, err := fileKey(key)
	if err != nil {
		return nil, fmt.Errorf("loading: %w", err)
	}
	if s.copies.inOutage() {
		if value, ok := s.copies.load(key, s.seals); ok {
			return value, nil
		}
	}
	value, err := s.load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		if claim, part := authority(key); claim != "" {
			value, err = s.loadAuthority(ctx, key, claim, part)
		}
	}
	switch {
	case err == nil, errors.Is(err, ErrSealed), errors.Is(err, ErrClosed), ctx.Err() != nil:
	case errors.Is(err, fs.ErrNotExist):
		s.copies.drop(ctx, key)
	default:
		s.copies.outage()
		if value, ok := s.copies.load(key, s.seals); ok {
			s.opts.Log().Warn("using the local copy of a certificate", zap.Error(err))
			return value, nil
		}
	}
	return value, err
}

func (s *Storage) load(ctx context.Context, key string) ([]byte, error) {
	var stored, id []byte
	err := s.run(ctx, "loading "+key, func(ctx context.Context) error {
		return notExist(s.pool.QueryRow(ctx, "SELECT value, sealed FROM certificates_storage WHERE key = $1", key).Scan(&stored, &id))
	})
	if err != nil {
		return nil, err
	}
	value, err := s.seals.open(key, stored, id)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", key, err)
	}
	s.copies.keep(ctx, key, stored, id)
	return value, nil
}

// Delete implements certmagic.Storage. It deletes the key and all below it.
func (s *Storage) Delete(ctx context.Context, key string) error {
	key, err := fileKey(key)
	if err != nil {
		return fmt.Errorf("deleting: %w", err)
	}
	from, before := below(key)
	err = s.run(ctx, "deleting "+key, func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, "DELETE FROM certificates_storage WHERE key = $1 OR key >= $2 AND key < $3", key, from, before)
		return err
	})
	if err == nil {
		s.copies.drop(ctx, key)
	}
	return err
}

// Exists implements certmagic.Storage. If the database can't say, the answer is yes,
// as it is of certmagic's file storage: after a no, a new certificate is ordered.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opts.Log().Error("looking for a key of the certificate storage", zap.Error(err))
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// Stat implements certmagic.Storage. The size is that of the value, sealed or not. A
// directory has neither size nor time; it is there as long as a key is below it.
func (s *Storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	cleaned, err := clean(key)
	if err != nil {
		return certmagic.KeyInfo{}, fmt.Errorf("looking for a key: %w", err)
	}
	info := certmagic.KeyInfo{Key: key}
	from, before := below(cleaned)
	err = s.run(ctx, "looking for "+key, func(ctx context.Context) error {
		var size *int64
		var modified *time.Time
		var sealed, isDir bool
		err := s.pool.QueryRow(ctx, `SELECT octet_length(f.value), f.modified, f.sealed IS NOT NULL,
				EXISTS (SELECT FROM certificates_storage d WHERE d.key >= $2 AND d.key < $3)
			FROM (SELECT) one LEFT JOIN certificates_storage f ON f.key = $1`, cleaned, from, before).Scan(&size, &modified, &sealed, &isDir)
		switch {
		case err != nil:
			return err
		case size != nil:
			info.Size, info.Modified, info.IsTerminal = *size, *modified, true
			if sealed {
				info.Size -= sealOverhead
			}
		case !isDir && cleaned != "":
			return fs.ErrNotExist
		}
		return nil
	})
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	return info, nil
}

// List implements certmagic.Storage as certmagic's file storage does: directories are
// listed too, all of them if recursive, before what is in them. The keys are in the
// order in which a walk through a file system finds them.
func (s *Storage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	dir, err := clean(prefix)
	if err != nil {
		return nil, fmt.Errorf("listing: %w", err)
	}
	from, before := below(dir)
	var keys []string
	err = s.run(ctx, "listing "+prefix, func(ctx context.Context) error {
		rows, err := s.pool.Query(ctx, "SELECT key FROM certificates_storage WHERE key = $1 OR key >= $2 AND key < $3", dir, from, before)
		if err != nil {
			return err
		}
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
		if err == nil && len(keys) == 0 && dir != "" {
			return fs.ErrNotExist
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	found := make(map[string]struct{})
	for _, key := range keys {
		rest := strings.TrimPrefix(key, from)
		if key == dir {
			continue // a file is not below itself
		}
		for end := 0; end < len(rest); {
			next := strings.IndexByte(rest[end:], '/')
			if next < 0 {
				end = len(rest)
			} else {
				end += next
			}
			found[path.Join(prefix, rest[:end])] = struct{}{}
			if !recursive {
				break
			}
			end++
		}
	}
	list := make([]string, 0, len(found))
	for key := range found {
		list = append(list, key)
	}
	slices.SortFunc(list, walkOrder)
	return list, nil
}

// walkOrder compares keys segment by segment.
func walkOrder(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// notExist translates pgx's word for it.
func notExist(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fs.ErrNotExist
	}
	return err
}
