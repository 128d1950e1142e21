package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/golden"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/reporttest"
)

func TestJSON(t *testing.T) {
	for _, s := range reporttest.Samples() {
		if s.Name == "hundred" {
			continue // TestHundred looks at what matters in it
		}
		t.Run(s.Name, func(t *testing.T) {
			golden.Assert(t, ".json", jsonOf(t, report.Summarize(s.Events...)))
		})
	}
}

// The fold is pure: the same events give the same summary, however often it is
// asked for on the way, and asking changes nothing.
func TestFoldIsPure(t *testing.T) {
	for _, sample := range reporttest.Samples() {
		want := jsonOf(t, report.Summarize(sample.Events...))
		f := report.NewFold()
		for i, e := range sample.Events {
			f.Emit(e)
			if i%7 == 0 {
				spoil(reflect.ValueOf(new(f.Summary())).Elem())
			}
		}
		if got := jsonOf(t, f.Summary()); !bytes.Equal(got, want) {
			t.Errorf("%s: a summary shares memory with the fold", sample.Name)
		}
		if got := jsonOf(t, f.Summary()); !bytes.Equal(got, want) {
			t.Errorf("%s: asking twice gives two answers", sample.Name)
		}
	}
}

// spoil overwrites every exported string below v.
func spoil(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.CanSet() {
			v.SetString("spoiled")
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type() != reflect.TypeFor[time.Time]() {
				spoil(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			spoil(v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			spoil(v.Elem())
		}
	}
}

// Events stay as they were given.
func TestFoldDoesNotChangeEvents(t *testing.T) {
	before, err := json.Marshal(reporttest.ImagePull())
	if err != nil {
		t.Fatal(err)
	}
	events := reporttest.ImagePull()
	spoil(reflect.ValueOf(new(report.Summarize(events...))).Elem())
	after, err := json.Marshal(events)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the events were changed")
	}
}

// The report can be read back into the type and says the same again.
func TestJSONReadsBack(t *testing.T) {
	for _, sample := range reporttest.Samples() {
		want := jsonOf(t, report.Summarize(sample.Events...))
		var s report.Summary
		if err := json.Unmarshal(want, &s); err != nil {
			t.Fatal(err)
		}
		var got, expected any
		if err := errors.Join(json.Unmarshal(jsonOf(t, s), &got), json.Unmarshal(want, &expected)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, expected) {
			t.Errorf("%s: differs after reading back", sample.Name)
		}
	}
}

func TestOutcomes(t *testing.T) {
	want := map[string]struct {
		result  report.Outcome
		label   string
		changed bool
	}{
		"changes":    {report.OutcomeSuccess, "LIVE", true},
		"no-changes": {report.OutcomeNoChanges, "LIVE", false},
		"image-pull": {report.OutcomeFailed, "NOT LIVE", true},
		"invalid":    {report.OutcomeInvalid, "NOT LIVE", false},
		"refused":    {report.OutcomeRefused, "REFUSED", false},
		"cancelled":  {report.OutcomeCancelled, "CANCELLED", true},
		"prune-kept": {report.OutcomeFailed, "NOT LIVE", true},
		"hundred":    {report.OutcomeFailed, "NOT LIVE", true},
		"plan":       {report.OutcomeSuccess, "PLAN", true},
		"hostile":    {report.OutcomeUnhealthy, "NOT LIVE", true},
	}
	for _, sample := range reporttest.Samples() {
		s := report.Summarize(sample.Events...)
		w := want[sample.Name]
		if s.Result != w.result || s.Label() != w.label || s.Changed != w.changed || !s.Done() {
			t.Errorf("%s: %s, %s, changed %v; want %+v", sample.Name, s.Result, s.Label(), s.Changed, w)
		}
		f := report.NewFold()
		for _, e := range sample.Events[:len(sample.Events)-1] {
			f.Emit(e)
		}
		if s := f.Summary(); s.Result != report.OutcomeRunning || s.Done() || s.Label() != "RUNNING" {
			t.Errorf("%s: before its end the result is %s", sample.Name, s.Result)
		}
	}
}

// Counts are the same from every side: the total, the rows, the objects.
func TestCountsAgree(t *testing.T) {
	for _, sample := range reporttest.Samples() {
		s := report.Summarize(sample.Events...)
		created, configured := 0, 0
		for _, r := range s.Rows {
			created += r.Counts.Created
			configured += r.Counts.Configured
		}
		if created != s.Counts.Created || configured != s.Counts.Configured {
			t.Errorf("%s: rows count %d and %d, the total %+v", sample.Name, created, configured, s.Counts)
		}
	}
	s := report.Summarize(reporttest.PruneKept()...)
	if want := (report.Counts{Unchanged: 9, Deleted: 2, Kept: 2}); s.Counts != want {
		t.Errorf("got %+v, want %+v", s.Counts, want)
	}
	if r := s.Row("flux-system/apps"); r.Counts.Deleted != 1 || r.Counts.Kept != 1 {
		t.Errorf("apps: %+v", r.Counts)
	}
	if s.Row("flux-system/gone") != nil {
		t.Error("a Kustomization that left Git has a row")
	}
}

// Rows come in the order in which Kustomizations ran, those that did not run
// after them, those that are still to come last.
func TestRowOrder(t *testing.T) {
	f := report.NewFold()
	for _, id := range []string{"a/one", "a/two", "a/three", "a/four", "b/four"} {
		f.Emit(event.NodeFound{Node: event.Node{ID: id}})
	}
	f.Emit(event.NodeStarted{Node: "a/three"})
	f.Emit(event.NodeFinished{Node: "a/two", Result: event.NotRun, BlockedBy: "a/three"})
	f.Emit(event.NodeStarted{Node: "a/one"})
	f.Emit(event.NodeStarted{Node: "a/three"}) // a second attempt
	s := f.Summary()
	var ids, names []string
	for _, r := range s.Rows {
		ids = append(ids, r.ID)
		names = append(names, r.Name)
	}
	if got, want := strings.Join(ids, " "), "a/three a/one a/two a/four b/four"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The namespace is shown where the name alone does not tell which.
	if got, want := strings.Join(names, " "), "three one two a/four b/four"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.Row("a/three").Blocks; len(got) != 1 || got[0] != "a/two" {
		t.Errorf("three blocks %q", got)
	}
}

// What an attempt changed stays changed when the next finds it done.
func TestRetryKeepsChanges(t *testing.T) {
	image := func(old, new string) []event.Image { return []event.Image{{Container: "app", Old: old, New: new}} }
	apply := func(a event.Action, images []event.Image) event.Event {
		return event.ObjectApplied{Change: event.Change{Node: "a/b", Object: "Deployment/x", Action: a, Images: images}}
	}
	for _, tt := range []struct {
		name   string
		events []event.Event
		want   event.Action
	}{
		{"changed, then unchanged", []event.Event{apply(event.Configured, image("1", "2")), apply(event.Unchanged, nil)}, event.Configured},
		{"created, then changed", []event.Event{apply(event.Created, image("", "2")), apply(event.Configured, nil)}, event.Created},
		{"unchanged, then changed", []event.Event{apply(event.Unchanged, nil), apply(event.Configured, image("1", "2"))}, event.Configured},
		{"changed, then made again", []event.Event{apply(event.Configured, image("1", "2")), apply(event.Recreated, nil)}, event.Recreated},
		{"skipped, then unchanged", []event.Event{apply(event.Skipped, nil), apply(event.Unchanged, nil)}, event.Unchanged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := report.Summarize(tt.events...)
			if len(s.Rows[0].Objects) != 1 || s.Rows[0].Objects[0].Action != tt.want {
				t.Fatalf("objects %+v", s.Rows[0].Objects)
			}
			if changed := tt.want != event.Unchanged; s.Changed != changed {
				t.Errorf("changed %v", s.Changed)
			}
			if tt.want != event.Unchanged && (len(s.Images) != 1 || s.Images[0].New != "2") {
				t.Errorf("images %+v", s.Images)
			}
		})
	}
}

