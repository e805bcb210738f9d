package proxy

import (
	"fmt"
	"strings"
	"testing"
)

// TestFreeKeepsLittle has what is kept for other requests keep no field of an answer, nor
// room for many.
func TestFreeKeepsLittle(t *testing.T) {
	t.Parallel()
	for _, fields := range [][]int{{1}, {60, 3}, {100, 3}, {60_000}, {60_000, 3}} {
		t.Run(fmt.Sprint(fields), func(t *testing.T) {
			t.Parallel()
			x := new(laneExchange)
			for _, n := range fields { // of the answers to one request
				x.reader.Reset(strings.NewReader("HTTP/1.1 200 OK\r\n" + strings.Repeat("a:\r\n", n) + "\r\n"))
				if err := x.reader.ReadHead(&x.head); err != nil {
					t.Fatal(err)
				}
			}
			x.reset()
			kept := x.head.Fields
			if len(kept) != 0 || cap(kept) > maxKeptFields {
				t.Errorf("%d fields are kept, and room for %d", len(kept), cap(kept))
			}
			for _, field := range kept[:cap(kept)] {
				if field.Name != "" || field.Value != "" {
					t.Errorf("the field %v is kept", field)
				}
			}
		})
	}
}
