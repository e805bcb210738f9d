package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlot(t *testing.T) {
	t.Parallel()
	text := Plot([]Panel{
		{Title: "a < b", Unit: "us", Mark: 50, Bars: []Bar{
			{Label: "A & B", Value: 100, Low: 90, High: 110, Digits: 1},
			{Label: "ours", Value: 50, Low: 50, High: 50, Ours: true},
			{Label: "not there", Value: math.NaN()},
		}},
		{Title: "empty"},
	})
	for _, want := range []string{
		"a &lt; b", "A &amp; B", ">100.0<", ">50<", ">us<", "stroke-dasharray",
		// The axis goes to 120 over 500 pixels.
		`<rect x="290" y="49" width="416.7"`, `<rect x="290" y="73" width="208.3"`, `<path d="M665.0 56H748.3`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "not there") || strings.Count(text, "<path") != 1 || strings.Count(text, "#0969da") != 1 {
		t.Errorf("bars and ranges are not as they should be:\n%s", text)
	}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAxis(t *testing.T) {
	t.Parallel()
	tests := []struct{ longest, step, end float64 }{
		{0, 1, 1}, {math.NaN(), 1, 1}, {math.Inf(1), 1, 1},
		{1, 0.2, 1}, {1.31, 0.2, 1.4}, {86, 20, 100}, {100, 20, 100}, {110, 20, 120}, {7, 1, 7}, {430, 100, 500}, {0.03, 0.005, 0.03},
	}
	for _, test := range tests {
		step, end := axis(test.longest)
		got, want := fmt.Sprintf("%.6g %.6g", step, end), fmt.Sprintf("%.6g %.6g", test.step, test.end)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%g: %s", test.longest, diff)
		}
	}
}