// The worst failure is first: what stopped the run, then what held up most.
func TestFailureOrder(t *testing.T) {
	fail := func(text string) event.Failure { return event.Failure{Phase: "apply", Text: text} }
	events := []event.Event{
		event.NodeFinished{Node: "a/small", Result: event.Failed, Failures: []event.Failure{fail("small")}},
		event.NodeFinished{Node: "a/ill", Result: event.Unhealthy, Failures: []event.Failure{fail("ill"), fail("ill too")}},
		event.NodeFinished{Node: "a/ill2", Result: event.Unhealthy, Failures: []event.Failure{fail("ill2")}},
		event.NodeFinished{Node: "a/big", Result: event.Failed, Failures: []event.Failure{fail("big")}},
		event.NodeFinished{Node: "a/x", Result: event.NotRun, BlockedBy: "a/big"},
		event.NodeFinished{Node: "a/y", Result: event.NotRun, BlockedBy: "a/big"},
		event.NodeFinished{Node: "a/z", Result: event.NotRun, BlockedBy: "a/ill"},
		event.PruneFinished{Failures: []event.Failure{{Phase: "prune", Text: "prune"}}},
		event.RunFinished{Verdict: event.VerdictFailed, Failures: []event.Failure{
			{Phase: "record", Text: "record"}, {Phase: "cluster", Text: "run"}, fail("small"), {Phase: "prune", Text: "prune"}}},
	}
	s := report.Summarize(events...)
	var got []string
	for _, f := range s.Failures {
		got = append(got, f.Text)
	}
	if got, want := strings.Join(got, ", "), "run, small, prune, big, ill, ill too, ill2, record"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := strings.Join(s.FailedNodes(), " "), "a/small a/ill a/ill2 a/big"; got != want {
		t.Errorf("failed nodes %q, want %q", got, want)
	}
}

