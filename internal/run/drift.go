package run

import (
	"cmp"
	"context"
	"fmt"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/status"
)

// compare tells drift: what a run of the commit on record would change. That is
// what a plan of it says, so a plan is made.
func (r *run) compare(ctx context.Context) []event.Failure {
	for i, id := range r.roots {
		s := &r.status.Roots[i]
		root := r.recordedRoot(id)
		if root == nil || root.Started.Commit == "" {
			s.DriftError = "no commit is on record"
			continue
		}
		if len(r.roots) > 1 && !r.options.RepoChosen && r.options.Path == "" && r.options.Root == "" {
			return []event.Failure{{Phase: "record", Reason: "RootRequired", Text: "drift can be told of one root at a time, and there are several",
				Hint: "name one of: " + r.rootNames(r.roots)}}
		}
		o := r.options
		o.Command, o.Path, o.Wait = CommandPlan, root.Path, cmp.Or(o.Wait, health.Auto)
		o.Source.Revision = cmp.Or(o.Source.Revision, root.Started.Commit)
		watch := &planWatch{}
		outcome := Run(ctx, o, Sinks{Events: watch, Learn: r.sinks.Learn, Public: r.sinks.Public})
		if ctx.Err() != nil {
			return []event.Failure{interrupted(ctx)}
		}
		if watch.planned == nil || outcome.Verdict == event.VerdictInvalid {
			s.DriftError = watch.why()
			f := event.Failure{Phase: "plan", Reason: "DriftUnknown", Node: id.String(), Text: fmt.Sprintf("%s: the commit on record cannot be compared: %s", id, s.DriftError),
				Hint: "give --repo, and the variables that the run was given; --no-health and no --drift need no repository"}
			return []event.Failure{f}
		}
		watch.fill(s)
	}
	return nil
}

// planWatch keeps what a plan tells.
type planWatch struct {
	planned  *event.Planned
	failures []event.Failure
}

// Emit implements event.Sink.
func (w *planWatch) Emit(e event.Event) {
	switch e := e.(type) {
	case event.Planned:
		w.planned = &e
	case event.NodeFinished:
		w.failures = append(w.failures, e.Failures...)
	case event.RunFinished:
		w.failures = append(w.failures, e.Failures...)
	}
}

func (w *planWatch) why() string {
	if len(w.failures) == 0 {
		return "the plan did not come to its end"
	}
	text := w.failures[0].Text
	if more := len(w.failures) - 1; more > 0 {
		text += fmt.Sprintf(" (and %s)", count(more, "more problem", "more problems"))
	}
	return text
}

// fill counts the changes of a plan by Kustomization.
func (w *planWatch) fill(s *status.Root) {
	for i := range s.Kustomizations {
		k := &s.Kustomizations[i]
		var drifted []status.Drift
		for _, c := range w.planned.Changes {
			if c.Node != k.ID || c.Action == event.Skipped || c.Action == event.Kept {
				continue
			}
			d := status.Drift{Object: c.Object, Action: string(c.Action)}
			for _, f := range c.Fields {
				d.Fields = append(d.Fields, f.Path)
			}
			drifted = append(drifted, d)
		}
		n := len(drifted)
		k.Drift, k.Drifted = &n, drifted
	}
}
