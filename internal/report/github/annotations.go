package github

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/sethvargo/go-githubactions"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// GitHub shows ten errors and ten warnings of a step and cuts a message at
// 4096 characters.
const (
	maxAnnotations = 9 // and one that counts the rest
	maxMessage     = 4000
	annotationLogs = 10 // lines of a log in a message
)

// annotation is one remark on the run's page, and in a pull request at the
// line that it is about.
type annotation struct {
	title, message, file string
	line                 int
}

// annotations returns the commands for the failures, one for each
// Kustomization, and for the warnings. A refusal and a cancelled run are no
// errors of the repository, so they are warnings.
func (r *Renderer) annotations(s *report.Summary) []byte {
	var failures, warnings []annotation
	seen := map[string]int{}
	for _, f := range s.Failures {
		if f.Node != "" {
			if seen[f.Node]++; seen[f.Node] > 1 {
				continue
			}
		}
		failures = append(failures, ofFailure(s, f))
	}
	if s.Result == report.OutcomeRefused || s.Result == report.OutcomeCancelled {
		failures, warnings = nil, failures
	}
	for _, n := range s.Notices {
		if n.Level == event.Warning {
			warnings = append(warnings, ofNotice(s, n))
		}
	}
	return append(r.issue(failures, "failures", (*githubactions.Action).Errorf),
		r.issue(warnings, "warnings", (*githubactions.Action).Warningf)...)
}

// issue writes at most maxAnnotations and one that counts the others.
func (r *Renderer) issue(list []annotation, what string, write func(*githubactions.Action, string, ...any)) []byte {
	var b bytes.Buffer
	for i, a := range list {
		if i == maxAnnotations {
			a = annotation{title: "sluice", message: fmt.Sprintf("and %d more %s; the step summary and the log have them", len(list)-i, what)}
		}
		fields := map[string]string{"title": protect(report.Cut(report.Clean(a.title), 200))}
		if a.file != "" {
			fields["file"] = report.Clean(a.file)
			if a.line > 0 {
				fields["line"] = strconv.Itoa(a.line)
			}
		}
		b.Write(r.command(fields, func(action *githubactions.Action) { write(action, "%s", report.Cut(a.message, maxMessage)) }))
		if i == maxAnnotations {
			break
		}
	}
	return b.Bytes()
}

func ofFailure(s *report.Summary, f report.Failure) annotation {
	a := annotation{title: f.Reason, file: f.File, line: f.Line}
	if f.Node != "" {
		a.title = s.Name(f.Node) + ": " + f.Reason
		if row := s.Row(f.Node); row != nil && a.file == "" {
			a.file, a.line = row.File, row.Line
		}
	}
	lines := []string{report.FailureText(f)}
	if f.Hint != "" {
		lines = append(lines, "next: "+f.Hint)
	}
	for i, e := range f.Events {
		if i == annotationLogs {
			break
		}
		lines = append(lines, "event: "+report.EventText(e))
	}
	if f.LogsNote != "" {
		lines = append(lines, "logs: "+f.LogsNote)
	}
	lines = append(lines, f.Logs[max(0, len(f.Logs)-annotationLogs):]...)
	a.message = joinClean(lines)
	return a
}

func ofNotice(s *report.Summary, n report.Notice) annotation {
	lines := []string{report.NoticeText(n, s.Name)}
	if n.Hint != "" {
		lines = append(lines, n.Hint)
	}
	return annotation{title: n.Code, message: joinClean(lines), file: n.File, line: n.Line}
}

// joinClean joins lines of foreign text.
func joinClean(lines []string) string {
	var b bytes.Buffer
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(protect(report.Clean(line)))
	}
	return b.String()
}
