package markdown

import (
	"fmt"
	"html"
	"strings"
	"unicode"

	"github.com/sluicerun/sluice/internal/report"
)

// special are the characters that mean something in GitHub's Markdown
// wherever they stand in a line ("$" begins a formula).
const special = "\\`*_{}[]|~$"

// text escapes foreign text for running text and table cells: one line, no
// markup, no HTML, no mentions of people or issues, no links.
func text(s string) string {
	var b strings.Builder
	before := ' '
	runes := []rune(report.Clean(s))
	for i, r := range runes {
		after := ' '
		if i+1 < len(runes) {
			after = runes[i+1]
		}
		switch {
		case r == '<' || r == '>' || r == '&':
			b.WriteString(html.EscapeString(string(r)))
		case strings.ContainsRune(special, r), i == 0 && strings.ContainsRune("#-=+", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '@' && !letterOrDigit(before), r == '#' && unicode.IsDigit(after), r == ':' && after != ' ', r == '.' && strings.EqualFold(last(runes[:i], 3), "www"):
			// A backslash does not keep GitHub from making a mention, an
			// issue, an emoji or a link of these.
			fmt.Fprintf(&b, "&#%d;", r)
		default:
			b.WriteRune(r)
		}
		before = r
	}
	return b.String()
}

func letterOrDigit(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

// last is the last n characters as text.
func last(runes []rune, n int) string { return string(runes[max(0, len(runes)-n):]) }

// code makes a code span of foreign text. Within a table a "|" ends the cell
// even inside a span, so it is escaped there; GitHub shows it without the
// backslash.
func code(s string) string {
	s = report.Clean(s)
	if s == "" {
		return ""
	}
	fence := strings.Repeat("`", longestRun(s, '`')+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") {
		s = " " + s + " "
	}
	return fence + s + fence
}

// cell makes any Markdown fit for a table's cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// codeCell is code for a table's cell.
func codeCell(s string) string { return cell(code(s)) }

// block makes a code block of foreign lines.
func block(lines []string) string { return fenced("text", lines) }

// fenced makes one in a language.
func fenced(language string, lines []string) string {
	longest := 2
	clean := make([]string, len(lines))
	for i, line := range lines {
		clean[i] = report.Clean(line)
		longest = max(longest, longestRun(clean[i], '`'))
	}
	fence := strings.Repeat("`", longest+1)
	return fence + language + "\n" + strings.Join(clean, "\n") + "\n" + fence + "\n"
}

// longestRun is the length of the longest run of c.
func longestRun(s string, c rune) int {
	longest, run := 0, 0
	for _, r := range s {
		if r == c {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	return longest
}
