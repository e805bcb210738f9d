package isekai

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/isekai-gateway/isekai/snapshot"
	"github.com/isekai-gateway/isekai/store"
)

func newSnapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot <command>",
		Short: "Looks at the last known routes",
		Long: `
A gateway on PostgreSQL keeps the routes in a file, from which it serves if it starts
while the database is away. Without a file, these commands look at the one that belongs
to the database.`,
		RunE: helpUnlessArgs,
	}
	var dsn, keyText string
	cmd.PersistentFlags().StringVar(&dsn, "store", "",
		"the database whose snapshot it is, as in the option store of a Caddyfile (default: the variable ISEKAI_DATABASE_URL)")
	cmd.PersistentFlags().StringVar(&keyText, "key", "{env.ISEKAI_SNAPSHOT_KEY}",
		"what the file is sealed with, as in the option snapshot_key of a Caddyfile")
	read := func(args []string) (string, *snapshot.Snapshot, error) {
		var key []byte
		if caddy.NewReplacer().ReplaceKnown(keyText, "") != "" {
			var err error
			if key, err = snapshotKey(keyText); err != nil {
				return "", nil, fmt.Errorf("--key %w", err)
			}
		}
		if len(args) == 1 {
			s, err := snapshot.Read(args[0], key)
			return args[0], s, err
		}
		path := snapshotFile("", resolveDSN(dsn))
		if path == "" {
			return "", nil, errors.New("only a PostgreSQL database has a snapshot by itself; name one with --store, or a file")
		}
		s, err := snapshot.Read(path, key)
		return path, s, err
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "show [file]",
			Short: "Prints the routes, without secrets, as JSON",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, s, err := read(args)
				if err != nil {
					return err
				}
				shown := struct {
					Revision int64          `json:"revision"`
					SavedAt  time.Time      `json:"saved_at"`
					Routes   []*store.Route `json:"routes"`
				}{s.Revision, s.SavedAt, make([]*store.Route, len(s.Routes))}
				for i, r := range s.Routes {
					shown.Routes[i] = r.Redacted()
				}
				to := json.NewEncoder(cmd.OutOrStdout())
				to.SetIndent("", "  ")
				return to.Encode(shown)
			},
		},
		&cobra.Command{
			Use:   "verify [file]",
			Short: "Checks that the file is whole",
			Args:  cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				path, s, err := read(args)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d route(s) at revision %d and %d API key(s), saved %s\n",
					path, len(s.Routes), s.Revision, len(s.Credentials), s.SavedAt.Format(time.RFC3339))
				return nil
			},
		})
	return cmd
}
