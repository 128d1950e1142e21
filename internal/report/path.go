package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Slowest names what took the longest.
type Slowest struct {
	// The Kustomization.
	Node string `json:"kustomization"`
	// `roll-out` if most of the time was spent waiting for health, else `apply`.
	Part string `json:"part"`
	// How long that took.
	Duration Seconds `json:"seconds"`
}

// Path is the chain of Kustomizations that decided how long a run took.
type Path struct {
	// From the first start of a Kustomization to the last end of one.
	Duration Seconds `json:"seconds"`
	// The chain, first to last. Each begins the moment the one before let it, so their times add up to that of the whole. A Kustomization that waits for those that it holds can stand before and after them.
	Steps []PathStep `json:"steps"`
}

// PathStep is one Kustomization's part of a Path.
type PathStep struct {
	// The Kustomization.
	Node string `json:"kustomization"`
	// How long the chain stood at it.
	Duration Seconds `json:"seconds"`
	// The part of it that came after its objects were applied: the wait for health.
	RollOut Seconds `json:"rollOutSeconds"`
}

// turn is what is known of when a Kustomization ran. Times count from the
// beginning of the first.
type turn struct {
	id, parent string
	needs      []string
	// awaitsChildren is set if it is ready only after its children are.
	awaitsChildren bool
	// applied is when its objects were, negative if they never were; ended is
	// when it was ready or failed.
	applied, ended time.Duration
}

// moment is the end of a part of a turn, and what it had to wait for.
type moment struct {
	id    string
	ready bool // else applied
	at    time.Duration
	after []*moment
}

// lead is when the last of what a moment waited for was there, and which that
// was; nil if it waited for nothing.
func (m *moment) lead() (time.Duration, *moment) {
	var last *moment
	for _, before := range m.after {
		if last == nil || before.at > last.at || before.at == last.at && before.id < last.id {
			last = before
		}
	}
	if last == nil {
		return 0, nil
	}
	return min(last.at, m.at), last
}

// criticalPath finds the chain of turns that ended last, each of which began when
// the one before it let it, and for every turn how much later it could have ended
// without the whole ending later. It is nil without turns.
//
// A dependent comes after its dependency was ready, a child after its parent was
// applied, a parent that waits for its children after these were ready. The wait
// for a free worker counts for the one that waits.
func criticalPath(turns []turn) (*Path, map[string]time.Duration) {
	moments := momentsOf(turns)
	if len(moments) == 0 {
		return nil, nil
	}
	last := slices.MaxFunc(moments, func(a, b *moment) int {
		return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(b.id, a.id))
	})
	path := &Path{Duration: Seconds(last.at)}
	now := last.at
	for m := last; m != nil; {
		began, before := m.lead()
		began = min(began, now) // events of the same instant may come in any order
		if n := len(path.Steps); n == 0 || path.Steps[n-1].Node != m.id {
			path.Steps = append(path.Steps, PathStep{Node: m.id})
		}
		step := &path.Steps[len(path.Steps)-1]
		step.Duration += Seconds(now - began)
		if m.ready {
			step.RollOut += Seconds(now - began)
		}
		m, now = before, began
	}
	slices.Reverse(path.Steps)
	return path, slackOf(moments, last.at)
}

// momentsOf returns the ends of the parts of turns, each after those that it
// waited for.
func momentsOf(turns []turn) []*moment {
	applied, ready, byID := map[string]*moment{}, map[string]*moment{}, map[string]turn{}
	for _, t := range turns {
		byID[t.id] = t
		ready[t.id] = &moment{id: t.id, ready: true, at: t.ended}
		if t.applied >= 0 {
			applied[t.id] = &moment{id: t.id, at: t.applied}
		}
	}
	for _, t := range turns {
		first := cmp.Or(applied[t.id], ready[t.id])
		for _, need := range t.needs {
			first.wait(ready[need])
		}
		first.wait(applied[t.parent])
		if first != ready[t.id] {
			ready[t.id].wait(first)
		}
		if parent, ok := byID[t.parent]; ok && parent.awaitsChildren {
			ready[t.parent].wait(ready[t.id])
		}
	}
	var moments []*moment
	for _, t := range turns {
		if m := applied[t.id]; m != nil {
			moments = append(moments, m)
		}
		moments = append(moments, ready[t.id])
	}
	return ordered(moments)
}

