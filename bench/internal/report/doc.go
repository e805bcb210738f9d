// Package report turns what a benchmark measured in rounds into tables, and keeps
// them in a section of a Markdown file.
package report
