package isekai_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/internal/pgtest"
	"github.com/isekai-gateway/isekai/store"
)

// caddy runs `caddy isekai` with arguments, as the binary would.
func runCommand(args ...string) (out, errs string, err error) {
	cmd := &cobra.Command{Use: "isekai"}
	caddycmd.Commands()["isekai"].CobraFunc(cmd)
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	err = cmd.Execute()
	return stdout.String(), stderr.String(), err
}

func TestTokenCommand(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) string{
		"PostgreSQL": func(t *testing.T) string { return pgtest.New(t) },
		"SQLite": func(t *testing.T) string {
			dsn := "sqlite://" + filepath.Join(t.TempDir(), "isekai.db")
			st, err := store.Open(t.Context(), dsn, store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			return dsn
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := open(t)
			run := func(args ...string) (out, errs string, err error) {
				return runCommand(append([]string{"token", "--store", dsn}, args...)...)
			}
			out, said, err := run("create", "--name", "alice", "--role", "admin", "--expires", "1h")
			if err != nil {
				t.Fatal(err)
			}
			secret, ok := auth.ParseSecret(auth.PrefixToken, strings.TrimSuffix(out, "\n"))
			if !ok {
				t.Fatalf("no token: %q", out)
			}
			if !strings.Contains(said, "alice") || strings.Contains(said, secret.ID) {
				t.Errorf("said %q", said)
			}
			if _, _, err := run("create", "--name", "alice"); err == nil || !strings.Contains(err.Error(), "taken") {
				t.Errorf("a second alice: %v", err)
			}
			list, _, err := run("list")
			if err != nil || !strings.Contains(list, secret.ID+"  alice  admin") || strings.Contains(list, strings.TrimSpace(out)) {
				t.Errorf("list %q, %v", list, err)
			}
			if _, _, err := run("revoke", "bob"); err == nil {
				t.Error("revoked nobody's")
			}
			if _, _, err := run("revoke", "alice"); err != nil {
				t.Error(err)
			}
			if list, _, err := run("list"); err != nil || strings.Contains(list, "alice") {
				t.Errorf("after revoking: %q, %v", list, err)
			}
		})
	}
}

func TestTokenCommandRefuses(t *testing.T) {
	t.Parallel()
	missing := "sqlite://" + filepath.Join(t.TempDir(), "nothing.db")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"token", "create", "--store", missing}, "name"},
		{[]string{"token", "create", "--name", "a b", "--store", missing}, "name"},
		{[]string{"token", "create", "--name", "a", "--role", "root", "--store", missing}, "role"},
		{[]string{"token", "create", "--name", "a", "--expires", "-1h", "--store", missing}, "expires"},
		{[]string{"token", "create", "--name", "a", "--store", missing}, "there is no database"},
		{[]string{"token", "create", "--name", "a", "--store", "mysql://x"}, "scheme"},
		{[]string{"token", "list", "extra"}, "extra"},
		{[]string{"tokens"}, "tokens"},
	} {
		if _, _, err := runCommand(tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want something about %q", tt.args, err, tt.want)
		}
	}
}
