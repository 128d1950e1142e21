package report

import (
	"strings"
	"unicode/utf8"
)

// Tone is how a line's lead is meant; a rendering may colour it.
type Tone int

// The tones.
const (
	Plain Tone = iota
	Good
	Bad
	Warn
	Dim
)

// Line is one line for people: a lead (a mark or a label) and text, neither
// with a line end. Both are clean (see Clean).
type Line struct {
	Lead string
	Text string
	Tone Tone
}

// String is the line without colour.
func (l Line) String() string { return l.Lead + l.Text }

// colors are the ANSI sequences of the tones.
var colors = map[Tone]string{Good: "\x1b[32m", Bad: "\x1b[1;31m", Warn: "\x1b[33m", Dim: "\x1b[2m"}

// Colored is the line with its lead in the colour of its tone.
func (l Line) Colored() string {
	if color := colors[l.Tone]; color != "" && strings.TrimSpace(l.Lead) != "" {
		return color + l.Lead + "\x1b[0m" + l.Text
	}
	return l.String()
}

// clean cleans lines in place.
func clean(lines []Line) {
	for i := range lines {
		lines[i].Lead, lines[i].Text = cleanLead(lines[i].Lead), Clean(lines[i].Text)
	}
}

// cleanLead cleans without trimming, since a lead ends in the blanks that
// make columns.
func cleanLead(lead string) string {
	return strings.TrimSuffix(Clean(lead+"."), ".")
}

// pad fills a text up with blanks to a width in characters.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
