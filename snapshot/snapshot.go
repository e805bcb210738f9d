// Package snapshot keeps the last known routes in a file, from which a gateway serves
// if it starts while its database is away.
//
// The file is lines of JSON: a header, a line per route, a line per API key, and at the
// end the SHA-256 of all before it. It holds what the rows hold, secrets included, but of
// API keys only hashes; so only its owner may read it. With a key all lines but the
// header are sealed.
package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/isekai-gateway/isekai/store"
)

// Format is the version of the file's format. A reader refuses a later one.
const Format = 2

// corruptSuffix is added to the name of a file that can't be used.
const corruptSuffix = ".corrupt"

// maxLine bounds a line, far above what a route can be.
const maxLine = 64 << 20

// Errors of Read that a caller can tell apart. That there is no file is fs.ErrNotExist.
var (
	// ErrCorrupt: the file is not what Write has left.
	ErrCorrupt = errors.New("the snapshot is corrupt")

	// ErrFormat: another version of the program has written it.
	ErrFormat = errors.New("the snapshot has another format")
)

// Snapshot is all routes at one revision.
type Snapshot struct {
	Revision int64
	Routes   []*store.Route

	// The API keys that were known, with their consumers.
	Credentials []*store.Credential

	// When Write wrote it.
	SavedAt time.Time

	// When the routes were last known to be those of the database: that, or a later
	// call of Touch.
	CurrentAt time.Time
}

// Contents is what Write writes.
type Contents struct {
	Revision    int64
	Len         int                    // how many routes there are
	Routes      iter.Seq[*store.Route] // nil for none
	Credentials []*store.Credential
}

type header struct {
	Format   int       `json:"isekai_snapshot"`
	Revision int64     `json:"revision"`
	Routes   int       `json:"routes"`
	Keys     int       `json:"keys"`
	SavedAt  time.Time `json:"saved_at"`
	Seal     *seal     `json:"seal,omitempty"`
}

type trailer struct {
	SHA256 string `json:"sha256"`
}

// line is a route with what its JSON leaves out.
type line struct {
	*store.Route
	MatchKey    string `json:"match_key,omitempty"`
	DecodeError string `json:"decode_error,omitempty"`
}

// keyLine is an API key with what its JSON leaves out.
type keyLine struct {
	Key         *store.APIKey   `json:"key"`
	Hash        []byte          `json:"hash"`
	Consumer    *store.Consumer `json:"consumer"`
	DecodeError string          `json:"decode_error,omitempty"`
}

// Write replaces the file at path, as a whole or not at all. It makes the folder if
// there is none. The file is sealed with the key, of KeySize bytes, if there is one.
// Between its lines rest is called, which may sleep; nil is no rest.
func Write(path string, c Contents, key []byte, rest func()) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the snapshot's folder: %w", err)
	}
	// Readable by its owner only.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("making a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := encode(f, c, key, rest); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	// The name must not lead to less than the whole after a crash of the machine.
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing a snapshot: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("replacing the snapshot: %w", err)
	}
	return nil
}

