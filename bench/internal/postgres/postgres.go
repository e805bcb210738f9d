// Package postgres starts a database server for a benchmark.
package postgres

import (
	"fmt"
	"os"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// Server is a database of this run's own.
type Server struct {
	// DSN is its address.
	DSN string

	run run
}

// run is what pgtest takes for a test.
type run struct {
	testing.TB // only to be one: what pgtest calls is below

	undo []func()
}

// Start starts one, of which fsync is off, or uses that of ISEKAI_TEST_DATABASE_URL.
func Start() (s *Server, err error) {
	s = new(Server)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("starting PostgreSQL: %v", p)
		}
	}()
	s.DSN = pgtest.New(&s.run)
	return s, nil
}

// Close drops the database.
func (s *Server) Close() {
	for _, undo := range s.run.undo {
		undo()
	}
}

func (r *run) Helper() {}

func (r *run) Cleanup(undo func()) { r.undo = append(r.undo, undo) }

func (r *run) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (r *run) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (r *run) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
