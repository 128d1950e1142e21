package report_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

func text(lines []report.Line) string {
	var out []string
	for _, l := range lines {
		out = append(out, strings.TrimRight(l.String(), " "))
	}
	return strings.Join(out, "\n")
}

// No line of any sample is longer than a line may be or holds a control
// character, in any mode.
func TestLinesAreClean(t *testing.T) {
	for _, sample := range reporttest.Samples() {
		for _, o := range []report.LiveOptions{{}, {Verbose: true}, {Quiet: true}, {Grouped: true, Verbose: true}} {
			l := report.NewLive(o)
			check := func(lines []report.Line) {
				for _, line := range lines {
					s := line.String()
					if len(s) > 2*report.MaxLine || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
						t.Errorf("%s: %q", sample.Name, s)
					}
				}
			}
			for _, e := range sample.Events {
				check(l.Event(e))
				check(l.Tick(e.When()))
				if e, ok := e.(event.NodeFinished); ok {
					check(l.DetailLines(e.Node))
				}
			}
		}
	}
}

// Health is told when it changes, and progress not more often than every five
// seconds; a failure is always told.
func TestHealthIsNotNoisy(t *testing.T) {
	l := report.NewLive(report.LiveOptions{})
	tell := func(second int, status, message string) string {
		return text(l.Event(event.ObjectHealth{At: event.At{Time: reporttest.Start.Add(time.Duration(second) * time.Second)},
			Node: "a/web", Object: "Deployment/x", Status: status, Message: message}))
	}
	for _, step := range []struct {
		second          int
		status, message string
		told            bool
	}{
		{0, "InProgress", "0 of 3", true},
		{1, "InProgress", "1 of 3", false},
		{4, "InProgress", "2 of 3", false},
		{6, "InProgress", "3 of 3", true},
		{60, "InProgress", "3 of 3", false},
		{61, "Failed", "quota", true},
		{61, "Failed", "quota", false},
		{62, "InProgress", "again", true},
		{63, "Current", "ready", false},
		{70, "InProgress", "", false},
	} {
		if got := tell(step.second, step.status, step.message); (got != "") != step.told {
			t.Errorf("%+v: got %q", step, got)
		}
	}
}

// A Kustomization with many changed objects gets a bounded number of lines;
// the line at its end counts all.
func TestObjectLinesAreBounded(t *testing.T) {
	l := report.NewLive(report.LiveOptions{})
	lines := 0
	for i := range 100 {
		lines += len(l.Event(event.ObjectApplied{Change: event.Change{Node: "a/web", Object: "ConfigMap/" + strings.Repeat("x", i+1), Action: event.Created}}))
	}
	if lines != 20 {
		t.Errorf("%d lines", lines)
	}
	if got := text(l.Event(event.NodeFinished{Node: "a/web", Result: event.Ready})); !strings.Contains(got, "100 created") {
		t.Errorf("got %q", got)
	}
}

func TestHeartbeat(t *testing.T) {
	l := report.NewLive(report.LiveOptions{})
	at := func(second int) event.At {
		return event.At{Time: reporttest.Start.Add(time.Duration(second) * time.Second)}
	}
	beat := func(second int) string { return text(l.Tick(at(second).Time)) }
	want := func(second int, text string) {
		t.Helper()
		if got := beat(second); got != text {
			t.Errorf("after %ds\ngot  %q\nwant %q", second, got, text)
		}
	}
	want(1, "")
	l.Event(event.RunStarted{At: at(0), Command: "run"})
	want(60, "… still running after 1m: reading the source")
	l.Event(event.SourceOpened{At: at(61), Revision: "main@sha1:01"})
	want(120, "… still running after 2m: building and reaching the cluster")
	l.Event(event.ClusterReached{At: at(121), Server: "https://x"})
	want(180, "… still running after 3m: planning")
	l.Event(event.Planned{At: at(181)})
	for _, id := range []string{"a/one", "a/two", "a/three", "a/four", "a/five"} {
		l.Event(event.NodeStarted{At: at(190), Node: id, Attempt: 1, Attempts: 3})
	}
	l.Event(event.NodeApplied{At: at(200), Node: "a/one", Waiting: 2, Timeout: 5 * time.Minute})
	l.Event(event.ObjectHealth{At: at(205), Node: "a/one", Object: "Job/j", Status: "Current"})
	l.Event(event.ObjectHealth{At: at(210), Node: "a/one", Object: "Deployment/x", Status: "InProgress", Message: "1 of 3"})
	l.Event(event.NodeRetrying{At: at(211), Node: "a/two", After: time.Minute})
	want(240, "… still running after 4m: one has waited 40s of 5m for Deployment/x (1 of 3; InProgress for 30s); "+
		"two is waiting for its next attempt; three has been applying for 50s; and 2 more Kustomizations")
	for _, id := range []string{"a/one", "a/two", "a/three", "a/four", "a/five"} {
		l.Event(event.NodeFinished{At: at(250), Node: id, Result: event.Ready})
	}
	l.Event(event.PruneStarted{At: at(251), Objects: 2})
	want(300, "… still running after 5m: pruning")
	l.Event(event.RunFinished{At: at(301), Verdict: event.Live})
	want(360, "")
}
