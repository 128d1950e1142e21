package report

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluicerun/sluice/internal/event"
)

// MaxLine is the longest line of text in bytes. Longer ones read badly on
// every forge; what is cut is said.
const MaxLine = 2000

// Clean makes foreign text safe to show in one line: no control characters
// (a log line could move the cursor, erase what was written, or start a new
// line that a CI system takes for a command), none that reorder the text, no
// invalid UTF-8, at most MaxLine bytes. Line ends become spaces.
func Clean(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029' || r == '\u0085':
			return ' '
		case r == utf8.RuneError:
			return '\uFFFD'
		case unicode.IsControl(r):
			return -1
		case r >= '\u202A' && r <= '\u202E', r >= '\u2066' && r <= '\u2069', r == '\u200E', r == '\u200F', r == '\u061C':
			return -1
		case r >= '\U000E0000' && r <= '\U000E007F': // letters that nothing shows, but programs read
			return -1
		}
		return r
	}, stripEscapes(text))
	return Cut(strings.TrimRight(text, " "), MaxLine)
}

// stripEscapes removes whole ANSI escape sequences, so that a coloured log
// does not leave "[31m" behind.
func stripEscapes(text string) string {
	if !strings.ContainsRune(text, '\x1b') {
		return text
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '\x1b')
		if i < 0 || i+1 >= len(text) {
			b.WriteString(strings.TrimSuffix(text, "\x1b"))
			return b.String()
		}
		b.WriteString(text[:i])
		text = text[i+1:]
		switch text[0] {
		case '[': // CSI: parameters, then one final byte
			end := strings.IndexFunc(text[1:], func(r rune) bool { return r >= 0x40 && r <= 0x7e })
			if end < 0 {
				return b.String()
			}
			text = text[end+2:]
		case ']': // OSC: up to BEL or ESC \
			end := strings.IndexAny(text, "\a\x1b")
			if end < 0 {
				return b.String()
			}
			if text[end] == '\a' {
				end++
			}
			text = strings.TrimPrefix(text[end:], "\x1b\\")
		default: // intermediate bytes, then one final character
			text = strings.TrimLeft(text, " !\"#$%&'()*+,-./")
			_, size := utf8.DecodeRuneInString(text)
			text = text[size:]
		}
	}
}

// Cut shortens a text to at most limit bytes, at the end of a character, and
// says how much is missing.
func Cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	const room = 32 // for what is said about the cut
	end := max(limit-room, 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s … (%d more bytes)", text[:end], len(text)-end)
}

