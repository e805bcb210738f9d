package certstore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

const (
	// outagePause is for how long after a failure copies are taken at once, so that a
	// handshake with its several loads doesn't wait for a dead server again and again.
	outagePause = 5 * time.Second

	// copyAge is how long a copy is kept that nobody has loaded; copySweep how often
	// older ones are looked for. Certificates are renewed sooner.
	copyAge   = 90 * 24 * time.Hour
	copySweep = 24 * time.Hour

	copyPlain  = 0
	copySealed = 1

	// copyFolder is the folder's own part that is used, so that nothing else in it is
	// overwritten or removed.
	copyFolder = "isekai-certificates"
)

// copies keeps on this machine what was loaded and stored, as it is in the database,
// for when that does not answer. While it does, they are never read. A nil *copies
// keeps nothing.
type copies struct {
	files *certmagic.FileStorage
	log   func() *zap.Logger
	down  atomic.Int64 // until when the database is taken to be away, in Unix nanoseconds
}

func newCopies(folder string, log func() *zap.Logger) *copies {
	if folder == "" {
		return nil
	}
	return &copies{files: &certmagic.FileStorage{Path: filepath.Join(folder, copyFolder)}, log: log}
}

// wanted reports whether a key is of use in an outage: what is needed to serve a
// certificate.
func (c *copies) wanted(key string) bool {
	if c == nil {
		return false
	}
	for _, dir := range []string{"certificates/", "ocsp/", "pki/"} {
		if strings.HasPrefix(key, dir) {
			return true
		}
	}
	return false
}

// keep writes what the database has under a key.
func (c *copies) keep(ctx context.Context, key string, stored, id []byte) {
	if !c.wanted(key) {
		return
	}
	c.down.Store(0)
	text := make([]byte, 0, 1+len(id)+len(stored))
	if id == nil {
		text = append(text, copyPlain)
	} else {
		text = append(append(text, copySealed), id...)
	}
	text = append(text, stored...)
	if have, err := c.files.Load(ctx, key); err == nil && bytes.Equal(have, text) {
		now := time.Now()
		if os.Chtimes(c.files.Filename(key), now, now) == nil {
			return
		}
	}
	if err := c.files.Store(ctx, key, text); err != nil {
		c.log().Warn("writing the local copy of a certificate", zap.String("key", key), zap.Error(err))
	}
}

// drop forgets a key, or all below it.
func (c *copies) drop(ctx context.Context, key string) {
	if !c.wanted(key + "/") {
		return
	}
	if err := c.files.Delete(ctx, key); err != nil {
		c.log().Warn("deleting the local copy of a certificate", zap.String("key", key), zap.Error(err))
	}
}

// outage notes that the database did not answer.
func (c *copies) outage() {
	if c != nil {
		c.down.Store(time.Now().Add(outagePause).UnixNano())
	}
}

// inOutage reports whether that was just now.
func (c *copies) inOutage() bool { return c != nil && time.Now().UnixNano() < c.down.Load() }

// load returns what was kept under a key.
func (c *copies) load(key string, s *seals) ([]byte, bool) {
	if !c.wanted(key) {
		return nil, false
	}
	text, err := c.files.Load(context.Background(), key)
	if err != nil || len(text) == 0 {
		return nil, false
	}
	var id []byte
	kind, text := text[0], text[1:]
	if kind == copySealed {
		if len(text) < keyIDSize {
			return nil, false
		}
		id, text = text[:keyIDSize], text[keyIDSize:]
	}
	value, err := s.open(key, text, id)
	return value, err == nil
}

// sweep removes the copies that are too old.
func (c *copies) sweep(ctx context.Context) {
	oldest := time.Now().Add(-copyAge)
	// Within the folder, whatever links somebody puts into it meanwhile.
	folder, err := os.OpenRoot(c.files.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.log().Warn("removing old local copies of certificates", zap.Error(err))
		return
	}
	defer folder.Close()
	err = fs.WalkDir(folder.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if entry.IsDir() {
			return nil
		}
		info, err := entry.Info()
		if err != nil || info.ModTime().After(oldest) {
			return nil //nolint:nilerr // it has just been deleted
		}
		return folder.Remove(path)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		c.log().Warn("removing old local copies of certificates", zap.Error(err))
	}
}
