package status

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicerun/sluice/internal/report"
)

// How much of each kind the table shows before it counts the rest; JSON has all.
const (
	maxUnready = 20
	maxDrifted = 20
	maxOrphans = 50
	maxKinds   = 5
)

// WriteTable writes the status for people. The error is the writer's.
func WriteTable(w io.Writer, s *Status) error {
	t := &table{now: s.Time}
	for i := range s.Roots {
		if i > 0 {
			t.line("")
		}
		t.root(s, &s.Roots[i])
	}
	if len(s.Roots) == 0 {
		t.line(fmt.Sprintf("sluice has nothing on record in namespace %s of %s", s.StateNamespace, place(s)))
	}
	t.orphans(s)
	t.repairs(s)
	if _, err := io.WriteString(w, t.text.String()); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// table is the text in progress.
type table struct {
	now  time.Time
	text strings.Builder
}

func (t *table) line(text string) {
	t.text.WriteString(strings.TrimRight(report.Clean(text), " "))
	t.text.WriteByte('\n')
}

func place(s *Status) string { return cmp.Or(s.Context, s.Server) }

func (t *table) root(s *Status, r *Root) {
	title := r.ID + " on " + place(s)
	if r.Path != "" {
		title += ": " + r.Path
		if r.URL != "" {
			title += " of " + r.URL
		}
	}
	t.line(title)
	switch {
	case r.Last == nil:
		t.field("last run", "not known: the record of the root is missing or cannot be read")
	case r.Last.Ended.IsZero() && r.Lock != nil && !r.Lock.Expired:
		t.field("running", t.run(*r.Last))
	case r.Last.Ended.IsZero():
		t.field("last run", t.run(*r.Last)+"; it was cut off")
	default:
		t.field("last run", t.run(*r.Last))
	}
	if r.Last == nil || r.Live != r.Last.Revision || r.Last.Result != "ready" {
		t.field("live", cmp.Or(report.ShortRevision(r.Live), "nothing as a whole"))
	}
	if r.Lock != nil {
		t.field("lock", t.lock(r.Lock))
	}
	t.kustomizations(s, r)
	if len(r.History) > 1 {
		label := "earlier"
		for _, past := range r.History[1:] {
			t.field(label, t.run(past))
			label = ""
		}
	}
}

func (t *table) field(label, text string) { t.line(fmt.Sprintf("  %-9s %s", label, text)) }

// run is a run in one line: commit, result, when and who.
func (t *table) run(r Run) string {
	text := r.Result
	if r.Revision != "" {
		text = report.ShortRevision(r.Revision) + " " + text
	}
	at := r.Ended
	if at.IsZero() {
		at = r.Started
	}
	if !at.IsZero() {
		text += ", " + t.age(at) + " ago"
	}
	if r.Actor != "" {
		text += ", by " + r.Actor
	}
	if r.RunURL != "" {
		text += ", " + r.RunURL
	}
	return text
}

func (t *table) lock(l *Lock) string {
	who := l.RunURL
	if who == "" {
		who = fmt.Sprintf("%q", l.Holder)
	}
	var more []string
	if l.Actor != "" {
		more = append(more, l.Actor)
	}
	if l.Commit != "" {
		more = append(more, "commit "+l.Commit[:min(len(l.Commit), 7)])
	}
	if len(more) > 0 {
		who += " (" + strings.Join(more, ", ") + ")"
	}
	verb := "held by "
	if l.Expired {
		verb = "expired; it was held by "
	}
	text := verb + who
	if !l.Since.IsZero() {
		text += ", taken " + t.age(l.Since) + " ago"
	}
	return text
}

// age is how long ago a moment was, in its two largest units at most.
func (t *table) age(at time.Time) string { return Age(t.now.Sub(at)) }

// Age is a time span as kubectl shows ages: "3d4h", "2h5m", "12s".
func Age(d time.Duration) string {
	d = max(0, d)
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.size && u.name != "s" {
			continue
		}
		text := fmt.Sprintf("%d%s", d/u.size, u.name)
		if i+1 < len(units) && d/u.size < 10 {
			if rest := d % u.size / units[i+1].size; rest > 0 {
				text += fmt.Sprintf("%d%s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "0s"
}

// kustomizations is the table of a root, and below it what is not as it should be.
func (t *table) kustomizations(s *Status, r *Root) {
	if len(r.Kustomizations) == 0 {
		return
	}
	looked := slices.ContainsFunc(r.Kustomizations, func(k Kustomization) bool { return k.Health != nil })
	compared := slices.ContainsFunc(r.Kustomizations, func(k Kustomization) bool { return k.Drift != nil })
	head := []string{"KUSTOMIZATION", "REVISION", "RESULT", "AGE"}
	if looked {
		head = append(head, "HEALTH")
	}
	if compared {
		head = append(head, "DRIFT")
	}
	rows := [][]string{append(head, "OBJECTS")}
	for _, k := range r.Kustomizations {
		result := k.Result
		if k.Suspended {
			result += ", suspended"
		}
		age := "-"
		if !k.Updated.IsZero() {
			age = t.age(k.Updated)
		}
		row := []string{k.ID, cmp.Or(report.ShortRevision(k.Revision), "-"), cmp.Or(result, "-"), age}
		if looked {
			row = append(row, healthText(k.Health))
		}
		if compared {
			row = append(row, driftText(k.Drift))
		}
		rows = append(rows, append(row, objectsText(k)))
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(report.Clean(cell)))
		}
	}
	for _, row := range rows {
		text := " "
		for i, cell := range row {
			cell = report.Clean(cell)
			text += " " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+1)
		}
		t.line(text)
	}
	t.unready(r)
	t.drifted(r)
}

func healthText(h *Health) string {
	switch {
	case h == nil:
		return "-"
	case h.Verdict == Healthy:
		return Healthy
	}
	n := 0
	for _, o := range h.Objects {
		if verdictOf(o) == h.Verdict {
			n++
		}
	}
	return fmt.Sprintf("%d %s", n, h.Verdict)
}

func driftText(n *int) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// objectsText counts objects, with the most frequent kinds.
func objectsText(k Kustomization) string {
	var kinds []string
	for i, each := range k.Kinds {
		if i == maxKinds && len(k.Kinds) > maxKinds+1 {
			kinds = append(kinds, fmt.Sprintf("%d more kinds", len(k.Kinds)-i))
			break
		}
		kinds = append(kinds, fmt.Sprintf("%d %s", each.Count, each.Kind))
	}
	if len(kinds) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %s", k.Objects, strings.Join(kinds, ", "))
}

// unready lists the objects that are not healthy.
func (t *table) unready(r *Root) {
	label, n := "not ready", 0
	for _, k := range r.Kustomizations {
		if k.Health == nil {
			continue
		}
		for _, o := range k.Health.Objects {
			if n++; n > maxUnready {
				continue
			}
			text := o.Object
			if o.Cluster != "" {
				text += " in the cluster of " + o.Cluster
			}
			text += ": " + o.Status
			if o.Message != "" {
				text += ": " + o.Message
			}
			t.field(label, text)
			label = ""
		}
	}
	t.more(n-maxUnready, "object")
}

// drifted lists the objects that a run would change.
func (t *table) drifted(r *Root) {
	label, n := "drift", 0
	if r.DriftError != "" {
		t.field(label, "not known: "+r.DriftError)
		return
	}
	for _, k := range r.Kustomizations {
		for _, o := range k.Drifted {
			if n++; n > maxDrifted {
				continue
			}
			text := o.Action + " " + o.Object
			if len(o.Fields) > 0 {
				text += ": " + report.List(o.Fields, 5)
			}
			t.field(label, text)
			label = ""
		}
	}
	t.more(n-maxDrifted, "object")
}

func (t *table) more(n int, noun string) {
	if n > 0 {
		t.field("", fmt.Sprintf("and %s; -o json has all", count(n, "more "+noun)))
	}
}

// orphans lists what carries owner labels and is in no record.
func (t *table) orphans(s *Status) {
	if len(s.Orphans) > 0 {
		t.line("")
		t.line(fmt.Sprintf("orphans: %d with the owner labels of a Kustomization, in no record", len(s.Orphans)))
		for i, o := range s.Orphans {
			if i == maxOrphans {
				t.more(len(s.Orphans)-i, "orphan")
				break
			}
			text := fmt.Sprintf("  %s of %s", o.Object, o.Kustomization)
			if o.Cluster != "" {
				text += " in the cluster of " + o.Cluster
			}
			t.line(text)
		}
	}
	if len(s.Unlisted) > 0 {
		var kinds []string
		for _, u := range s.Unlisted {
			name := u.Kind
			if u.Cluster != "" {
				name += " in the cluster of " + u.Cluster
			}
			kinds = append(kinds, name)
		}
		t.line("")
		t.line(fmt.Sprintf("could not be listed, so orphans of these kinds are not known: %s", report.List(kinds, 10)))
	}
}

// count is a number with its noun, in the plural unless it is one.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (t *table) repairs(s *Status) {
	if s.Repairs == nil {
		return
	}
	t.line("")
	if len(s.Repairs) == 0 {
		t.line("nothing to repair")
	}
	for _, r := range s.Repairs {
		text := fmt.Sprintf("rebuilt: the record of %s %s", r.Record, r.ID)
		if r.Record == "kustomization" {
			text = fmt.Sprintf("rebuilt: the record of Kustomization %s, with %s", r.ID, count(r.Objects, "object"))
		}
		if r.Lost != "" {
			text += "; " + r.Lost
		}
		t.line(text)
	}
}

// verdictOf is what an object makes of its Kustomization.
func verdictOf(o Unready) string {
	switch o.Status {
	case "Failed":
		return Failed
	case "NotFound":
		return Missing
	case "InProgress", "Terminating":
		return InProgress
	}
	return Unknown
}

// gravity orders the verdicts, the worst last.
var gravity = []string{Healthy, InProgress, Unknown, Missing, Failed}

// Judge sets the verdict from the objects.
func (h *Health) Judge() {
	h.Verdict = Healthy
	for _, o := range h.Objects {
		if v := verdictOf(o); slices.Index(gravity, v) > slices.Index(gravity, h.Verdict) {
			h.Verdict = v
		}
	}
}
