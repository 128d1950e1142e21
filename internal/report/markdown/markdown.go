// Package markdown renders a Summary as GitHub-flavoured Markdown: the step
// summary of a GitHub job, and a file for everything else that shows
// Markdown. The verdict comes first, in the order of the first screen;
// details are folded.
//
// All foreign text is escaped or stands in code: it can neither make markup
// nor mention people. What does not fit into the limit is left out from the
// end, by whole sections, and what was left out is said.
package markdown

import (
	"fmt"
	"io"
	"strings"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// How much of each kind is shown before the rest is counted.
const (
	maxFailures = 25
	maxEvents   = 10
	maxLogs     = 50
	maxImages   = 50
	maxNotices  = 50
	maxObjects  = 500 // for each Kustomization
	maxRows     = 500

	maxFieldLines = 1000
)

// Write writes the Summary without a limit on its size.
func Write(w io.Writer, s report.Summary) error {
	if _, err := w.Write(Render(s, 0)); err != nil {
		return fmt.Errorf("write the Markdown report: %w", err)
	}
	return nil
}

// Render returns the Summary as Markdown of at most limit bytes; 0 means
// there is no limit. It is pure.
func Render(s report.Summary, limit int) []byte {
	sections := []string{verdict(&s), failures(&s), state(&s), images(&s), table(&s), dependencies(&s), notices(&s), planned(&s)}
	for i := range s.Rows {
		sections = append(sections, objects(&s.Rows[i]))
	}
	sections = append(sections, pruned(&s), about(&s))

	var b strings.Builder
	const note = 200 // room for what is said about the cut
	left := 0
	for _, section := range sections {
		if section == "" {
			continue
		}
		if limit > 0 && b.Len()+len(section)+1 > limit-note {
			left++
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(section)
	}
	if left > 0 {
		fmt.Fprintf(&b, "\n_%d sections did not fit into %d KiB and are left out; the JSON report (`--report json=PATH`) has everything._\n", left, limit/1024)
	}
	return []byte(b.String())
}

// marks are the signs of the outcomes and states.
var marks = map[string]string{
	"success": "✅", "no-changes": "✅", "failed": "❌", "invalid": "❌", "unhealthy": "❌", "refused": "✋", "cancelled": "⚠️", "running": "⏳",
	"ready": "✅", "destroyed": "✅", "not-run": "⏭️", "suspended": "⏸️", "excluded": "➖", "pending": "⏳", "waiting": "⏳", "retrying": "🔁",
}

// verdict is the heading and the sentence below it.
func verdict(s *report.Summary) string {
	heading := fmt.Sprintf("## %s %s", marks[string(s.Result)], s.Label())
	if s.Source.Path != "" {
		heading += " · " + text(s.Source.Path)
	}
	b := heading + "\n\n"
	for _, f := range refusals(s) {
		b += f + "\n\n"
	}
	if s.Result != report.OutcomeRefused || len(s.Failures) == 0 {
		b += text(s.Headline) + "\n\n"
	}
	if path := s.CriticalText(); path != "" && s.Result == report.OutcomeSuccess {
		b += text(path) + "\n\n"
	}
	switch {
	case s.Cluster == nil:
	case s.Command == "destroy":
		b += fmt.Sprintf("%s on %s\n", code(s.Cluster.Root), code(report.ClusterName(s.Cluster)))
	default:
		b += fmt.Sprintf("%s → %s (%s)\n", commit(s), code(report.ClusterName(s.Cluster)), compare(s))
	}
	return b
}

// refusals are the reasons of a refusal, each with its override.
func refusals(s *report.Summary) []string {
	if s.Result != report.OutcomeRefused {
		return nil
	}
	var lines []string
	for i, f := range s.Failures {
		if i == maxFailures {
			lines = append(lines, fmt.Sprintf("and %d more reasons", len(s.Failures)-i))
			break
		}
		line := text(report.FailureText(f))
		if f.Hint != "" {
			line += "; " + text(f.Hint)
		}
		lines = append(lines, line)
	}
	return lines
}

// commit is the revision, linked where the forge is known to have a page for
// it.
func commit(s *report.Summary) string {
	short := code(report.ShortRevision(s.Source.Revision))
	if page := webPage(s.Source.URL); page != "" && s.Source.Commit != "" {
		return fmt.Sprintf("[%s](%s/commit/%s)", short, page, s.Source.Commit)
	}
	return short
}

// compare says what was live, with a link to the difference.
func compare(s *report.Summary) string {
	relation := text(report.RelationText(s.Cluster))
	page := webPage(s.Source.URL)
	_, previous, ok := strings.Cut(s.Cluster.Previous, "sha1:")
	if page == "" || !ok || s.Cluster.Relation == "same" || s.Source.Commit == "" {
		return relation
	}
	return fmt.Sprintf("[%s](%s/compare/%s...%s)", relation, page, previous, s.Source.Commit)
}

// webPage is the repository's page on GitHub or GitLab, whose paths for
// commits and comparisons are known; else nothing. A URL with characters that
// could end the link is not used.
func webPage(url string) string {
	if strings.ContainsAny(url, " ()<>[]\"'`\\\n") {
		return ""
	}
	for _, host := range []string{"github.com/", "gitlab.com/"} {
		for _, prefix := range []string{"https://", "http://", "ssh://git@", "ssh://"} {
			if rest, ok := strings.CutPrefix(url, prefix+host); ok {
				page := "https://" + host + strings.TrimSuffix(strings.Trim(rest, "/"), ".git")
				if host == "gitlab.com/" {
					page += "/-"
				}
				return page
			}
		}
	}
	return ""
}

// failures tells what went wrong, the worst in full and open, the others
// folded.
func failures(s *report.Summary) string {
	if s.Result == report.OutcomeRefused {
		return ""
	}
	var b strings.Builder
	for i, f := range s.Failures {
		if i == maxFailures {
			fmt.Fprintf(&b, "and %d more failures; the JSON report has all.\n\n", len(s.Failures)-i)
			break
		}
		fmt.Fprintf(&b, "**%s**\n\n%s", text(s.FailureTitle(f)), failure(f, i == 0))
	}
	return b.String()
}

// failure tells one cause.
func failure(f report.Failure, open bool) string {
	var b strings.Builder
	if cause := report.FailureCause(f); cause != "" {
		fmt.Fprintf(&b, "- cause: %s\n", text(cause))
	}
	for i, e := range f.Events {
		if i == maxEvents {
			fmt.Fprintf(&b, "- and %d more events\n", len(f.Events)-i)
			break
		}
		fmt.Fprintf(&b, "- event: %s\n", text(report.EventText(e)))
	}
	if f.LogsNote != "" {
		fmt.Fprintf(&b, "- logs: %s\n", text(f.LogsNote))
	}
	if f.Hint != "" {
		fmt.Fprintf(&b, "- next: %s\n", text(f.Hint))
	}
	b.WriteString("\n")
	if logs := f.Logs; len(logs) > 0 {
		if len(logs) > maxLogs {
			logs = logs[len(logs)-maxLogs:]
		}
		if open {
			b.WriteString(block(logs) + "\n")
		} else {
			b.WriteString(details(fmt.Sprintf("last %d lines of the log", len(logs)), block(logs)) + "\n")
		}
	}
	return b.String()
}

// details folds something. The title is plain text of ours or escaped.
func details(title, body string) string {
	return fmt.Sprintf("<details><summary>%s</summary>\n\n%s\n</details>\n", title, body)
}

// state tells what the cluster is like after a run that did not succeed, and
// what to do.
func state(s *report.Summary) string {
	switch s.Result {
	case report.OutcomeFailed, report.OutcomeUnhealthy, report.OutcomeCancelled:
	case report.OutcomeInvalid:
		if s.Next != "" {
			return "next: " + text(s.Next) + "\n"
		}
		return ""
	default:
		return ""
	}
	var b strings.Builder
	for _, line := range report.StateLines(s) {
		fmt.Fprintf(&b, "- %s\n", text(strings.TrimSpace(line.Lead)+": "+line.Text))
	}
	if s.Next != "" {
		fmt.Fprintf(&b, "- next: %s\n", text(s.Next))
	}
	return b.String()
}

func images(s *report.Summary) string {
	var b strings.Builder
	for i, image := range s.Images {
		if i == maxImages {
			fmt.Fprintf(&b, "- and %d more images\n", len(s.Images)-i)
			break
		}
		if i == 0 {
			b.WriteString("Images:\n")
		}
		fmt.Fprintf(&b, "- %s\n", code(report.ImageText(image)))
	}
	return b.String()
}

// table has one row for each Kustomization, in the order in which they ran.
func table(s *report.Summary) string {
	if len(s.Rows) == 0 || s.Command != "run" && s.Command != "destroy" || s.Preview() || s.Result == report.OutcomeInvalid || s.Result == report.OutcomeRefused {
		return ""
	}
	var b strings.Builder
	b.WriteString("| |")
	rule := "\n|---|"
	for i, column := range report.TableColumns {
		b.WriteString(" " + column + " |")
		if i < 2 {
			rule += "---|"
		} else {
			rule += "--:|"
		}
	}
	b.WriteString(rule + "\n")
	for i := range s.Rows {
		if i == maxRows {
			fmt.Fprintf(&b, "\nand %d more Kustomizations\n", len(s.Rows)-i)
			break
		}
		r := &s.Rows[i]
		mark := marks[string(r.State)]
		fmt.Fprintf(&b, "| %s |", mark)
		for n, value := range report.TableRow(r) {
			if n == 0 {
				value = codeCell(value)
				if r.Cluster != "" {
					value += " in " + codeCell(r.Cluster)
				}
			} else if n == 1 && r.BlockedBy != "" {
				value = text(value + ", because of " + s.Name(r.BlockedBy))
			}
			b.WriteString(" " + value + " |")
		}
		b.WriteString("\n")
	}
	if s.Result == report.OutcomeNoChanges {
		return details(fmt.Sprintf("Kustomizations (%d)", len(s.Rows)), b.String())
	}
	return b.String()
}

// dependencies is the graph: open where it says what a failure held up, and
// while the run goes on.
func dependencies(s *report.Summary) string {
	if len(s.Graph.Nodes) < 2 || s.Result == report.OutcomeRefused {
		return ""
	}
	if s.Result == report.OutcomeFailed || s.Result == report.OutcomeUnhealthy || !s.Done() {
		return graph(s)
	}
	return details("Dependency graph", graph(s))
}

func notices(s *report.Summary) string {
	if len(s.Notices) == 0 {
		return ""
	}
	var b strings.Builder
	for i, n := range s.Notices {
		if i == maxNotices {
			fmt.Fprintf(&b, "- and %d more notices\n", len(s.Notices)-i)
			break
		}
		fmt.Fprintf(&b, "- %s: %s", n.Level, text(report.NoticeText(n, s.Name)))
		if n.Hint != "" {
			b.WriteString("; " + text(n.Hint))
		}
		if n.Count > 1 {
			fmt.Fprintf(&b, " (%d×)", n.Count)
		}
		b.WriteString("\n")
	}
	return details(fmt.Sprintf("Notices (%d)", len(s.Notices)), b.String())
}

// planned lists what is planned, for a plan and while a run goes on.
func planned(s *report.Summary) string {
	if s.Planned == nil || len(s.Planned.Changes) == 0 || !s.Preview() && s.Done() {
		return ""
	}
	list := details(fmt.Sprintf("Plan: %s", text(s.Planned.String())), objectTable(s.Planned.Changes, true, s))
	if s.Preview() {
		return "Plan: " + text(s.Planned.String()) + "\n\n" + objectTable(s.Planned.Changes, true, s) + fields(s.Planned.Changes)
	}
	return list
}

// fields folds what would change in each object, as a difference.
func fields(list []report.Object) string {
	var lines []string
	for _, o := range list {
		if len(o.Fields) == 0 {
			continue
		}
		lines = append(lines, fmt.Sprintf("@@ %s %s @@", o.Action, o.Object))
		for _, f := range o.Fields {
			if f.Old != "" {
				lines = append(lines, "- "+f.Path+": "+f.Old)
			}
			if f.New != "" {
				lines = append(lines, "+ "+f.Path+": "+f.New)
			}
		}
	}
	if len(lines) == 0 {
		return ""
	}
	if len(lines) > maxFieldLines {
		lines = append(lines[:maxFieldLines], fmt.Sprintf("and %d more lines; the JSON report has all", len(lines)-maxFieldLines))
	}
	return "\n" + details("Fields", fenced("diff", lines))
}

// objects folds what was done to a Kustomization's objects; what stayed as it
// was is only counted.
func objects(r *report.Row) string {
	var told []report.Object
	for _, o := range r.Objects {
		if o.Action != event.Unchanged && o.Action != "" || o.Health != "" && o.Health != "Current" {
			told = append(told, o)
		}
	}
	if len(told) == 0 {
		return ""
	}
	title := fmt.Sprintf("<code>%s</code>: %s", text(r.Name), text(r.Counts.String()))
	return details(title, objectTable(told, false, nil))
}

// pruned folds what pruning deleted and kept.
func pruned(s *report.Summary) string {
	if s.Prune == nil || len(s.Prune.Objects) == 0 {
		return ""
	}
	return details(fmt.Sprintf("Pruned: %d deleted, %d kept", s.Counts.Deleted, s.Counts.Kept), objectTable(s.Prune.Objects, true, s))
}

// objectTable lists objects with what was done to them, and if asked for with
// their Kustomization.
func objectTable(list []report.Object, owner bool, s *report.Summary) string {
	var b strings.Builder
	if owner {
		b.WriteString("| Kustomization | Action | Object | |\n|---|---|---|---|\n")
	} else {
		b.WriteString("| Action | Object | |\n|---|---|---|\n")
	}
	for i, o := range list {
		if i == maxObjects {
			fmt.Fprintf(&b, "\nand %d more objects; the JSON report has all.\n", len(list)-i)
			break
		}
		var remarks []string
		if o.Reason != "" {
			remarks = append(remarks, text(o.Reason))
		}
		for _, image := range o.Images {
			remarks = append(remarks, codeCell(report.ImageText(report.Image{Old: image.Old, New: image.New})))
		}
		if o.Health != "" && o.Health != "Current" {
			remarks = append(remarks, text(strings.TrimSuffix(o.Health+": "+o.Message, ": ")))
		}
		if owner {
			fmt.Fprintf(&b, "| %s ", codeCell(s.Name(o.Node)))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", o.Action, codeCell(o.Object), strings.Join(remarks, ", "))
	}
	return b.String()
}

// about says what ran, when, and by whom.
func about(s *report.Summary) string {
	if s.Started.IsZero() {
		return ""
	}
	line := fmt.Sprintf("sluice %s %s, %s, %s", text(s.Sluice), text(s.Command), s.Started.Format("2006-01-02 15:04:05 UTC"), s.Duration)
	if s.Actor != "" {
		line += ", by " + text(s.Actor)
	}
	return "<sub>" + line + "</sub>\n"
}
