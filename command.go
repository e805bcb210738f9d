package isekai

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/store"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "isekai",
		Usage: "<command>",
		Short: "Manages an Isekai gateway",
		Long: `
Works on the database of an Isekai gateway, whether that runs or not. What is
changed takes effect at once on every gateway that uses the database.`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(newTokenCommand(), newConfigCommand(), newSnapshotCommand())
			cmd.RunE = helpUnlessArgs
		},
	})
}

// helpUnlessArgs is what a command does that has only subcommands.
func helpUnlessArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return cmd.Help()
}

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token <command>",
		Short: "Manages the tokens for the admin API on a site",
		Long: `
Tokens open the admin API where the directive isekai_admin serves it. The first
one can only be made here; holders of the role admin can make others by
POST /api/tokens.`,
		RunE: helpUnlessArgs,
	}
	var dsn string
	cmd.PersistentFlags().StringVar(&dsn, "store", "",
		"the database, as in the option store of a Caddyfile (default: the variable ISEKAI_DATABASE_URL, else "+defaultDSN+")")
	cmd.AddCommand(newTokenCreateCommand(&dsn), newTokenListCommand(&dsn), newTokenRevokeCommand(&dsn))
	return cmd
}

func newTokenCreateCommand(dsn *string) *cobra.Command {
	var (
		token   store.AdminToken
		role    string
		expires time.Duration
	)
	cmd := &cobra.Command{
		Use:     "create --name <name> [--role read|write|admin] [--expires <duration>]",
		Short:   "Makes a token and prints it, once",
		Example: "  caddy isekai token create --name alice --role admin",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token.Role = store.Role(role)
			if cmd.Flags().Changed("expires") {
				at := time.Now().Add(expires)
				if expires <= 0 {
					return fmt.Errorf("--expires must be a duration such as 720h, not %s", expires)
				}
				token.ExpiresAt = &at
			}
			if err := gateway.ValidateToken(&token); err != nil {
				return err
			}
			return withStore(cmd.Context(), *dsn, func(ctx context.Context, st store.Store) error {
				text, secret := auth.NewSecret(auth.PrefixToken)
				token.ID, token.Hash = secret.ID, secret.Hash[:]
				if _, err := st.CreateToken(ctx, &token, localAuthor()); err != nil {
					return fmt.Errorf("creating token %s: %w", token.Name, err)
				}
				// The token alone on the standard output, for $(...) in a script.
				fmt.Fprintf(cmd.ErrOrStderr(), "Token %s with the role %s. It is shown this once:\n", token.Name, token.Role)
				fmt.Fprintln(cmd.OutOrStdout(), text)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&token.Name, "name", "", "a unique name, which the history has as the author of changes")
	cmd.Flags().StringVar(&role, "role", string(store.RoleRead), "what its holder may do: read, write or admin")
	cmd.Flags().DurationVar(&expires, "expires", 0, "how long the token is valid, e.g. 720h (default: for ever)")
	_ = cmd.MarkFlagRequired("name") // fails only for a flag that does not exist
	return cmd
}

func newTokenListCommand(dsn *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Lists the tokens, without their secret parts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd.Context(), *dsn, func(ctx context.Context, st store.Store) error {
				tokens, err := st.Tokens(ctx)
				if err != nil {
					return fmt.Errorf("listing tokens: %w", err)
				}
				return printTokens(cmd.OutOrStdout(), tokens)
			})
		},
	}
}

func printTokens(w io.Writer, tokens []*store.AdminToken) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tNAME\tROLE\tCREATED\tEXPIRES\tLAST USED")
	for _, t := range tokens {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Role,
			t.CreatedAt.Format(time.RFC3339), timeOrNever(t.ExpiresAt), timeOrNever(t.LastUsedAt))
	}
	return table.Flush()
}

func timeOrNever(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.RFC3339)
}

func newTokenRevokeCommand(dsn *string) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke <id or name>",
		Short: "Revokes a token",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), *dsn, func(ctx context.Context, st store.Store) error {
				tokens, err := st.Tokens(ctx)
				if err != nil {
					return fmt.Errorf("listing tokens: %w", err)
				}
				for _, t := range tokens {
					if t.ID != args[0] && t.Name != args[0] {
						continue
					}
					if err := st.DeleteToken(ctx, t.ID, localAuthor()); err != nil {
						return fmt.Errorf("revoking token %s: %w", t.Name, err)
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "Revoked token %s.\n", t.Name)
					return nil
				}
				return fmt.Errorf("there is no token with the id or name %q", args[0])
			})
		},
	}
}

// resolveDSN returns the database that a flag names, or else the environment.
func resolveDSN(dsn string) string {
	if dsn == "" {
		dsn = os.Getenv("ISEKAI_DATABASE_URL")
	}
	dsn = caddy.NewReplacer().ReplaceKnown(dsn, "")
	if dsn == "" {
		dsn = defaultDSN
	}
	return dsn
}

// withStore runs fn on a store whose schema is up to date.
func withStore(ctx context.Context, dsn string, fn func(context.Context, store.Store) error) error {
	dsn = resolveDSN(dsn)
	if path, ok := strings.CutPrefix(dsn, "sqlite://"); ok {
		// A mistyped path would otherwise become a new database with a token that
		// opens nothing.
		if _, err := os.Stat(path); err != nil { //nolint:gosec // the caller's own file
			return fmt.Errorf("there is no database %s; name it with --store, or start the gateway once", path)
		}
	}
	if ctx == nil {
		ctx = context.Background()
	}
	st, err := store.Open(ctx, dsn, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	if err := st.Migrate(ctx); err != nil {
		return fmt.Errorf("migrating schema: %w", err)
	}
	return fn(ctx, st)
}

// localAuthor is who works on this machine.
func localAuthor() store.Author {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return store.Author{Actor: "cli:" + name}
}