func TestNoticesAreCountedOnce(t *testing.T) {
	s := report.Summarize(reporttest.Changes()...)
	if len(s.Notices) != 2 || s.Notices[0].Count != 2 || s.Notices[1].Count != 1 {
		t.Errorf("notices %+v", s.Notices)
	}
}

func TestHundred(t *testing.T) {
	s := report.Summarize(reporttest.Hundred()...)
	if len(s.Rows) != 101 || len(s.Graph.Nodes) != 101 || len(s.Graph.Edges) != 100+90 {
		t.Errorf("%d rows, %d nodes, %d edges", len(s.Rows), len(s.Graph.Nodes), len(s.Graph.Edges))
	}
	if s.Counts.Created != 1640 || s.Counts.Unchanged != 1 {
		t.Errorf("counts %+v", s.Counts)
	}
	if len(s.Failures) != 13 || s.Failures[0].Node != "flux-system/team-3-04" {
		t.Errorf("%d failures, first of %s", len(s.Failures), s.Failures[0].Node)
	}
	if len(report.TreeLines(&s)) != 101 {
		t.Errorf("the tree has %d lines", len(report.TreeLines(&s)))
	}
}

// A graph that makes no sense still gives every node one line.
func TestTreeOfOddGraphs(t *testing.T) {
	s := report.Summary{Graph: report.Graph{
		Nodes: []report.GraphNode{{ID: "a", Name: "a"}, {ID: "b", Name: "b"}, {ID: "c", Name: "c"}},
		Edges: []report.Edge{{From: "a", To: "b", Kind: "parent"}, {From: "b", To: "a", Kind: "parent"},
			{From: "elsewhere", To: "c", Kind: "parent"}, {From: "c", To: "c", Kind: "dependsOn"}},
	}}
	if got, want := strings.Join(report.TreeLines(&s), "\n"), "c:  (after c)\na: \n  b: "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A run that fails before anything is known says so without falling over.
func TestEarlyEnd(t *testing.T) {
	s := report.Summarize(
		event.RunStarted{At: event.At{Time: reporttest.Start}, Command: "run", Repo: "/nowhere"},
		event.RunFinished{At: event.At{Time: reporttest.Start.Add(time.Second)}, Verdict: event.VerdictInvalid, ExitCode: 3,
			Failures: []event.Failure{{Phase: "source", Reason: "NotARepository", Text: `"/nowhere" is not a Git repository`, Hint: "pass --repo"}}},
	)
	var lines []string
	for _, l := range report.VerdictLines(&s) {
		lines = append(lines, l.String())
	}
	want := "NOT LIVE  nothing was touched: \"/nowhere\" is not a Git repository\n      hint: pass --repo"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, v := range []event.Verdict{event.Live, event.VerdictFailed, event.VerdictInvalid, event.VerdictRefused, event.VerdictUnhealthy, event.VerdictCancelled} {
		s := report.Summarize(event.RunFinished{Verdict: v})
		if lines := report.VerdictLines(&s); len(lines) == 0 || strings.TrimSpace(lines[0].Text) == "" {
			t.Errorf("%s: an empty verdict", v)
		}
	}
}

// A success says what had no part in it.
func TestSuccessNamesWhatWasLeftOut(t *testing.T) {
	s := report.Summarize(
		event.SourceOpened{Revision: "main@sha1:4f2c1d9a7be0f3c5d6e8a9b0c1d2e3f405162738"},
		event.NodeFinished{Node: "a/one", Result: event.Ready},
		event.NodeFinished{Node: "a/two", Result: event.Suspended},
		event.NodeFinished{Node: "a/three", Result: event.Excluded},
		event.NodeFinished{Node: "a/four", Result: event.Excluded},
		event.RunFinished{Verdict: event.Live, Duration: time.Second},
	)
	if want := "main@4f2c1d9: no changes, 0 unchanged in 1.0s; of 4 Kustomizations 1 suspended, 2 left out"; s.Headline != want {
		t.Errorf("got  %q\nwant %q", s.Headline, want)
	}
}
