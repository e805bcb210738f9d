package proxy

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func TestReplay(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 10)
	tests := []struct {
		name  string
		bound int64
		read  int  // by the first attempt
		again bool // whether there can be a second
	}{
		{name: "unread", bound: 100, again: true},
		{name: "unread without a bound", again: true},
		{name: "read in part", bound: 100, read: 33, again: true},
		{name: "read to its end", bound: 100, read: 101, again: true},
		{name: "longer than the bound", bound: 99, read: 100},
		{name: "any byte without a bound", read: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &replay{source: iotest.OneByteReader(strings.NewReader(text)), bound: tt.bound}
			first := b.attempt()
			got, err := io.ReadAll(io.LimitReader(first, int64(tt.read)))
			if err != nil || string(got) != text[:min(tt.read, len(text))] {
				t.Errorf("the first attempt read %q, %v", got, err)
			}
			if err := first.Close(); err != nil {
				t.Error(err)
			}
			if b.again() != tt.again {
				t.Fatalf("again says %v", b.again())
			}
			if n, err := first.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
				t.Errorf("reading after Close gives %d, %v", n, err)
			}
			if !tt.again {
				if n, err := b.attempt().Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, io.EOF) {
					t.Errorf("what can't be sent again gives %d, %v", n, err)
				}
				return
			}
			if got, err := io.ReadAll(b.attempt()); err != nil || string(got) != text {
				t.Errorf("the second attempt read %q, %v", got, err)
			}
		})
	}
}

func TestReplayBrokenSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("the client is gone")
	b := &replay{source: io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)), bound: 100}
	if got, err := io.ReadAll(b.attempt()); !errors.Is(err, broken) || string(got) != "some" {
		t.Errorf("read %q, %v", got, err)
	}
	if b.again() {
		t.Error("a body that broke off can be sent again")
	}
}

// TestReplayOverlap has the transport still read for one attempt while the next has
// begun, as it does when an upstream answers or fails early.
func TestReplayOverlap(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	b := &replay{source: in, bound: 1 << 20}
	old := b.attempt()
	var wg sync.WaitGroup
	reading := make(chan struct{})
	wg.Go(func() {
		close(reading)
		_, _ = io.Copy(io.Discard, old)
	})
	<-reading
	want := bytes.Repeat([]byte("abc"), 10_000)
	wg.Go(func() {
		for chunk := want; len(chunk) > 0; chunk = chunk[1000:] {
			if _, err := out.Write(chunk[:1000]); err != nil {
				t.Error(err)
			}
		}
		out.Close()
	})
	next := b.attempt()
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	got, err := io.ReadAll(next)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
	}
	wg.Wait()
}

// TestReplayDoesNotWait has a client fall silent within its body: whoever decides
// about another attempt, or closes this one, must not wait for it.
func TestReplayDoesNotWait(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	var hurried []bool
	b := &replay{source: in, bound: 100, interrupt: func(on bool) { hurried = append(hurried, on) }}
	old := b.attempt()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, old) })
	if _, err := out.Write([]byte("some")); err != nil {
		t.Fatal(err)
	}
	for inRead := false; !inRead; runtime.Gosched() {
		b.mu.Lock()
		inRead = b.inRead && b.total == 4
		b.mu.Unlock()
	}
	if !b.again() || b.spoiled() {
		t.Error("a body that is still coming can't be sent again")
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	next := b.attempt()
	if want := []bool{true, false}; !slices.Equal(hurried, want) {
		t.Errorf("the Read was hurried %v, want %v", hurried, want)
	}
	got := make([]byte, 4)
	if n, err := next.Read(got); n != 4 || err != nil {
		t.Errorf("the next attempt read %q, %v", got[:n], err)
	}
	wg.Go(func() {
		_, _ = out.Write([]byte(" more"))
		out.Close()
	})
	if rest, err := io.ReadAll(next); string(rest) != " more" || err != nil {
		t.Errorf("the next attempt read on %q, %v", rest, err)
	}
	wg.Wait()
}
