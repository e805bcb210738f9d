package snapshot_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isekai-gateway/isekai/snapshot"
	"github.com/isekai-gateway/isekai/store"
)

func routes() []*store.Route {
	a := store.NewRoute("/a/{id}", "https://10.0.0.1")
	a.ID, a.Revision, a.MatchKey, a.Labels = 1, 7, "key", map[string]string{"team": "shop <&>"}
	a.Upstream = &store.Upstream{TLS: &store.UpstreamTLS{Key: "secret"}}
	a.CreatedAt = time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	b := store.NewRoute("b", "http://10.0.0.2")
	b.ID, b.DecodeError = 2, "spec: can't be read"
	return []*store.Route{a, b}
}

func write(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new", "snapshot.json")
	if err := snapshot.Write(path, snapshot.Contents{Revision: 7, Len: len(routes()), Routes: slices.Values(routes())}, nil, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	t.Parallel()
	path := write(t)
	got, err := snapshot.Read(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(routes(), got.Routes); diff != "" || got.Revision != 7 {
		t.Errorf("revision %d, %s", got.Revision, diff)
	}
	if time.Since(got.SavedAt) > time.Hour || got.CurrentAt.Before(got.SavedAt) {
		t.Errorf("saved %s, current %s", got.SavedAt, got.CurrentAt)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
	// The next one replaces it and leaves nothing beside it.
	if err := snapshot.Write(path, snapshot.Contents{Revision: 8}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := snapshot.Read(path, nil); err != nil || got.Revision != 8 || len(got.Routes) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestTouchMakesItCurrent(t *testing.T) {
	t.Parallel()
	path := write(t)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	before, err := snapshot.Read(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Touch(path); err != nil {
		t.Fatal(err)
	}
	after, err := snapshot.Read(path, nil)
	if err != nil || !after.CurrentAt.After(before.CurrentAt) {
		t.Errorf("current %s, was %s, %v", after.CurrentAt, before.CurrentAt, err)
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	t.Parallel()
	whole, err := os.ReadFile(write(t))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, test := range map[string]struct {
		text string
		want error
	}{
		"empty":           {"", snapshot.ErrCorrupt},
		"garbage":         {"\x00\xff\x00garbage\n", snapshot.ErrCorrupt},
		"other JSON":      {"{}\n", snapshot.ErrCorrupt},
		"a header alone":  {lines[0], snapshot.ErrCorrupt},
		"no trailer":      {lines[0] + lines[1] + lines[2], snapshot.ErrCorrupt},
		"a route missing": {lines[0] + lines[1] + lines[3], snapshot.ErrCorrupt},
		"another target":  {strings.Replace(string(whole), "10.0.0.1", "10.6.6.6", 1), snapshot.ErrCorrupt},
		"another number":  {strings.Replace(string(whole), `"revision":7`, `"revision":8`, 1), snapshot.ErrCorrupt},
		"more behind it":  {string(whole) + lines[1], snapshot.ErrCorrupt},
		"a newer format":  {strings.Replace(string(whole), `{"isekai_snapshot":2`, `{"isekai_snapshot":3`, 1), snapshot.ErrFormat},
	} {
		path := filepath.Join(t.TempDir(), "snapshot.json")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := snapshot.Read(path, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for size := range whole {
		if bytes.Equal(bytes.TrimSpace(whole[:size]), bytes.TrimSpace(whole)) {
			continue
		}
		path := filepath.Join(t.TempDir(), "snapshot.json")
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := snapshot.Read(path, nil); !errors.Is(err, snapshot.ErrCorrupt) {
			t.Errorf("cut after %d bytes: %v", size, err)
		}
	}
	if _, err := snapshot.Read(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestSealed(t *testing.T) {
	t.Parallel()
	key, other := bytes.Repeat([]byte{1}, snapshot.KeySize), bytes.Repeat([]byte{2}, snapshot.KeySize)
	expires := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	credentials := []*store.Credential{{
		Key: store.APIKey{ID: "abcdefghijklmnop", ConsumerID: 3, Hash: bytes.Repeat([]byte{7}, 32), Enabled: true, ExpiresAt: &expires},
		Consumer: store.Consumer{
			ID: 3, Name: "shop", Enabled: true, ConsumerSpec: store.ConsumerSpec{Groups: []string{"eu"}, RateLimit: 5}, DecodeError: "spec",
		},
	}}
	for name, key := range map[string][]byte{"in the clear": nil, "sealed": key} {
		path := filepath.Join(t.TempDir(), "snapshot.json")
		if err := snapshot.Write(path, snapshot.Contents{Revision: 7, Len: len(routes()), Routes: slices.Values(routes()), Credentials: credentials}, key, nil); err != nil {
			t.Fatal(err)
		}
		got, err := snapshot.Read(path, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(routes(), got.Routes) + cmp.Diff(credentials, got.Credentials); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if sealed := !bytes.Contains(text, []byte("secret")) && !bytes.Contains(text, []byte("shop")); sealed != (key != nil) {
			t.Errorf("%s: the file is %s", name, text)
		}
		_, err = snapshot.Read(path, other)
		if want := key != nil; errors.Is(err, snapshot.ErrSealed) != want {
			t.Errorf("%s, with another key: %v", name, err)
		}
		if key == nil {
			continue
		}
		if _, err := snapshot.Read(path, nil); !errors.Is(err, snapshot.ErrSealed) {
			t.Errorf("without a key: %v", err)
		}
		lines := bytes.SplitAfter(text, []byte("\n"))
		for what, changed := range map[string][][]byte{
			"lines in another order": {lines[0], lines[2], lines[1], lines[3], lines[4]},
			"a line less":            {lines[0], lines[1], lines[2], lines[4]},
			"another header":         {bytes.Replace(lines[0], []byte(`"revision":7`), []byte(`"revision":8`), 1), lines[1], lines[2], lines[3], lines[4]},
			"a line in the clear":    {lines[0], []byte("{}\n"), lines[2], lines[3], lines[4]},
		} {
			if err := os.WriteFile(path, bytes.Join(changed, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := snapshot.Read(path, key); !errors.Is(err, snapshot.ErrCorrupt) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// The writer may rest after every line, and the file is whole all the same.
func TestWriteRests(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "snapshot.json")
	rests := 0
	if err := snapshot.Write(path, snapshot.Contents{Revision: 7, Len: len(routes()), Routes: slices.Values(routes())}, nil, func() { rests++ }); err != nil {
		t.Fatal(err)
	}
	if got, err := snapshot.Read(path, nil); err != nil || cmp.Diff(routes(), got.Routes) != "" || rests < len(routes()) {
		t.Errorf("after %d rests, %v is read (%v)", rests, got, err)
	}
}
