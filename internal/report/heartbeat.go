package report

import (
	"fmt"
	"strings"
	"time"
)

// maxWaits is how many Kustomizations a heartbeat names.
const maxWaits = 3

// Tick is the heartbeat: one line that says what is waited for and since
// when. now must come from the same clock as the events' times.
func (l *Live) Tick(now time.Time) []Line {
	if l.done || l.options.Quiet || l.fold.s.Started.IsZero() {
		return nil
	}
	text := fmt.Sprintf("still running after %s: %s", wholeDuration(now.Sub(l.fold.s.Started)), l.waits(now))
	return []Line{{Lead: "… ", Text: Clean(text), Tone: Dim}}
}

// waits says what the run is doing.
func (l *Live) waits(now time.Time) string {
	var parts []string
	more := 0
	for _, r := range l.fold.ran {
		if r.ended {
			continue
		}
		if len(parts) == maxWaits {
			more++
			continue
		}
		parts = append(parts, l.wait(r, now))
	}
	switch {
	case more > 0:
		return strings.Join(parts, "; ") + fmt.Sprintf("; and %s", count(more, "more Kustomization"))
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case l.fold.s.Prune != nil && !l.fold.s.Prune.Done:
		return "pruning"
	case l.fold.s.Planned != nil:
		return "nothing is running"
	case l.fold.s.Cluster != nil:
		return "planning"
	case l.fold.s.Source.Revision != "":
		return "building and reaching the cluster"
	}
	return "reading the source"
}

// wait says what one Kustomization waits for.
func (l *Live) wait(r *Row, now time.Time) string {
	name := l.fold.name(r.ID)
	switch r.State {
	case Waiting:
		text := fmt.Sprintf("%s has waited %s of %s for ", name, wholeDuration(now.Sub(r.appliedAt)), wholeDuration(r.timeout))
		var open []Object
		for _, o := range r.Objects {
			if o.Health != "" && o.Health != "Current" {
				open = append(open, o)
			}
		}
		if len(open) == 0 {
			return text + count(r.Gate, "object")
		}
		text += open[0].Object
		if open[0].Message != "" {
			text += fmt.Sprintf(" (%s; %s for %s)", open[0].Message, open[0].Health, wholeDuration(now.Sub(open[0].healthSince)))
		}
		if len(open) > 1 {
			text += fmt.Sprintf(" and %d more", len(open)-1)
		}
		return text
	case Retrying:
		return name + " is waiting for its next attempt"
	}
	return fmt.Sprintf("%s has been applying for %s", name, wholeDuration(now.Sub(r.Started)))
}
