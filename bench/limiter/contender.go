package main

// contender is one limiter as it is compared.
type contender struct {
	name  string
	group string // ratios are to the group's own of ours
	ours  bool

	// start returns it without any key.
	start func() (*instance, error)
}

// The groups. A handler also reads its key from the request and writes fields.
const (
	groupLibrary = "library"
	groupHandler = "handler"
)

// decide charges one unit to key and reports whether it was admitted.
type decide func(key string) bool

// instance is a limiter at work.
type instance struct {
	// worker returns what one goroutine decides with, while others do too.
	worker func() decide

	// stop ends its goroutines. Memory goes when the instance does.
	stop func()
}

// shared is an instance of which one function serves all goroutines.
func shared(d decide, stop func()) *instance {
	return &instance{worker: func() decide { return d }, stop: stop}
}
