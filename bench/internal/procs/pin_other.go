//go:build !linux

package procs

import (
	"errors"
	"os/exec"
)

var errNotLinux = errors.New("this benchmark binds processes to processors and reads /proc: it needs Linux")

// StartOn starts the command bound to a processor, which this system can't.
func StartOn(int, *exec.Cmd) error { return errNotLinux }

// Processors returns the processors, of which this system tells nothing.
func Processors() ([]int, error) { return nil, errNotLinux }

// BindSelf binds this process to a processor, which this system can't.
func BindSelf(int) (undo func() error, err error) { return nil, errNotLinux }
