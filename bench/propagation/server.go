package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/isekai-gateway/isekai/internal/pgtest"
)

// server is a database of this run's own.
type server struct {
	testing.TB // only so that pgtest takes it: what that calls is below

	dsn  string
	undo []func()
}

func startServer() (s *server, err error) {
	s = new(server)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("starting PostgreSQL: %v", p)
		}
	}()
	s.dsn = pgtest.New(s)
	return s, nil
}

func (s *server) close() {
	for _, undo := range s.undo {
		undo()
	}
}

func (s *server) Helper() {}

func (s *server) Cleanup(undo func()) { s.undo = append(s.undo, undo) }

func (s *server) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (s *server) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (s *server) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
