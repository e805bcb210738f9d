package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 10 * time.Second
	pollInterval = 20 * time.Millisecond
)

// outputLog is the file in a peer's folder with what it writes to its terminal.
const outputLog = "output.log"

// process is a child and its end.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the child has ended
}

// watch waits for a child that was started.
func watch(cmd *exec.Cmd) *process {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in the log, which the caller shows
		close(p.exited)
	}()
	return p
}

// stop asks the child to end, makes it if it does not, and returns when it has.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// launch starts a program bound to a processor, with its output in a file of dir, and
// waits until something listens at address.
func launch(ctx context.Context, processor int, dir, address string, command ...string) (*process, error) {
	out, err := os.Create(filepath.Join(dir, outputLog))
	if err != nil {
		return nil, err
	}
	defer out.Close()                                                        // the child has its own
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)              //nolint:gosec // the peers' own commands
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // children of its own are to end with it
	cmd.WaitDelay = stopTimeout
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Stdout, cmd.Stderr = out, out
	if err := startOn(processor, cmd); err != nil {
		return nil, err
	}
	p := watch(cmd)
	if err := p.ready(ctx, func(ctx context.Context) error { return listening(ctx, address) }); err != nil {
		p.stop()
		return nil, fmt.Errorf("%w; it says:\n%s", err, lastLines(out.Name(), 5))
	}
	return p, nil
}

// ready asks until there is no error, the child ends, or startTimeout passes.
func (p *process) ready(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.exited:
			return errors.New("it has ended")
		case <-ctx.Done():
			return fmt.Errorf("waiting for it: %w", err)
		}
	}
}

func listening(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// freeAddresses returns so many addresses of this machine that nobody listens at.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	all := make([]string, n)
	for i := range all {
		// All are held until the last one is found, so that no two are equal.
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer l.Close()
		all[i] = l.Addr().String()
	}
	return all, nil
}
