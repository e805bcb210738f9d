package main

import (
	"syscall"
	"time"
)

// threadTime is the processor time that the calling thread has taken. The goroutine must
// be locked to it.
func threadTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &used); err != nil {
		panic(err) // there is no such kernel
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
