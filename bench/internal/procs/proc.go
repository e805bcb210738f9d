// Package procs starts programs that are measured, each bound to a processor, and reads
// what they use. It works on Linux; elsewhere nothing can be started.
package procs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is what /proc counts CPU time in: USER_HZ, which is 100 on all of Linux's
// architectures that Go has.
const clockTick = 10 * time.Millisecond

// Usage is what processes have used.
type Usage struct {
	CPU time.Duration // user and system, of all threads there ever were
	RSS int64         // resident, bytes
}

// Of sums up what the processes have used. One that is not there is an error.
func Of(pids []int) (Usage, error) {
	var sum Usage
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return Usage{}, fmt.Errorf("reading what process %d uses: %w", pid, err)
		}
		one, err := parseStat(string(text))
		if err != nil {
			return Usage{}, fmt.Errorf("reading what process %d uses: %w", pid, err)
		}
		sum.CPU += one.CPU
		sum.RSS += one.RSS
	}
	return sum, nil
}

// Positions in /proc/PID/stat, see proc_pid_stat(5), from the state on, which is the
// third field: the second is the program's name, which may have spaces and brackets.
const (
	statUser   = 14 - 3
	statSystem = 15 - 3
	statRSS    = 24 - 3
)

func parseStat(text string) (Usage, error) {
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return Usage{}, fmt.Errorf("no name in %q", text)
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) <= statRSS {
		return Usage{}, fmt.Errorf("%d fields after the name, of more than %d", len(fields), statRSS)
	}
	var numbers [3]int64
	for i, at := range []int{statUser, statSystem, statRSS} {
		n, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("field %d: %w", at+3, err)
		}
		numbers[i] = n
	}
	return Usage{
		CPU: time.Duration(numbers[0]+numbers[1]) * clockTick,
		RSS: numbers[2] * int64(os.Getpagesize()),
	}, nil
}

// Family returns the process and its children, as nginx's workers are.
func Family(pid int) []int {
	pids := []int{pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return pids
	}
	for child := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(child); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// Self is this process, for Of.
func Self() []int { return []int{os.Getpid()} }
