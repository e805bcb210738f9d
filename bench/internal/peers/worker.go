package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/isekai-gateway/isekai/bench/internal/load"
	"github.com/isekai-gateway/isekai/bench/internal/procs"
	"github.com/isekai-gateway/isekai/bench/internal/report"
)

// workerVar tells a copy of this program what it is to be: each is a process, so that
// its processor and what it uses are its own.
const workerVar = "ISEKAI_BENCH_WORKER"

// The values of workerVar.
const (
	roleBackend = "backend"
	roleClosed  = "load"
	roleOpen    = "open load"
)

// Main runs a program that uses a Rig, or as one of its copies does what that is to do.
func Main(name string, run func(ctx context.Context, args []string) error) {
	report.Main(name, func(ctx context.Context, args []string) error {
		if is, err := Work(ctx); is {
			return err
		}
		return run(ctx, args)
	})
}

// RunTests runs the tests of such a program, whose copies are of the test's program.
func RunTests(m interface{ Run() int }) {
	if is, err := Work(context.Background()); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Work does what a program's copy is to do, and reports whether this process is one.
// Programs that use a Rig call it before anything else.
func Work(ctx context.Context) (is bool, err error) {
	switch role := os.Getenv(workerVar); role {
	case "":
		return false, nil
	case roleBackend:
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return true, err
		}
		fmt.Println(l.Addr())
		return true, load.ServeBackend(l)
	case roleClosed:
		var j load.Job
		if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
			return true, fmt.Errorf("reading the job: %w", err)
		}
		o, err := load.Run(ctx, j)
		if err != nil {
			return true, err
		}
		return true, json.NewEncoder(os.Stdout).Encode(o)
	case roleOpen:
		var j load.OpenJob
		if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
			return true, fmt.Errorf("reading the job: %w", err)
		}
		out := json.NewEncoder(os.Stdout)
		o, err := load.RunOpen(ctx, j, func() error { return out.Encode(true) })
		if err != nil {
			return true, err
		}
		return true, out.Encode(o)
	default:
		return true, fmt.Errorf("%s=%s is not known", workerVar, role)
	}
}

func worker(ctx context.Context, role string) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, program) //nolint:gosec // this program itself
	cmd.Env = append(os.Environ(), workerVar+"="+role, "GOMAXPROCS=1", "GOGC=800")
	return cmd, nil
}

// startBackend starts a backend and returns its process and address.
func startBackend(ctx context.Context, processor int) (*procs.Process, string, error) {
	cmd, err := worker(ctx, roleBackend)
	if err != nil {
		return nil, "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := procs.StartOn(processor, cmd); err != nil {
		return nil, "", fmt.Errorf("starting the backend: %w", err)
	}
	p := procs.Watch(cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.Stop()
		return nil, "", fmt.Errorf("starting the backend: %w", err)
	}
	return p, strings.TrimSpace(line), nil
}

// Load runs a closed loop in a process of its own.
func (r *Rig) Load(ctx context.Context, j load.Job) (*load.Outcome, error) {
	var o load.Outcome
	if err := r.work(ctx, roleClosed, j, func(out *json.Decoder) error { return out.Decode(&o) }); err != nil {
		return nil, err
	}
	return &o, nil
}

// OpenLoad runs an open loop in a process of its own. meanwhile, if it is not nil, is
// called once the measurement has begun, and with it the measurement ends too: its
// context is done when the last request was sent and answered, or the load has failed.
func (r *Rig) OpenLoad(ctx context.Context, j load.OpenJob, meanwhile func(context.Context) error) (*load.OpenOutcome, error) {
	var o load.OpenOutcome
	err := r.work(ctx, roleOpen, j, func(out *json.Decoder) error {
		var begun bool
		if err := out.Decode(&begun); err != nil {
			return err
		}
		during, end := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			if meanwhile == nil {
				done <- nil
				return
			}
			done <- meanwhile(during)
		}()
		err := out.Decode(&o)
		end()
		return errors.Join(err, <-done)
	})
	if err != nil {
		return nil, err
	}
	return &o, nil
}

// work gives a job to a copy of this program on the load's processor, and has its
// answers read.
func (r *Rig) work(ctx context.Context, role string, job any, read func(*json.Decoder) error) error {
	cmd, err := worker(ctx, role)
	if err != nil {
		return err
	}
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(text), &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := procs.StartOn(r.LoadCPU, cmd); err != nil {
		return fmt.Errorf("starting the load: %w", err)
	}
	readErr := read(json.NewDecoder(out))
	if err := cmd.Wait(); err != nil {
		if said := strings.TrimSpace(stderr.String()); said != "" {
			return errors.New(said)
		}
		return fmt.Errorf("running the load: %w", err)
	}
	if readErr != nil {
		return fmt.Errorf("reading what was measured: %w", readErr)
	}
	return nil
}