func encode(w io.Writer, contents Contents, key []byte, rest func()) error {
	h := header{Format: Format, Revision: contents.Revision, Routes: contents.Len, Keys: len(contents.Credentials), SavedAt: time.Now().UTC()}
	var lines *sealer
	if len(key) > 0 {
		var err error
		if h.Seal, lines, err = newSeal(key); err != nil {
			return err
		}
	}
	sum := sha256.New()
	buffered := bufio.NewWriterSize(w, 64<<10)
	write := func(value any, lines *sealer) error {
		if rest != nil {
			rest()
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		add(sum, text)
		_, err = buffered.Write(append(lines.seal(text), '\n'))
		return err
	}
	if err := write(h, nil); err != nil {
		return err
	}
	if contents.Routes != nil {
		for r := range contents.Routes {
			if err := write(line{r, r.MatchKey, r.DecodeError}, lines); err != nil {
				return fmt.Errorf("encoding route %d: %w", r.ID, err)
			}
		}
	}
	for _, c := range contents.Credentials {
		if err := write(keyLine{&c.Key, c.Key.Hash, &c.Consumer, c.Consumer.DecodeError}, lines); err != nil {
			return fmt.Errorf("encoding key %s: %w", c.Key.ID, err)
		}
	}
	if err := write(trailer{hex.EncodeToString(sum.Sum(nil))}, lines); err != nil {
		return err
	}
	return buffered.Flush()
}

// Read returns the snapshot in the file at path. One in the clear is read whether there
// is a key or not. Errors: fs.ErrNotExist, ErrCorrupt, ErrFormat, ErrSealed.
func Read(path string, key []byte) (*Snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the snapshot: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening the snapshot: %w", err)
	}
	s, err := decode(f, key)
	if err != nil {
		return nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	s.CurrentAt = s.SavedAt
	if at := info.ModTime().UTC(); at.After(s.SavedAt) && at.Before(time.Now()) {
		s.CurrentAt = at
	}
	return s, nil
}

func decode(r io.Reader, key []byte) (*Snapshot, error) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	var lines *sealer
	next := func() ([]byte, error) {
		if scanner.Scan() {
			return lines.open(scanner.Bytes())
		}
		if err := scanner.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: it ends too early", ErrCorrupt)
	}

	first, err := next()
	if err != nil {
		return nil, err
	}
	var h header
	if err := json.Unmarshal(first, &h); err != nil || h.Format == 0 {
		return nil, fmt.Errorf("%w: it does not begin as one", ErrCorrupt)
	}
	if h.Format > Format { // the one before has no keys
		return nil, fmt.Errorf("%w: %d, this program reads %d", ErrFormat, h.Format, Format)
	}
	sum := sha256.New()
	add(sum, first)
	if h.Seal != nil {
		if lines, err = h.Seal.open(key); err != nil {
			return nil, err
		}
	}
	s := &Snapshot{Revision: h.Revision, SavedAt: h.SavedAt}
	for range h.Routes {
		one := line{Route: new(store.Route)}
		if err := nextValue(next, sum, &one); err != nil {
			return nil, err
		}
		one.Route.MatchKey, one.Route.DecodeError = one.MatchKey, one.DecodeError
		s.Routes = append(s.Routes, one.Route)
	}
	for range h.Keys {
		c := new(store.Credential)
		one := keyLine{Key: &c.Key, Consumer: &c.Consumer}
		if err := nextValue(next, sum, &one); err != nil {
			return nil, err
		}
		c.Key.Hash, c.Consumer.DecodeError = one.Hash, one.DecodeError
		s.Credentials = append(s.Credentials, c)
	}
	last, err := next()
	if err != nil {
		return nil, err
	}
	var t trailer
	if err := json.Unmarshal(last, &t); err != nil || t.SHA256 != hex.EncodeToString(sum.Sum(nil)) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrCorrupt)
	}
	if scanner.Scan() && len(bytes.TrimSpace(scanner.Bytes())) > 0 {
		return nil, fmt.Errorf("%w: there is something after its end", ErrCorrupt)
	}
	return s, nil
}

// nextValue reads the next line into value and adds it to the sum.
func nextValue(next func() ([]byte, error), sum hash.Hash, value any) error {
	text, err := next()
	if err != nil {
		return err
	}
	add(sum, text)
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("%w: a line can't be read", ErrCorrupt)
	}
	return nil
}

// add hashes a line as it is in the clear.
func add(sum hash.Hash, line []byte) {
	sum.Write(line)
	sum.Write([]byte{'\n'})
}

// Touch notes that the routes in the file are still those of the database.
func Touch(path string) error {
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("touching the snapshot: %w", err)
	}
	return nil
}

// SetAside renames a file that can't be used, so that the next Write does not destroy
// what there is to look at, and returns its new name.
func SetAside(path string) (string, error) {
	aside := path + corruptSuffix
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("setting the snapshot aside: %w", err)
	}
	return aside, nil
}