// FormatDuration is a duration as people read it: "0.4s", "2m05s", "1h02m".
func FormatDuration(d time.Duration) string {
	switch {
	case d < 0:
		d = 0
		fallthrough
	case d < time.Minute-50*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
}

// wholeDuration leaves out the fraction, for waits and limits.
func wholeDuration(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	text := FormatDuration(d)
	return strings.TrimSuffix(strings.TrimSuffix(text, "00s"), "00m")
}

// ShortRevision shortens the hash in a revision of Flux's form (S10.7):
// "main@sha1:4f2c1d9…" becomes "main@4f2c1d9". Other text stays.
func ShortRevision(revision string) string {
	name, hash, ok := strings.Cut(revision, "@")
	if !ok {
		name, hash = "", revision
	}
	_, digits, ok := strings.Cut(hash, ":")
	if !ok {
		digits = hash
	}
	if len(digits) > 7 && strings.Trim(digits, "0123456789abcdef") == "" {
		digits = digits[:7]
	}
	if name == "" {
		return digits
	}
	return name + "@" + digits
}

// shortCommit is the hash alone.
func shortCommit(revision string) string {
	short := ShortRevision(revision)
	return short[strings.LastIndexByte(short, '@')+1:]
}

// count is a number with its noun, in the plural unless it is one.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// String names what was done, in the order of its weight, and "nothing to
// apply" if there was nothing.
func (c Counts) String() string {
	text := joinCounts([]counted{{c.Created, "created"}, {c.Configured, "configured"}, {c.Recreated, "recreated"},
		{c.Deleted, "deleted"}, {c.Unchanged, "unchanged"}, {c.Skipped, "skipped"}, {c.Kept, "kept"}})
	if text == "" {
		return "nothing to apply"
	}
	return text
}

// String names what is planned.
func (p *Plan) String() string {
	text := joinCounts(p.counted())
	if text == "" {
		return "nothing to apply"
	}
	return text
}

func (p *Plan) counted() []counted {
	return []counted{{p.Create, "to create"}, {p.Configure, "to configure"}, {p.Recreate, "to recreate"},
		{p.Delete, "to delete"}, {p.Later, "to be judged later"}, {p.Unchanged, "unchanged"}, {p.Skip, "skipped"}}
}

// count counts one object that is not unchanged.
func (p *Plan) count(a event.Action) {
	switch a {
	case event.Create, event.Created:
		p.Create++
	case event.Configure, event.Configured:
		p.Configure++
	case event.Recreate, event.Recreated:
		p.Recreate++
	case event.Delete, event.Deleted:
		p.Delete++
	case event.Later:
		p.Later++
	case event.Skipped, event.Kept:
		p.Skip++
	}
}

// objects is how many objects the plan is about.
func (p *Plan) objects() int {
	return p.Create + p.Configure + p.Recreate + p.Delete + p.Later + p.Skip + p.Unchanged
}

type counted struct {
	n    int
	what string
}

func joinCounts(list []counted) string {
	var parts []string
	for _, c := range list {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return strings.Join(parts, ", ")
}

// List joins at most limit items with commas and counts the others.
func List(items []string, limit int) string {
	if len(items) <= limit {
		return strings.Join(items, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:limit], ", "), len(items)-limit)
}

// Where is the place of a failure or a notice, "file:line", or as much of it
// as is known.
func Where(file string, line int) string {
	if file != "" && line > 0 {
		return fmt.Sprintf("%s:%d", file, line)
	}
	return file
}

// FailureText is the sentence of a failure, naming its object if the sentence
// does not.
func FailureText(f Failure) string {
	if f.Object != "" && !strings.Contains(f.Text, f.Object) {
		return f.Object + ": " + f.Text
	}
	return f.Text
}

// phases says what was going on in each phase.
var phases = map[string]string{
	"source": "reading the source", "discover": "reading the Kustomizations", "build": "building", "substitute": "substituting variables",
	"graph": "ordering the Kustomizations", "cluster": "talking to the cluster", "plan": "planning", "lock": "taking the lock",
	"guard": "checking before the first write", "apply": "applying", "health": "waiting for health", "prune": "pruning",
	"record": "saving the records",
}

// FailureCause says code, stage and place of a failure: what a reader looks
// up or opens.
func FailureCause(f Failure) string {
	text := f.Reason
	if phase := phases[f.Phase]; phase != "" {
		text = strings.TrimSpace(text + " while " + phase)
	}
	if f.Container != "" {
		text += "; container " + f.Container
	}
	if where := Where(f.File, f.Line); where != "" {
		text += "; " + where
	}
	return text
}

// Verdict is one word for how a Kustomization ended, as tables have it.
func (s State) Verdict() string {
	switch s {
	case NotRun:
		return "not run"
	case Unhealthy:
		return "not healthy"
	}
	return string(s)
}

// RowText says what came of a Kustomization, without its name. name gives the
// names of others.
func RowText(r *Row, name func(id string) string) string {
	switch r.State {
	case Ready:
		c := r.Counts
		if c.Unchanged > 0 && c == (Counts{Unchanged: c.Unchanged}) {
			return "unchanged"
		}
		text := c.String()
		if r.Gate > 0 {
			text += ", healthy"
		}
		if r.Cluster != "" {
			text += "," + elsewhere(r)
		}
		return text
	case Failed, Unhealthy:
		text := "failed"
		if r.State == Unhealthy {
			text = "is not healthy"
		}
		text += elsewhere(r)
		if len(r.Failures) > 0 {
			text += ": " + FailureText(r.Failures[0])
		}
		if more := len(r.Failures) - 1; more > 0 {
			text += fmt.Sprintf(" (and %s)", count(more, "more failure"))
		}
		return text
	case NotRun:
		if r.BlockedBy != "" {
			return "not run, because of " + name(r.BlockedBy)
		}
		return "not run"
	case Suspended:
		return "suspended, left alone"
	case Excluded:
		return "left out by --only or --skip"
	case Cancelled:
		if !r.begun {
			return "cancelled before its turn"
		}
		return "cancelled: " + Progress(r)
	case Planned:
		return "planned"
	case Destroyed:
		text := joinCounts([]counted{{r.Counts.Deleted, "deleted"}, {r.Counts.Kept, "kept"}})
		if text == "" {
			return "nothing to delete"
		}
		return text
	case Valid:
		if r.Deferred != "" {
			return "not built: it " + r.Deferred
		}
		return count(r.Built, "object")
	case Waiting:
		return "waiting for " + count(r.Gate, "object")
	case Pending:
		return "not started"
	}
	return string(r.State)
}

// elsewhere names the cluster of a Kustomization, if it is not the run's own.
func elsewhere(r *Row) string {
	if r.Cluster == "" {
		return ""
	}
	return " in the cluster of " + r.Cluster
}

// Progress says how far a Kustomization got that was interrupted.
func Progress(r *Row) string {
	done := 0
	for _, o := range r.Objects {
		if o.Action != "" {
			done++
		}
	}
	switch {
	case !r.appliedAt.IsZero():
		return "applied, not yet healthy"
	case r.Built > 0:
		return fmt.Sprintf("%d of %s applied", done, count(r.Built, "object"))
	}
	return count(done, "object") + " applied"
}

// ImageText is a change of images in a few words: the name once if only the
// tag changed.
func ImageText(i Image) string {
	if i.Old == "" {
		return i.New + " (new)"
	}
	oldName, oldTag := splitImage(i.Old)
	newName, newTag := splitImage(i.New)
	if oldName == newName && oldTag != "" && newTag != "" {
		return oldName + " " + oldTag + " → " + newTag
	}
	return i.Old + " → " + i.New
}

// splitImage cuts an image's reference at its tag or digest. The colon of a
// registry's port is no tag.
func splitImage(image string) (name, tag string) {
	if name, digest, ok := strings.Cut(image, "@"); ok {
		return name, digest
	}
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i], image[i+1:]
	}
	return image, ""
}

