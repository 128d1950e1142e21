// Package junit renders a Summary as JUnit XML, which GitLab's test tab and
// merge request widget read, and most CI systems besides. Compared with the
// target branch it shows what newly failed and what was fixed.
//
// There is one suite for each Kustomization, with one case for each object
// that was applied and one for each object whose health was waited for; one
// suite for pruning; and one named "run" for what is about none of these.
// The text of a failure is what a reader needs: reason, events and the end of
// the log.
package junit

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
)

// maxLogs is how many lines of a log a failure shows.
const maxLogs = 50

type suites struct {
	XMLName  xml.Name `xml:"testsuites"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Time     string   `xml:"time,attr"`
	Suites   []suite  `xml:"testsuite"`
}

type suite struct {
	Name      string     `xml:"name,attr"`
	Tests     int        `xml:"tests,attr"`
	Failures  int        `xml:"failures,attr"`
	Skipped   int        `xml:"skipped,attr"`
	Time      string     `xml:"time,attr"`
	Timestamp string     `xml:"timestamp,attr,omitempty"`
	Cases     []testcase `xml:"testcase"`
}

type testcase struct {
	Name      string   `xml:"name,attr"`
	Classname string   `xml:"classname,attr"`
	File      string   `xml:"file,attr,omitempty"`
	Time      string   `xml:"time,attr"`
	Skipped   *skipped `xml:"skipped"`
	Failure   *failure `xml:"failure"`
}

type skipped struct {
	Message string `xml:"message,attr"`
}

type failure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",cdata"`
}

// Write writes the Summary as JUnit XML. The error is the writer's.
func Write(w io.Writer, s report.Summary) error {
	about := s.Source.Path
	if about == "" && s.Cluster != nil {
		about = s.Cluster.Root
	}
	all := suites{Name: text("sluice " + about), Time: seconds(s.Duration)}
	told := make([]bool, len(s.Failures))
	for i := range s.Rows {
		all.add(ofRow(&s, &s.Rows[i], told))
	}
	if s.Prune != nil {
		all.add(ofPrune(&s, told))
	}
	all.add(ofRun(&s, told))

	_, err := io.WriteString(w, xml.Header)
	if err == nil {
		e := xml.NewEncoder(w)
		e.Indent("", "  ")
		if err = e.Encode(all); err == nil {
			_, err = io.WriteString(w, "\n")
		}
	}
	if err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}

// add counts a suite and takes it, unless it is empty.
func (s *suites) add(one suite) {
	if len(one.Cases) == 0 {
		return
	}
	names := map[string]int{}
	for i, c := range one.Cases {
		// Readers show only one of two cases of the same name.
		key := c.Classname + " " + c.Name
		if names[key]++; names[key] > 1 {
			one.Cases[i].Name += fmt.Sprintf(" (%d)", names[key])
		}
		one.Tests++
		if c.Failure != nil {
			one.Failures++
		}
		if c.Skipped != nil {
			one.Skipped++
		}
	}
	s.Tests += one.Tests
	s.Failures += one.Failures
	s.Skipped += one.Skipped
	s.Suites = append(s.Suites, one)
}

