package procs

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	rest := " S 1 2 3 0 -1 4194560 100 200 0 0 150 50 7 8 20 0 9 0 12345 1300000000 1000 18446744073709551615 1 1 0 0"
	page := int64(os.Getpagesize())
	tests := []struct {
		name, text string
		want       Usage
		fails      bool
	}{
		{name: "plain", text: "42 (caddy)" + rest, want: Usage{CPU: 2 * time.Second, RSS: 1000 * page}},
		{name: "a name of brackets and numbers", text: "42 (a) 7 (b c)" + rest, want: Usage{CPU: 2 * time.Second, RSS: 1000 * page}},
		{name: "no name", text: "42 caddy S", fails: true},
		{name: "too short", text: "42 (caddy) S 1 2 3", fails: true},
		{name: "no number", text: "42 (caddy)" + strings.Replace(rest, " 150 ", " x ", 1), fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseStat(test.text)
			if (err != nil) != test.fails {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Usage{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
