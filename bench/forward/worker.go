package main

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
)

// workerVar tells a copy of this program, by "backend" or "load", what it is to be:
// each is a process, so that its processor and what it uses are its own.
const workerVar = "ISEKAI_BENCH_WORKER"

// self is this process, for usageOf.
func self() []int { return []int{os.Getpid()} }

// work does what workerVar says, and reports whether it says anything.
func work(ctx context.Context) (is bool, err error) {
	switch role := os.Getenv(workerVar); role {
	case "":
		return false, nil
	case "backend":
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return true, err
		}
		fmt.Println(l.Addr())
		return true, serveBackend(l)
	case "load":
		var j job
		if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
			return true, fmt.Errorf("reading the job: %w", err)
		}
		o, err := runJob(ctx, j)
		if err != nil {
			return true, err
		}
		return true, json.NewEncoder(os.Stdout).Encode(o)
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
func startBackend(ctx context.Context, processor int) (*process, string, error) {
	cmd, err := worker(ctx, "backend")
	if err != nil {
		return nil, "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := startOn(processor, cmd); err != nil {
		return nil, "", fmt.Errorf("starting the backend: %w", err)
	}
	p := watch(cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, "", fmt.Errorf("starting the backend: %w", err)
	}
	return p, strings.TrimSpace(line), nil
}

// runLoad runs a job in a process of its own.
func runLoad(ctx context.Context, processor int, j job) (*outcome, error) {
	cmd, err := worker(ctx, "load")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &stdout, &stderr
	if err := startOn(processor, cmd); err != nil {
		return nil, fmt.Errorf("starting the load: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		if said := strings.TrimSpace(stderr.String()); said != "" {
			return nil, errors.New(said)
		}
		return nil, fmt.Errorf("running the load: %w", err)
	}
	var o outcome
	if err := json.Unmarshal(stdout.Bytes(), &o); err != nil {
		return nil, fmt.Errorf("reading what was measured: %w", err)
	}
	return &o, nil
}
