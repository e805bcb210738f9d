//go:build !linux

package main

import "time"

var started = time.Now()

// threadTime is the time that has passed: no other is to be had here.
func threadTime() time.Duration { return time.Since(started) }
