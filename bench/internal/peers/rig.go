// Package peers starts the proxies that programs of this module compare: Isekai in its
// variants, Caddy, and others that are installed, each bound to the first processor,
// with the backend and the load on the last one.
package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// Rig is what all peers of a run share. It belongs to one goroutine. Make one with
// NewRig, and end it with Close.
type Rig struct {
	Program    string // Caddy with Isekai
	FastLane   bool   // whether it has the option fast_lane
	Backend    string // host:port
	BackendPID int
	Postgres   string // DSN of a store for peers that use one, or empty
	ProxyCPU   int
	LoadCPU    int

	certificate string // files with the certificate, its key, and both
	key         string
	both        string
	dir         string
	backend     *procs.Process
	running     map[string]*Running
	broken      map[string]error // peers that could not be started, which is not tried again
}

// NewRig starts the backend. program is Caddy with Isekai linked in; it is built if
// that is empty.
func NewRig(ctx context.Context, program, postgres string) (_ *Rig, err error) {
	cpus, err := procs.Processors()
	if err != nil {
		return nil, err
	}
	if len(cpus) < 2 {
		fmt.Fprintln(os.Stderr, "only one processor: the load takes from the proxy, and only CPU times mean anything")
	}
	r := &Rig{
		Postgres: postgres, ProxyCPU: cpus[0], LoadCPU: cpus[len(cpus)-1],
		running: make(map[string]*Running), broken: make(map[string]error),
	}
	if r.dir, err = os.MkdirTemp("", "isekai-bench-"); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	if err := r.begin(ctx, program); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Rig) begin(ctx context.Context, program string) (err error) {
	if program == "" {
		program, err = Build(ctx, r.dir, "caddy")
	} else {
		program, err = filepath.Abs(program) // peers run in folders of their own
	}
	if err != nil {
		return err
	}
	r.Program = program
	if r.FastLane, err = hasFastLane(ctx, program, r.dir); err != nil {
		return err
	}
	if err := r.makeCertificate(r.dir); err != nil {
		return err
	}
	if r.backend, r.Backend, err = startBackend(ctx, r.LoadCPU); err != nil {
		return err
	}
	r.BackendPID = r.backend.PID()
	return nil
}

// Start starts a peer, unless that name runs.
func (r *Rig) Start(ctx context.Context, name string, start Start) (*Running, error) {
	if at := r.running[name]; at != nil {
		return at, nil
	}
	if err := r.broken[name]; err != nil {
		return nil, err
	}
	dir, err := r.folder()
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	at, err := start(ctx, r, dir)
	if err != nil {
		err = fmt.Errorf("starting: %w", err)
		r.broken[name] = err
		return nil, err
	}
	r.running[name] = at
	return at, nil
}

// Stop ends a peer, if it runs.
func (r *Rig) Stop(name string) {
	if at := r.running[name]; at != nil {
		at.Stop()
		delete(r.running, name)
	}
}

// Close stops everything, and removes what was written.
func (r *Rig) Close() {
	for _, at := range r.running {
		at.Stop()
	}
	if r.backend != nil {
		r.backend.Stop()
	}
	_ = os.RemoveAll(r.dir) // in a folder for temporary files
}

// hasFastLane asks a program whether it knows the option.
func hasFastLane(ctx context.Context, program, dir string) (bool, error) {
	config := filepath.Join(dir, "fast_lane.Caddyfile")
	if err := os.WriteFile(config, []byte("{\n\tisekai {\n\t\tfast_lane off\n\t}\n}\n"), 0o600); err != nil {
		return false, err
	}
	out, err := exec.CommandContext(ctx, program, "adapt", "--config", config, "--adapter", "caddyfile").CombinedOutput() //nolint:gosec // the program that is measured
	switch {
	case err == nil:
		return true, nil
	case strings.Contains(string(out), "fast_lane"): // unknown, by its name
		return false, nil
	}
	return false, fmt.Errorf("asking %s for the option fast_lane: %w\n%s", program, err, out)
}

// buildTags are those of the Makefile: without drivers of Caddy's that nobody needs.
const buildTags = "nobadger,nomysql,nopgx"

// Build makes Caddy with this module as the file name in dir, with further flags of go
// build, and returns its path.
func Build(ctx context.Context, dir, name string, flags ...string) (string, error) {
	const module = "github.com/isekai-gateway/isekai"
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("finding %s; this program is to be run in its folder bench: %w", module, err)
	}
	program := filepath.Join(dir, name)
	// With the flags of the tests, so that what those have compiled is not compiled again.
	args := append([]string{"build", "-tags=" + buildTags, "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/caddy")...) //nolint:gosec // of this program's own words
	cmd.Dir = strings.TrimSpace(string(root))
	fmt.Fprintln(os.Stderr, "building Caddy with Isekai")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("building Caddy with Isekai: %w", err), errors.New(string(out)))
	}
	return program, nil
}
