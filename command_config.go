package isekai

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

// configCommandTimeout bounds a request of the command config. The API bounds its own
// work below that.
const configCommandTimeout = 3 * time.Minute

// adminVariable is where the token for an admin API on a site is.
const adminVariable = "ISEKAI_ADMIN_TOKEN"

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config <command>",
		Short: "Reads and replaces all routes as one document",
		Long: `
Asks the admin API of a running gateway: Caddy's admin endpoint, or a site with
isekai_admin, for which the variable ` + adminVariable + ` holds a token.`,
		RunE: helpUnlessArgs,
	}
	var address string
	cmd.PersistentFlags().StringVar(&address, "address", "",
		"the admin endpoint, or the URL of a site with isekai_admin (default: "+caddy.DefaultAdminListen+")")
	cmd.AddCommand(newConfigGetCommand(&address), newConfigApplyCommand(&address))
	return cmd
}

func newConfigGetCommand(address *string) *cobra.Command {
	var (
		format   string
		revision int64
	)
	cmd := &cobra.Command{
		Use:     "get [--format yaml|json] [--revision <number>]",
		Short:   "Prints all routes",
		Example: "  caddy isekai config get > routes.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"format": {format}}
			if revision != 0 {
				query.Set("revision", strconv.FormatInt(revision, 10))
			}
			text, err := askAdmin(cmd.Context(), *address, http.MethodGet, query, "", nil)
			if err != nil {
				return fmt.Errorf("reading the configuration: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "yaml", "yaml or json")
	cmd.Flags().Int64Var(&revision, "revision", 0, "the routes as they were at this revision (default: as they are)")
	return cmd
}

func newConfigApplyCommand(address *string) *cobra.Command {
	var dryRun, prune bool
	cmd := &cobra.Command{
		Use:   "apply <file> [--dry-run] [--prune=false]",
		Short: "Makes the routes what a document says, and prints the difference",
		Long: `
Makes the routes what a document says, as one revision, or changes nothing and
prints all that is wrong with it. The file is YAML, or JSON if its name ends in
.json; - stands for the standard input.`,
		Example: "  caddy isekai config apply routes.yaml --dry-run",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readDocument(cmd, args[0])
			if err != nil {
				return fmt.Errorf("reading the document: %w", err)
			}
			media := "application/yaml"
			if strings.HasSuffix(args[0], ".json") {
				media = "application/json"
			}
			query := url.Values{"dry_run": {strconv.FormatBool(dryRun)}, "prune": {strconv.FormatBool(prune)}}
			answer, err := askAdmin(cmd.Context(), *address, http.MethodPut, query, media, text)
			if err != nil {
				return fmt.Errorf("applying %s: %w", args[0], err)
			}
			return printDifference(cmd, answer)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check the document and print what would change")
	cmd.Flags().BoolVar(&prune, "prune", true, "delete routes that are not in the document")
	return cmd
}

func readDocument(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}

// difference is what the admin API answers to a document.
type difference struct {
	Changed   *bool  `json:"changed"`  // always there
	Revision  *int64 `json:"revision"` // always there
	DryRun    bool   `json:"dry_run"`
	Created   int    `json:"created"`
	Updated   int    `json:"updated"`
	Deleted   int    `json:"deleted"`
	Unchanged int    `json:"unchanged"`
	Changes   []struct {
		Action string `json:"action"`
		Name   string `json:"name"`
		Host   string `json:"host"`
		Path   string `json:"path"`
		Method string `json:"method"`
		Fields []struct {
			Field string          `json:"field"`
			From  json.RawMessage `json:"from"`
			To    json.RawMessage `json:"to"`
		} `json:"fields"`
		Warnings []string `json:"warnings"`
	} `json:"changes"`
}

// printDifference writes the changes to the standard output and a summary to the other.
func printDifference(cmd *cobra.Command, answer []byte) error {
	var d difference
	if err := json.Unmarshal(answer, &d); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if d.Changed == nil || d.Revision == nil {
		return errors.New("the answer is not that of an admin API: it does not say what was changed")
	}
	var out bytes.Buffer
	for _, c := range d.Changes {
		sign := map[string]string{"created": "+", "deleted": "-"}[c.Action]
		fmt.Fprintf(&out, "%s %s %s%s", cmp.Or(sign, "~"), c.Method, c.Host, c.Path)
		if c.Name != "" {
			fmt.Fprintf(&out, " (%s)", c.Name)
		}
		out.WriteByte('\n')
		if sign == "" {
			for _, f := range c.Fields {
				fmt.Fprintf(&out, "    %s: %s -> %s\n", f.Field, orNone(f.From), orNone(f.To))
			}
		}
		for _, warning := range c.Warnings {
			fmt.Fprintf(&out, "    warning: %s\n", warning)
		}
	}
	if _, err := out.WriteTo(cmd.OutOrStdout()); err != nil {
		return err
	}
	summary := fmt.Sprintf("%d created, %d updated, %d deleted, %d unchanged", d.Created, d.Updated, d.Deleted, d.Unchanged)
	switch {
	case !*d.Changed:
		fmt.Fprintf(cmd.ErrOrStderr(), "Nothing to change at revision %d.\n", *d.Revision)
	case d.DryRun:
		fmt.Fprintf(cmd.ErrOrStderr(), "Would be changed from revision %d: %s.\n", *d.Revision, summary)
	default:
		fmt.Fprintf(cmd.ErrOrStderr(), "Revision %d: %s.\n", *d.Revision, summary)
	}
	return nil
}

func orNone(value json.RawMessage) string {
	if value == nil {
		return "(none)"
	}
	return string(value)
}

// askAdmin sends a request about the configuration to an admin API and returns the
// answer's body. A refusal is an error with all that it says.
func askAdmin(ctx context.Context, address, method string, query url.Values, media string, body []byte) ([]byte, error) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, configCommandTimeout)
	defer cancel()
	base, client, err := adminClient(cmp.Or(address, caddy.DefaultAdminListen))
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, base+"/api/config?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	if !strings.Contains(address, "://") {
		req.Header.Set("Origin", base) // which Caddy's endpoint asks for
	} else if token := os.Getenv(adminVariable); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// A redirect would have a PUT become a GET, and a token go elsewhere.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if location := resp.Header.Get("Location"); location != "" && resp.StatusCode/100 == 3 {
		return nil, fmt.Errorf("%s: the admin API is not here but at %s", resp.Status, location)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp.Status, text)
	}
	return text, nil
}

// adminClient returns where requests to an address go, and how: a URL as it is, all
// else as Caddy's own commands understand it.
func adminClient(address string) (base string, client *http.Client, err error) {
	if strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://") {
		return strings.TrimSuffix(address, "/"), &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}, nil
	}
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil || parsed.PortRangeSize() > 1 {
		return "", nil, fmt.Errorf("invalid address %q", address)
	}
	base = "http://" + parsed.JoinHostPort(0)
	if parsed.IsUnixNetwork() {
		base = "http://127.0.0.1"
		parsed.Host, _, _ = strings.Cut(parsed.Host, "|") // permissions, for who listens
	}
	return base, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, parsed.Network, parsed.JoinHostPort(0))
		},
	}}, nil
}

// refusal puts a problem document into an error for people.
func refusal(status string, text []byte) error {
	var problem struct {
		Detail string `json:"detail"`
		Errors []struct {
			Location string `json:"location"`
			Message  string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
		return errors.New(status)
	}
	lines := []string{status + ": " + problem.Detail}
	for _, e := range problem.Errors {
		lines = append(lines, "  "+strings.TrimPrefix(e.Location, "body.")+": "+e.Message)
	}
	return errors.New(strings.Join(lines, "\n"))
}