// ChangedObjects lists what was changed in the cluster so far: "Kind/name
// configured", in the order of the run, deletions last.
func ChangedObjects(s *Summary) []string {
	var list []string
	for _, r := range s.Rows {
		for _, o := range r.Objects {
			if wrote(o.Action) {
				list = append(list, o.Object+" "+string(o.Action))
			}
		}
	}
	if s.Prune != nil {
		for _, o := range s.Prune.Objects {
			if o.Action == event.Deleted {
				list = append(list, o.Object+" deleted")
			}
		}
	}
	return list
}

// ChangedText is what was changed in one line: all of it if that is little,
// else the counts and the first few.
func ChangedText(s *Summary) string {
	changed := ChangedObjects(s)
	switch n := len(changed); {
	case n == 0:
		return "nothing"
	case n <= maxChanged:
		return strings.Join(changed, ", ")
	}
	c := s.Counts
	c.Unchanged, c.Skipped, c.Kept = 0, 0, 0
	return fmt.Sprintf("%s: %s", c, List(changed, 3))
}

// NotRunText says what was not run and because of what, or "".
func NotRunText(s *Summary) string {
	var parts []string
	var order []string
	blocked := map[string][]string{}
	for _, r := range s.Rows {
		if r.State != NotRun {
			continue
		}
		if _, ok := blocked[r.BlockedBy]; !ok {
			order = append(order, r.BlockedBy)
		}
		blocked[r.BlockedBy] = append(blocked[r.BlockedBy], r.Name)
	}
	for _, by := range order {
		names := blocked[by]
		text := List(names, 10)
		if by != "" {
			verb := "they depend on"
			if len(names) == 1 {
				verb = "it depends on"
			}
			text += fmt.Sprintf(" (%s %s)", verb, s.Name(by))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// RelationText says how the commit stands to what is live, or that nothing
// is.
func RelationText(c *Cluster) string {
	if c.Previous == "" {
		return "first run here"
	}
	live := "live: " + shortCommit(c.Previous)
	switch c.Relation {
	case "same":
		return "live: the same commit"
	case "ahead":
		return fmt.Sprintf("%s, %s ago", live, count(c.Ahead, "commit"))
	case "behind":
		return fmt.Sprintf("%s, %s newer than this one", live, count(c.Behind, "commit"))
	case "diverged":
		return fmt.Sprintf("%s, which has %s that this one has not", live, count(c.Behind, "commit"))
	}
	return live
}

// target names revision and cluster, as far as they are known; for destroy, root
// and cluster.
func target(s *Summary) string {
	if s.Command == "destroy" && s.Cluster != nil {
		return s.Cluster.Root + " on " + ClusterName(s.Cluster)
	}
	text := ShortRevision(s.Source.Revision)
	if text == "" {
		text = s.Source.Repo
	}
	if cluster := ClusterName(s.Cluster); cluster != "" {
		text += " on " + cluster
	}
	return text
}

// ClusterName is the kubeconfig's context, or the server where there is none.
func ClusterName(c *Cluster) string {
	if c == nil {
		return ""
	}
	if c.Context != "" {
		return c.Context
	}
	return c.Server
}
