package report

import (
	"strings"
	"unicode/utf8"
)

// Table formats rows under a header as a Markdown table with columns of even
// width, the first aligned left and the others right, so that it reads the same in
// a terminal. Missing cells are empty; those beyond the header are left out.
func Table(header []string, rows [][]string) string {
	widths := make([]int, len(header))
	for i, name := range header {
		widths[i] = max(utf8.RuneCountInString(name), 3)
	}
	for _, row := range rows {
		for i, cell := range row[:min(len(row), len(header))] {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	writeRow(&b, header, widths)
	for i, width := range widths {
		if i == 0 {
			b.WriteString("|" + strings.Repeat("-", width+2))
		} else {
			b.WriteString("|" + strings.Repeat("-", width+1) + ":")
		}
	}
	b.WriteString("|\n")
	for _, row := range rows {
		writeRow(&b, row, widths)
	}
	return b.String()
}

func writeRow(b *strings.Builder, row []string, widths []int) {
	for i, width := range widths {
		cell := ""
		if i < len(row) {
			cell = row[i]
		}
		padding := strings.Repeat(" ", width-utf8.RuneCountInString(cell))
		if i == 0 {
			b.WriteString("| " + cell + padding + " ")
		} else {
			b.WriteString("| " + padding + cell + " ")
		}
	}
	b.WriteString("|\n")
}