// wait adds what a moment waits for, if there is such a thing.
func (m *moment) wait(before *moment) {
	if before != nil && before != m {
		m.after = append(m.after, before)
	}
}

// ordered puts moments after those that they wait for; what a cycle would need is
// left out of it, since no run has one.
func ordered(moments []*moment) []*moment {
	var order []*moment
	state := map[*moment]int{}
	var visit func(m *moment)
	visit = func(m *moment) {
		state[m] = 1
		m.after = slices.DeleteFunc(m.after, func(before *moment) bool { return state[before] == 1 })
		for _, before := range m.after {
			if state[before] == 0 {
				visit(before)
			}
		}
		state[m] = 2
		order = append(order, m)
	}
	for _, m := range moments {
		if state[m] == 0 {
			visit(m)
		}
	}
	return order
}

// slackOf returns for each turn how much later it could have ended. What comes
// after a moment would have moved with it and taken as long.
func slackOf(moments []*moment, end time.Duration) map[string]time.Duration {
	latest := map[*moment]time.Duration{}
	for _, m := range moments {
		latest[m] = end
	}
	slack := map[string]time.Duration{}
	for _, m := range slices.Backward(moments) {
		began, _ := m.lead()
		for _, before := range m.after {
			latest[before] = min(latest[before], latest[m]-(m.at-began))
		}
		if m.ready {
			slack[m.id] = max(0, latest[m]-m.at)
		}
	}
	return slack
}

// turns are the rows that ran, as criticalPath takes them.
func (f *Fold) turns() []turn {
	var turns []turn
	for _, r := range f.ran {
		if !r.ended || r.Finished.IsZero() {
			continue
		}
		t := turn{id: r.ID, parent: r.Parent, needs: r.DependsOn, awaitsChildren: r.awaitsChildren, applied: -1, ended: max(0, r.Finished.Sub(f.ran[0].Started))}
		if !r.firstApplied.IsZero() {
			t.applied = min(t.ended, max(0, r.firstApplied.Sub(f.ran[0].Started)))
		}
		turns = append(turns, t)
	}
	return turns
}

// findPath completes a summary with the critical path. A run of which parts have
// not ended has none yet.
func (f *Fold) findPath(s *Summary) {
	if s.Finished.IsZero() {
		return
	}
	path, slack := criticalPath(f.turns())
	s.Path = path
	for i := range s.Rows {
		if spare, ok := slack[s.Rows[i].ID]; ok {
			s.Rows[i].Slack = Seconds(spare)
		}
	}
}

// CriticalText is the critical path as people read it, empty if it has nothing to
// say: it took no time to speak of, or is a single Kustomization.
func (s *Summary) CriticalText() string {
	if s.Path == nil || len(s.Path.Steps) < 2 || time.Duration(s.Path.Duration) < noteworthy {
		return ""
	}
	const shown = 6
	var names []string
	var longest PathStep
	for _, step := range s.Path.Steps {
		if name := s.Name(step.Node); !slices.Contains(names, name) {
			names = append(names, name)
		}
		if step.RollOut > longest.RollOut {
			longest = step
		}
	}
	if left := len(names) - shown; left > 0 {
		names = slices.Concat(names[:shown-1], []string{fmt.Sprintf("… %d more …", left)}, names[len(names)-1:])
	}
	text := fmt.Sprintf("critical path: %s, %s", strings.Join(names, " → "), s.Path.Duration)
	if time.Duration(longest.RollOut) >= noteworthy {
		text += fmt.Sprintf(" (the roll-out of %s %s)", s.Name(longest.Node), longest.RollOut)
	}
	return text
}
