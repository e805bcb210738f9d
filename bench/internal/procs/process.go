package procs

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

// OutputLog is the file in a peer's folder with what it writes to its terminal.
const OutputLog = "output.log"

// Process is a child and its end.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the child has ended
}

// PID is the child's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Watch waits for a child that was started.
func Watch(cmd *exec.Cmd) *Process {
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in the log, which the caller shows
		close(p.exited)
	}()
	return p
}

// Stop asks the child to end, makes it if it does not, and returns when it has.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// Launch starts a program bound to a processor, with its output in a file of dir, and
// waits until something listens at address. env, as NAME=value, is added to its
// environment, and goes before this process's.
func Launch(ctx context.Context, processor int, dir, address string, env []string, command ...string) (*Process, error) {
	out, err := os.Create(filepath.Join(dir, OutputLog))
	if err != nil {
		return nil, err
	}
	defer out.Close()                                                        // the child has its own
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)              //nolint:gosec // the peers' own commands
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // children of its own are to end with it
	cmd.WaitDelay = stopTimeout
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := StartOn(processor, cmd); err != nil {
		return nil, err
	}
	p := Watch(cmd)
	if err := p.Ready(ctx, func(ctx context.Context) error { return listening(ctx, address) }); err != nil {
		p.Stop()
		return nil, fmt.Errorf("%w; it says:\n%s", err, LastLines(out.Name(), 5))
	}
	return p, nil
}

// Ready asks until there is no error, the child ends, or startTimeout passes.
func (p *Process) Ready(ctx context.Context, ask func(context.Context) error) error {
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

// LastLines returns the last n lines of the file at path, or why it can't be read.
func LastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// FreeAddresses returns so many addresses of this machine that nobody listens at.
func FreeAddresses(ctx context.Context, n int) ([]string, error) {
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

// Find returns the path of a program, on the PATH or where distributions keep servers,
// or the empty text.
func Find(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 { //nolint:gosec // the user's own PATH
			return path
		}
	}
	return ""
}
