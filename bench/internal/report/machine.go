package report

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Machine describes where this process runs: the CPU's model, how many processors
// it uses, the system and Go's version.
func Machine() string {
	model := "unknown CPU"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		model = cpuModel(string(info), model)
	}
	return fmt.Sprintf("%s, %d of %d processors, %s/%s, %s",
		model, runtime.GOMAXPROCS(0), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// Load returns the system's load average of the last minute, "unknown" where there
// is no /proc/loadavg. Read before a benchmark, it says what else the machine does.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	minute, _, _ := strings.Cut(string(text), " ")
	return minute
}

// cpuModel finds the model in the text of Linux's /proc/cpuinfo.
func cpuModel(info, otherwise string) string {
	for line := range strings.Lines(info) {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}

// ModuleVersion returns the version of a module that this program was built with,
// or the empty text.
func ModuleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, dep := range info.Deps {
		if dep.Path == path {
			return dep.Version
		}
	}
	return ""
}
