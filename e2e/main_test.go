package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// scratch holds what all tests share: the binary, and nothing else.
var scratch string

func TestMain(m *testing.M) {
	if address := os.Getenv(upstreamAddressVar); address != "" {
		fmt.Fprintln(os.Stderr, serveUpstream(address, os.Getenv(upstreamCountVar)))
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "isekai-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a folder for the binary:", err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// binary returns the path of the program under test.
func binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("ISEKAI_E2E_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(scratch, "caddy")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/caddy")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the binary: %w\n%s", err, out)
	}
	return path, nil
})
