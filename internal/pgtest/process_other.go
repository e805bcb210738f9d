//go:build !unix

package pgtest

import (
	"errors"
	"os/exec"
)

// account stands for the other systems' way to run the server: there is none.
type account struct{}

var errUnsupported = errors.New("this system can only test with ISEKAI_TEST_DATABASE_URL")

func unprivilegedAccount() (*account, error) { return nil, errUnsupported }

func (a *account) own(string) error { return nil }

func (a *account) apply(*exec.Cmd) {}

func suspend(int) error { return errUnsupported }

func resume(int) {}

func childrenOf(int) ([]int, error) { return nil, errUnsupported }
