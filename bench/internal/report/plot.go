package report

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Panel is one bar chart. Less is better in all of them.
type Panel struct {
	Title string
	Unit  string // of the axis
	Bars  []Bar

	// Mark is where a line across all bars is, such as what they are compared with.
	// None at 0.
	Mark float64
}

// Bar is a value, not negative, with the range that it lies in. Bars of Value NaN are
// left out.
type Bar struct {
	Label            string
	Value, Low, High float64
	Digits           int  // after the point of the number beside it
	Ours             bool // drawn in another colour
}

// What a plot looks like, in pixels.
const (
	plotWidth  = 860
	plotLeft   = 290 // where bars begin
	plotRight  = 70  // room for the number of the longest
	rowHeight  = 24
	barHeight  = 14
	headHeight = 44
	footHeight = 46
)

// Plot draws panels below each other as an SVG image. It has a background of its own,
// so that it can be read on light and dark pages.
func Plot(panels []Panel) string {
	var body strings.Builder
	y := 0
	for _, p := range panels {
		y += p.draw(&body, y)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, plotWidth, y, plotWidth, y, body.String())
}

// draw writes the panel from the line y on and returns how high it is.
func (p Panel) draw(b *strings.Builder, top int) int {
	var bars []Bar
	longest := p.Mark
	for _, bar := range p.Bars {
		if !math.IsNaN(bar.Value) {
			bars = append(bars, bar)
			longest = max(longest, bar.Value, bar.High)
		}
	}
	step, end := axis(longest)
	x := func(value float64) float64 {
		return plotLeft + value/end*(plotWidth-plotLeft-plotRight)
	}
	first, last := top+headHeight, top+headHeight+len(bars)*rowHeight
	fmt.Fprintf(b, `<text x="16" y="%d" font-size="15" font-weight="bold" fill="#1f2328">%s</text>`+"\n", top+28, html.EscapeString(p.Title))
	for i := 0; float64(i)*step <= end*(1+1e-9); i++ {
		at := float64(i) * step
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#d8dee4"/>`+"\n", x(at), first, x(at), last)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" font-size="11" fill="#57606a">%s</text>`+"\n",
			x(at), last+15, strconv.FormatFloat(at, 'g', 6, 64))
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" font-size="11" fill="#57606a">%s</text>`+"\n",
		x(end/2), last+32, html.EscapeString(p.Unit))
	for i, bar := range bars {
		bar.draw(b, first+i*rowHeight+rowHeight/2, x)
	}
	if p.Mark > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#cf222e" stroke-dasharray="4 3"/>`+"\n", x(p.Mark), first, x(p.Mark), last)
	}
	return headHeight + len(bars)*rowHeight + footHeight
}

// draw writes the bar with its middle at the line y.
func (bar Bar) draw(b *strings.Builder, y int, x func(float64) float64) {
	colour := "#8c959f"
	if bar.Ours {
		colour = "#0969da"
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#1f2328">%s</text>`+"\n", plotLeft-8, y+4, html.EscapeString(bar.Label))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", plotLeft, y-barHeight/2, x(bar.Value)-plotLeft, barHeight, colour)
	if bar.Low < bar.High {
		fmt.Fprintf(b, `<path d="M%.1f %dH%.1fM%.1f %dV%dM%.1f %dV%d" stroke="#1f2328" fill="none"/>`+"\n",
			x(bar.Low), y, x(bar.High), x(bar.Low), y-4, y+4, x(bar.High), y-4, y+4)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d" font-size="12" fill="#1f2328">%.*f</text>`+"\n", x(max(bar.Value, bar.High))+6, y+4, bar.Digits, bar.Value)
}

// axis returns the distance of the lines of an axis up to longest, a power of ten
// times 1, 2 or 5, and where it ends: at such a line.
func axis(longest float64) (step, end float64) {
	if longest <= 0 || math.IsInf(longest, 0) || math.IsNaN(longest) {
		return 1, 1
	}
	power := math.Pow(10, math.Floor(math.Log10(longest/5)))
	step = 10 * power
	for _, factor := range []float64{1, 2, 5} {
		if longest/(factor*power) <= 8 {
			step = factor * power
			break
		}
	}
	return step, step * math.Ceil(longest/step-1e-9)
}