// ofRow makes the suite of a Kustomization and marks the failures that it
// tells. The time of the suite is in the case of its own, since only whole
// Kustomizations are timed.
func ofRow(s *report.Summary, r *report.Row, told []bool) suite {
	one := suite{Name: text(r.ID), Time: seconds(r.Duration)}
	if !r.Started.IsZero() {
		one.Timestamp = r.Started.Format(time.RFC3339)
	}
	add := func(c testcase) {
		c.Classname = text(r.ID)
		one.Cases = append(one.Cases, c)
	}
	self := testcase{Name: "Kustomization", File: text(r.File), Time: seconds(r.Duration)}
	switch r.State {
	case report.Ready, report.Valid, report.Destroyed, report.Failed, report.Unhealthy:
	default:
		self.Skipped = &skipped{text(report.RowText(r, s.Name))}
	}
	// What is wrong with no object of its own is the Kustomization's.
	known := map[string]bool{}
	for _, o := range r.Objects {
		known[o.Object] = true
	}
	var own []int
	for i, f := range s.Failures {
		if !told[i] && f.Node == r.ID && f.Phase != "prune" && !known[f.Object] {
			own = append(own, i)
		}
	}
	if len(own) > 0 {
		self.Failure, self.Skipped = failureOf(s.Failures[own[0]]), nil
		told[own[0]] = true
		own = own[1:]
	}
	add(self)
	for _, i := range own {
		f := s.Failures[i]
		told[i] = true
		add(testcase{Name: text(strings.TrimSpace(f.Phase + " " + f.Object)), File: text(f.File), Time: "0", Failure: failureOf(f)})
	}
	for _, o := range r.Objects {
		if o.Action != "" {
			c := testcase{Name: text(o.Object), File: text(o.File), Time: "0"}
			if o.Action == event.Skipped {
				c.Skipped = &skipped{text("skipped: " + o.Reason)}
			}
			c.Failure = find(s, r.ID, o.Object, false, told)
			add(c)
		}
		bad := find(s, r.ID, o.Object, true, told)
		if o.Health != "" || bad != nil {
			c := testcase{Name: text(o.Object + " is healthy"), File: text(o.File), Time: "0", Failure: bad}
			if bad == nil && o.Health != "Current" {
				c.Skipped = &skipped{text("not known to be healthy: " + o.Health + " " + o.Message)}
			}
			add(c)
		}
	}
	// A failure that is told elsewhere, with the run, must not let its
	// Kustomization pass.
	failed := slices.ContainsFunc(one.Cases, func(c testcase) bool { return c.Failure != nil })
	if !failed && (r.State == report.Failed || r.State == report.Unhealthy) {
		message := text(report.RowText(r, s.Name))
		one.Cases[0].Failure = &failure{Message: message, Type: text(r.State.Verdict()), Text: message}
	}
	return one
}

// find returns the failure of an object, of its health or of the rest, and
// marks it as told.
func find(s *report.Summary, node, object string, health bool, told []bool) *failure {
	for i, f := range s.Failures {
		if !told[i] && f.Node == node && f.Object == object && f.Phase != "prune" && (f.Phase == "health") == health {
			told[i] = true
			return failureOf(f)
		}
	}
	return nil
}

// ofPrune makes the suite of pruning.
func ofPrune(s *report.Summary, told []bool) suite {
	one := suite{Name: "prune", Time: seconds(s.Prune.Duration)}
	for _, o := range s.Prune.Objects {
		c := testcase{Name: text(o.Object), Classname: text(o.Node), Time: "0"}
		if o.Action == event.Kept {
			c.Skipped = &skipped{text("kept: " + o.Reason)}
		}
		one.Cases = append(one.Cases, c)
	}
	for i, f := range s.Failures {
		if !told[i] && f.Phase == "prune" {
			told[i] = true
			one.Cases = append(one.Cases, testcase{Name: text(f.Object), Classname: text(f.Node), Time: "0", Failure: failureOf(f)})
		}
	}
	return one
}

// ofRun makes the suite of what is left.
func ofRun(s *report.Summary, told []bool) suite {
	one := suite{Name: "run", Time: seconds(s.Duration)}
	for i, f := range s.Failures {
		if !told[i] {
			name := strings.TrimSpace(f.Phase + " " + f.Object)
			one.Cases = append(one.Cases, testcase{Name: text(name), Classname: "run", File: text(f.File), Time: "0", Failure: failureOf(f)})
		}
	}
	return one
}

// failureOf tells a failure with its reason, its events and the end of the
// log.
func failureOf(f report.Failure) *failure {
	lines := []string{report.FailureText(f), "cause: " + report.FailureCause(f)}
	if f.Hint != "" {
		lines = append(lines, "next: "+f.Hint)
	}
	for _, e := range f.Events {
		lines = append(lines, "event: "+report.EventText(e))
	}
	if f.LogsNote != "" {
		lines = append(lines, "logs: "+f.LogsNote)
	}
	lines = append(lines, f.Logs[max(0, len(f.Logs)-maxLogs):]...)
	for i := range lines {
		lines[i] = text(lines[i])
	}
	return &failure{Message: text(report.FailureText(f)), Type: text(f.Reason), Text: strings.Join(lines, "\n")}
}

// text makes foreign text fit for XML. Clean takes out control characters,
// which XML 1.0 has no form for at all; what is left that it does not allow
// are the two non-characters at the end of the plane.
func text(s string) string {
	return strings.Map(func(r rune) rune {
		if r == 0xFFFE || r == 0xFFFF {
			return 0xFFFD
		}
		return r
	}, report.Clean(s))
}

// seconds is a duration as JUnit has it.
func seconds(s report.Seconds) string { return fmt.Sprintf("%.3f", time.Duration(s).Seconds()) }
