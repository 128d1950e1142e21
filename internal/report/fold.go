package report

import (
	"slices"
	"strings"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// Fold takes events and knows at any moment what a Summary would say. It is a
// Sink. A Fold is for one goroutine; the Summaries it returns share nothing
// with it. Make one with NewFold.
type Fold struct {
	s     Summary
	rows  map[string]*Row
	found []*Row // in the order in which they were announced
	ran   []*Row // in the order of their first start
	ended []*Row // that ended without a start, in that order
	names map[string]int
	// objects finds an object of a row by the row's id and its own name.
	objects map[[2]string]int
	notices map[Notice]int
	run     []Failure // what RunFinished gave
	verdict event.Verdict
	last    time.Time
}

// NewFold returns a Fold that has seen nothing.
func NewFold() *Fold {
	return &Fold{
		s: Summary{
			Version: Version, Result: OutcomeRunning, Pruned: true, Saved: true,
			Images: []Image{}, Failures: []Failure{}, Notices: []Notice{},
		},
		rows: map[string]*Row{}, names: map[string]int{}, objects: map[[2]string]int{}, notices: map[Notice]int{},
	}
}

// Summarize folds a whole sequence.
func Summarize(events ...event.Event) Summary {
	f := NewFold()
	for _, e := range events {
		f.Emit(e)
	}
	return f.Summary()
}

// Emit takes one event.
func (f *Fold) Emit(e event.Event) {
	f.last = e.When()
	switch e := e.(type) {
	case event.RunStarted:
		f.s.Command, f.s.Sluice, f.s.Started, f.s.RunURL, f.s.Actor = e.Command, e.Version, e.Time.UTC(), e.RunURL, e.Actor
		f.s.DryRun = e.DryRun
		f.s.Source.Repo, f.s.Source.Path = e.Repo, e.Path
	case event.SourceOpened:
		f.s.Source = Source{Repo: f.s.Source.Repo, URL: e.URL, Path: e.Path, Revision: e.Revision, Commit: e.Commit,
			Subject: e.Subject, Author: e.Author, Authored: e.Authored}
	case event.NodeFound:
		f.foundNode(e.Node)
	case event.BuildsFinished:
		f.s.Builds = &Builds{Total: e.Builds, Cached: e.Cached, Saved: Seconds(e.Saved)}
	case event.ClusterReached:
		f.s.Cluster = &Cluster{Context: e.Context, Server: e.Server, ServerVersion: e.ServerVersion, Root: e.Root,
			Previous: e.Previous, Relation: e.Relation, Ahead: e.Ahead, Behind: e.Behind}
	case event.Planned:
		f.planned(e)
	case event.Notice:
		f.notice(e)
	case event.NodeStarted:
		r := f.row(e.Node)
		if !r.begun {
			r.begun, r.Started = true, e.Time.UTC()
			f.ran = append(f.ran, r)
		}
		r.State, r.Attempts, r.MaxAttempts, r.appliedAt = Running, e.Attempt, e.Attempts, time.Time{}
	case event.ObjectApplied:
		f.applied(e.Change)
	case event.NodeApplied:
		r := f.row(e.Node)
		r.appliedAt, r.timeout, r.Gate = e.Time, e.Timeout, e.Waiting
		if r.firstApplied.IsZero() {
			r.firstApplied = e.Time.UTC()
		}
		if e.Waiting > 0 {
			r.State = Waiting
		}
	case event.ObjectHealth:
		o := f.object(f.row(e.Node), e.Object)
		if o.Health != e.Status {
			o.healthSince = e.Time
		}
		o.Health, o.Message = e.Status, e.Message
	case event.NodeRetrying:
		f.row(e.Node).State = Retrying
		f.retries().Kustomizations++
	case event.NodeFinished:
		f.finishedNode(e)
	case event.PruneStarted:
		f.prune().Planned = e.Objects
	case event.ObjectPruned:
		f.pruned(e.Change)
	case event.PruneFinished:
		p := f.prune()
		p.Duration, p.Done = Seconds(e.Duration), true
		for _, failure := range e.Failures {
			p.Failures = append(p.Failures, failureOf(failure, ""))
		}
	case event.RunFinished:
		f.verdict, f.s.ExitCode, f.s.Finished, f.s.Duration = e.Verdict, e.ExitCode, e.Time.UTC(), Seconds(e.Duration)
		f.s.Pruned, f.s.Saved, f.s.Next = e.Pruned, e.Saved, e.Next
		if e.Repeated > 0 {
			f.retries().Requests = e.Repeated
		}
		for _, failure := range e.Failures {
			f.run = append(f.run, failureOf(failure, ""))
		}
	}
}

// row returns the row of a Kustomization, making it if no NodeFound announced
// it.
func (f *Fold) row(id string) *Row {
	if r := f.rows[id]; r != nil {
		return r
	}
	r := &Row{ID: id, State: Pending, Objects: []Object{}}
	f.rows[id] = r
	f.found = append(f.found, r)
	f.names[bareName(id)]++
	return r
}

// bareName is the part of an id after its namespace.
func bareName(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// name returns the name to show for an id: without the namespace if that is
// enough to tell it from all others.
func (f *Fold) name(id string) string {
	if short := bareName(id); f.names[short] == 1 && f.rows[id] != nil {
		return short
	}
	return id
}

func (f *Fold) foundNode(n event.Node) {
	r := f.row(n.ID)
	r.Parent, r.DependsOn, r.Path, r.File, r.Line = n.Parent, slices.Clone(n.DependsOn), n.Path, n.File, n.Line
	r.Revision, r.Built, r.Deferred, r.Cluster = n.Revision, n.Objects, n.Deferred, n.Cluster
	r.suspended, r.excluded, r.awaitsChildren = n.Suspended, n.Excluded, n.AwaitsChildren
}

func (f *Fold) planned(e event.Planned) {
	p := &Plan{Unchanged: e.Unchanged, Changes: []Object{}}
	for _, c := range e.Changes {
		p.count(c.Action)
		p.Changes = append(p.Changes, objectOf(c))
	}
	for _, t := range e.Turns {
		p.Turns = append(p.Turns, Turn{Node: t.Node, Unchanged: t.Unchanged, WaitsFor: slices.Clone(t.WaitsFor), Timeout: Seconds(t.Timeout)})
	}
	f.s.Planned = p
	if !f.s.Started.IsZero() {
		f.s.PlanDuration = Seconds(e.Time.Sub(f.s.Started))
	}
}

// notice counts equal notices as one.
func (f *Fold) notice(e event.Notice) {
	n := Notice{Level: e.Level, Code: e.Code, Text: e.Text, Hint: e.Hint, Node: e.Node, Object: e.Object, File: e.File, Line: e.Line}
	i, ok := f.notices[n]
	if !ok {
		i = len(f.s.Notices)
		f.notices[n] = i
		f.s.Notices = append(f.s.Notices, n)
	}
	f.s.Notices[i].Count++
}

func objectOf(c event.Change) Object {
	o := Object{Node: c.Node, Object: c.Object, APIVersion: c.APIVersion, File: c.File, Action: c.Action, Reason: c.Reason}
	for _, i := range c.Images {
		o.Images = append(o.Images, ImageChange(i))
	}
	for _, field := range c.Fields {
		o.Fields = append(o.Fields, Field(field))
	}
	return o
}

// object returns the entry of an object in its row, making it if it is new.
// It is valid until the next call.
func (f *Fold) object(r *Row, name string) *Object {
	key := [2]string{r.ID, name}
	i, ok := f.objects[key]
	if !ok {
		i = len(r.Objects)
		f.objects[key] = i
		r.Objects = append(r.Objects, Object{Node: r.ID, Object: name})
	}
	return &r.Objects[i]
}

// wrote reports whether an action changed the cluster.
func wrote(a event.Action) bool {
	switch a {
	case event.Created, event.Configured, event.Recreated, event.Deleted:
		return true
	}
	return false
}

// applied takes what was done to an object. After a retry an object comes
// again; what counts is the difference that the run made as a whole, so a
// change is not forgotten because the second attempt found it done.
func (f *Fold) applied(c event.Change) {
	o := f.object(f.row(c.Node), c.Object)
	n := objectOf(c)
	o.APIVersion, o.File = n.APIVersion, n.File
	if wrote(o.Action) && (!wrote(c.Action) || o.Action != event.Configured) {
		return
	}
	o.Action, o.Reason = n.Action, n.Reason
	for _, image := range n.Images {
		i := slices.IndexFunc(o.Images, func(have ImageChange) bool { return have.Container == image.Container })
		if i < 0 {
			o.Images = append(o.Images, image)
		} else {
			o.Images[i].New = image.New
		}
	}
}

func (f *Fold) finishedNode(e event.NodeFinished) {
	r := f.row(e.Node)
	if !r.begun && !r.ended {
		f.ended = append(f.ended, r)
	}
	r.ended = true
	r.State, r.BlockedBy, r.Finished = State(e.Result), e.BlockedBy, e.Time.UTC()
	r.Duration, r.Waited = Seconds(e.Duration), Seconds(e.Waited)
	r.Failures = nil
	for _, failure := range e.Failures {
		r.Failures = append(r.Failures, failureOf(failure, r.ID))
	}
}

func (f *Fold) retries() *Retries {
	if f.s.Retries == nil {
		f.s.Retries = &Retries{}
	}
	return f.s.Retries
}

func (f *Fold) prune() *Prune {
	if f.s.Prune == nil {
		f.s.Prune = &Prune{Objects: []Object{}}
	}
	return f.s.Prune
}

func (f *Fold) pruned(c event.Change) {
	p := f.prune()
	p.Objects = append(p.Objects, objectOf(c))
}

// failureOf copies a failure, which belongs to node unless it names another.
func failureOf(e event.Failure, node string) Failure {
	failure := Failure{Phase: e.Phase, Reason: e.Reason, Text: e.Text, Hint: e.Hint, Node: e.Node, Object: e.Object,
		Container: e.Container, File: e.File, Line: e.Line, Logs: slices.Clone(e.Logs), LogsNote: e.LogsNote}
	if failure.Node == "" {
		failure.Node = node
	}
	for _, w := range e.Events {
		failure.Events = append(failure.Events, Warning(w))
	}
	return failure
}

// Summary returns what is known so far.
func (f *Fold) Summary() Summary {
	s := f.s
	if s.Planned != nil {
		p := *s.Planned
		p.Changes, p.Turns = cloneObjects(p.Changes), slices.Clone(p.Turns)
		for i := range p.Turns {
			p.Turns[i].WaitsFor = slices.Clone(p.Turns[i].WaitsFor)
		}
		s.Planned = &p
	}
	if s.Cluster != nil {
		c := *s.Cluster
		s.Cluster = &c
	}
	if s.Retries != nil {
		r := *s.Retries
		s.Retries = &r
	}
	if s.Prune != nil {
		p := *s.Prune
		p.Objects, p.Failures = cloneObjects(p.Objects), slices.Clone(p.Failures)
		s.Prune = &p
	}
	s.Notices = slices.Clone(s.Notices)
	if s.Finished.IsZero() && !s.Started.IsZero() {
		s.Duration = Seconds(f.last.Sub(s.Started))
	}
	s.Rows = f.orderedRows()
	f.countDeletions(&s)
	s.Graph = f.graph()
	s.Counts = total(s.Rows, s.Prune)
	s.Changed = s.Counts.Created+s.Counts.Configured+s.Counts.Recreated+s.Counts.Deleted > 0
	if s.Preview() && s.Planned != nil {
		p := s.Planned
		s.Changed = p.Create+p.Configure+p.Recreate+p.Delete+p.Later > 0 || slices.ContainsFunc(f.found, func(r *Row) bool { return r.Deferred != "" })
	}
	s.Result = outcome(f.verdict, s.Changed)
	s.Images = images(&s)
	s.Failures = f.failures(&s)
	s.Slowest = slowest(s.Rows)
	f.findPath(&s)
	s.Headline = headline(&s)
	return s
}

// outcome is the verdict, with those told apart that may be without any change.
func outcome(v event.Verdict, changed bool) Outcome {
	switch v {
	case "":
		return OutcomeRunning
	case event.VerdictValid:
		return OutcomeSuccess
	case event.Live, event.VerdictPlanned, event.VerdictDestroyed:
		if changed {
			return OutcomeSuccess
		}
		return OutcomeNoChanges
	}
	return Outcome(v)
}

// orderedRows copies the rows in the order of the report: as they ran, then
// those that ended without running, then those that are still to come.
func (f *Fold) orderedRows() []Row {
	rows := make([]Row, 0, len(f.found))
	add := func(from *Row) {
		r := *from
		r.Name = f.name(r.ID)
		r.DependsOn = slices.Clone(r.DependsOn)
		r.Objects = cloneObjects(r.Objects)
		r.Failures = slices.Clone(r.Failures)
		for _, o := range r.Objects {
			r.Counts.add(o.Action)
		}
		for _, other := range f.found {
			if other.State == NotRun && other.BlockedBy == r.ID {
				r.Blocks = append(r.Blocks, other.ID)
			}
		}
		rows = append(rows, r)
	}
	for _, r := range f.ran {
		add(r)
	}
	for _, r := range f.ended {
		add(r)
	}
	for _, r := range f.found {
		if !r.begun && !r.ended {
			add(r)
		}
	}
	return rows
}

func cloneObjects(objects []Object) []Object {
	out := slices.Clone(objects)
	for i := range out {
		out[i].Images, out[i].Fields = slices.Clone(out[i].Images), slices.Clone(out[i].Fields)
	}
	return out
}

// countDeletions adds to each row what pruning did with its objects.
func (f *Fold) countDeletions(s *Summary) {
	if s.Prune == nil {
		return
	}
	for _, o := range s.Prune.Objects {
		if r := s.Row(o.Node); r != nil {
			r.Counts.add(o.Action)
		}
	}
}

// add counts one object.
func (c *Counts) add(a event.Action) {
	switch a {
	case event.Created:
		c.Created++
	case event.Configured:
		c.Configured++
	case event.Recreated:
		c.Recreated++
	case event.Unchanged:
		c.Unchanged++
	case event.Skipped:
		c.Skipped++
	case event.Deleted:
		c.Deleted++
	case event.Kept:
		c.Kept++
	}
}

// total adds up what was done. Deletions are taken from pruning itself, since
// a Kustomization that left Git has no row.
func total(rows []Row, prune *Prune) Counts {
	var c Counts
	for _, r := range rows {
		for _, o := range r.Objects {
			c.add(o.Action)
		}
	}
	if prune != nil {
		for _, o := range prune.Objects {
			c.add(o.Action)
		}
	}
	return c
}
