package peers

import (
	"context"
	"os"
	"time"

	"github.com/isekai-gateway/isekai/bench/internal/procs"
)

// Start makes a proxy listen that forwards to the rig's backend. What the folder dir
// holds goes with the rig.
type Start func(ctx context.Context, r *Rig, dir string) (*Running, error)

// Running is a proxy that listens.
type Running struct {
	Address string         // host:port, HTTP/1.1
	TLS     string         // host:port, with HTTP/2; empty if there is none
	PIDs    []int          // of what is measured
	Process *procs.Process // of what was started for it, or nil
	Admin   string         // URL of Caddy's admin endpoint, empty for what is not Caddy
	Scrape  string         // URL of metrics that are to be read, or empty
	Late    time.Duration  // how long it may put off work for a request that is answered
	Dir     string         // what it writes is here
	Stop    func()
}

// Direct is the backend itself.
func Direct(_ context.Context, r *Rig, dir string) (*Running, error) {
	return &Running{Address: r.Backend, PIDs: []int{r.BackendPID}, Dir: dir, Stop: func() {}}, nil
}

// Here is what is always there.
func Here(*Rig) string { return "" }

// Installed returns what says why a program is not there, or nothing.
func Installed(program string) func(*Rig) string {
	return func(*Rig) string {
		if procs.Find(program) == "" {
			return "not installed"
		}
		return ""
	}
}

// HasFastLane says why there are not two lanes to be compared, or nothing.
func HasFastLane(r *Rig) string {
	if !r.FastLane {
		return "this program has no option fast_lane"
	}
	return ""
}

// program returns what is named, or the rig's.
func (r *Rig) program(named string) string {
	if named != "" {
		return named
	}
	return r.Program
}

// folder makes a folder that goes with the rig.
func (r *Rig) folder() (string, error) { return os.MkdirTemp(r.dir, "peer-") }
