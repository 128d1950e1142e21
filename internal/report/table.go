package report

import (
	"strconv"
	"unicode/utf8"
)

// TableColumns are the headings of the table of Kustomizations.
var TableColumns = []string{"Kustomization", "Result", "Created", "Configured", "Deleted", "Unchanged", "Waited", "Time"}

// TableRow are the cells of a Kustomization. What was made again counts as
// configured here, where there is room for few columns.
func TableRow(r *Row) []string {
	c := r.Counts
	cells := []string{r.Name, r.State.Verdict(), strconv.Itoa(c.Created), strconv.Itoa(c.Configured + c.Recreated),
		strconv.Itoa(c.Deleted), strconv.Itoa(c.Unchanged), r.Waited.String(), r.Duration.String()}
	if !r.begun {
		for i := 2; i < len(cells); i++ {
			if i != 4 || c.Deleted == 0 {
				cells[i] = "-"
			}
		}
	}
	return cells
}

// TableLines is the table of all Kustomizations in the order in which they
// ran.
func TableLines(s *Summary) []Line {
	cells := [][]string{TableColumns}
	for i := range s.Rows {
		cells = append(cells, TableRow(&s.Rows[i]))
	}
	widths := make([]int, len(TableColumns))
	for _, row := range cells {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var lines []Line
	for n, row := range cells {
		text := ""
		for i, cell := range row {
			if i > 0 {
				text += "  "
			}
			if i < 2 { // words to the left, numbers to the right
				text += pad(cell, widths[i])
			} else {
				text += pad("", widths[i]-utf8.RuneCountInString(cell)) + cell
			}
		}
		line := Line{Text: "  " + text}
		if n == 0 {
			line = Line{Lead: "  " + text, Tone: Dim}
		}
		lines = append(lines, line)
	}
	return lines
}
