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
	testing.TB // only so that pgtest takes it: what that calls is below

	// DSN is its address.
	DSN string

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
	s.DSN = pgtest.New(s)
	return s, nil
}

// Close drops the database.
func (s *Server) Close() {
	for _, undo := range s.undo {
		undo()
	}
}

func (s *Server) Helper() {}

func (s *Server) Cleanup(undo func()) { s.undo = append(s.undo, undo) }

func (s *Server) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (s *Server) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (s *Server) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
