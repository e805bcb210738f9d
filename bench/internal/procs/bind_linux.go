package procs

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// BindSelf binds all threads of this process to one processor, as those are that they
// start. undo gives them all back that the calling thread had.
func BindSelf(processor int) (undo func() error, err error) {
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("asking for processors: %w", err)
	}
	only.Set(processor)
	if err := bindThreads(&only); err != nil {
		return nil, err
	}
	return func() error { return bindThreads(&before) }, nil
}

func bindThreads(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("asking for threads: %w", err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return fmt.Errorf("binding to processors: %w", err)
		}
	}
	return nil
}
