package pipeline

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestBodyBound(t *testing.T) {
	t.Parallel()
	const text = "0123456789"
	readers := map[string]func(io.Reader) io.Reader{
		"at once":         func(r io.Reader) io.Reader { return r },
		"byte by byte":    iotest.OneByteReader,
		"end with data":   iotest.DataErrReader,
		"half of a chunk": iotest.HalfReader,
	}
	tests := []struct {
		most int64
		want string
		err  error
	}{
		{0, text, nil},
		{11, text, nil},
		{10, text, nil},
		{9, "012345678", ErrBodyTooLarge},
		{1, "0", ErrBodyTooLarge},
	}
	for name, wrap := range readers {
		for _, tt := range tests {
			b := &body{ReadCloser: io.NopCloser(wrap(strings.NewReader(text))), exchange: new(Exchange), http1: true, most: tt.most}
			got, err := io.ReadAll(b)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%s: with a bound of %d it is %q, %v; want %q, %v", name, tt.most, got, err, tt.want, tt.err)
			}
			cut := tt.err != nil
			if b.tooLarge.Load() != cut || b.done.Load() == cut || b.mustClose() != cut {
				t.Errorf("%s: with a bound of %d it is too large: %v, done: %v, closes: %v",
					name, tt.most, b.tooLarge.Load(), b.done.Load(), b.mustClose())
			}
			if !cut {
				continue
			}
			// Whoever reads on, as a retry might, gets no more and no end either.
			if n, err := b.Read(make([]byte, 8)); n != 0 || !errors.Is(err, ErrBodyTooLarge) {
				t.Errorf("%s: after the bound of %d there are %d bytes, %v", name, tt.most, n, err)
			}
		}
	}
}

// TestBodyBoundAtItsEnd has a body of just the allowed length whose reader fails.
func TestBodyBoundAtItsEnd(t *testing.T) {
	t.Parallel()
	b := &body{ReadCloser: io.NopCloser(io.MultiReader(strings.NewReader("0123"), iotest.ErrReader(io.ErrUnexpectedEOF))), exchange: new(Exchange), most: 4}
	got, err := io.ReadAll(b)
	if string(got) != "0123" || !errors.Is(err, io.ErrUnexpectedEOF) || b.tooLarge.Load() {
		t.Errorf("got %q, %v, too large: %v", got, err, b.tooLarge.Load())
	}
}
