//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

var errNotLinux = errors.New("this benchmark binds processes to processors and reads /proc: it needs Linux")

func startOn(int, *exec.Cmd) error { return errNotLinux }

func processors() ([]int, error) { return nil, errNotLinux }
