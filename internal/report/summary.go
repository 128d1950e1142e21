package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Version is the version of the report's format. Fields may be added within a
// version; one that changes its meaning or goes away raises it.
const Version = 1

// Summary is everything a report can tell, in its JSON form the content of
// report.json. Its fields are described for users, since docs/reports.md and
// the schema take the text from here. A Summary is plain data that its owner
// may read from several goroutines.
type Summary struct {
	// Version of this format, 1. It is raised when a field changes its meaning or goes away; new fields do not raise it.
	Version int `json:"version"`
	// Version of sluice.
	Sluice string `json:"sluice"`
	// What was asked for: `run`, `plan`, `check`, `build`, `graph`, `status` or `destroy`.
	Command string `json:"command"`
	// Whether a command that writes was to write nothing: `destroy --dry-run`.
	DryRun bool `json:"dryRun,omitempty"`
	// How it ended, in one word; `running` in a report that was written before the end.
	Result Outcome `json:"result"`
	// Whether anything was changed in the cluster; for `plan` and `destroy --dry-run`, whether anything would be.
	Changed bool `json:"changed"`
	// The exit code of the process.
	ExitCode int `json:"exitCode"`
	// The verdict in one sentence.
	Headline string `json:"headline"`
	// When it started, UTC.
	Started time.Time `json:"started,omitzero"`
	// When it ended, UTC. Absent while it runs.
	Finished time.Time `json:"finished,omitzero"`
	// How long it took.
	Duration Seconds `json:"seconds"`
	// How long the part took that writes nothing.
	PlanDuration Seconds `json:"planSeconds,omitzero"`
	// The page of the CI job that ran it.
	RunURL string `json:"runURL,omitempty"`
	// Who or what started the CI job.
	Actor string `json:"actor,omitempty"`
	// The commit that was delivered.
	Source Source `json:"source"`
	// The cluster it was delivered to. Absent if no cluster was reached.
	Cluster *Cluster `json:"cluster,omitempty"`
	// What was done to objects, added up over all Kustomizations.
	Counts Counts `json:"counts"`
	// What the cache of builds was good for. Absent in a run without one.
	Builds *Builds `json:"builds,omitempty"`
	// What the plan said before the first write. Absent if planning did not succeed.
	Planned *Plan `json:"planned,omitempty"`
	// One entry per Kustomization, in the order in which they ran; those that did not run come last.
	Rows []Row `json:"kustomizations"`
	// What pruning did, or `destroy`. Absent if there was nothing to delete, or if it did not come to that.
	Prune *Prune `json:"prune,omitempty"`
	// Container images that differ from what ran before; for `plan`, that would differ.
	Images []Image `json:"images"`
	// Everything that went wrong, the worst first.
	Failures []Failure `json:"failures"`
	// What there is to know besides failures; equal notices are one entry.
	Notices []Notice `json:"notices"`
	// The dependency graph.
	Graph Graph `json:"graph"`
	// What took the longest.
	Slowest *Slowest `json:"slowest,omitempty"`
	// The chain of Kustomizations that decided how long the run took, before pruning. Absent until the end, and if none ran.
	Path *Path `json:"criticalPath,omitempty"`
	// False if pruning was left out because something failed.
	Pruned bool `json:"pruned"`
	// False if the records in the cluster could not be brought up to date; the next run repairs them.
	Saved bool `json:"saved"`
	// What was tried again because its failure could pass. Absent if nothing was.
	Retries *Retries `json:"retries,omitempty"`
	// What to do now. Absent after success.
	Next string `json:"next,omitempty"`
}

// Source says which commit of which repository.
type Source struct {
	// The repository as it was asked for: a path or a URL without credentials.
	Repo string `json:"repo"`
	// The repository's URL, normalised and without credentials. Absent for a local repository without a remote.
	URL string `json:"url,omitempty"`
	// The entry folder.
	Path string `json:"path,omitempty"`
	// The revision in Flux's form, such as `main@sha1:<commit>`.
	Revision string `json:"revision,omitempty"`
	// The commit's full hash.
	Commit string `json:"commit,omitempty"`
	// The first line of the commit's message.
	Subject string `json:"subject,omitempty"`
	// The commit's author.
	Author string `json:"author,omitempty"`
	// When the commit was written.
	Authored time.Time `json:"authored,omitzero"`
}

// Builds says how many builds the cache had, and what that saved.
type Builds struct {
	// How many Kustomizations were built before the first write.
	Total int `json:"total"`
	// How many of these builds the cache had.
	Cached int `json:"cached"`
	// How long those builds had taken when they were made.
	Saved Seconds `json:"savedSeconds"`
}

// String is what the cache was good for as people read it.
func (b Builds) String() string {
	text := fmt.Sprintf("%d of %d from the cache", b.Cached, b.Total)
	if b.Cached > 0 {
		text += fmt.Sprintf(", about %s saved", b.Saved)
	}
	return text
}

// Retries counts what was tried again.
type Retries struct {
	// Requests to API servers that were sent again: after a lost connection, an error of the server, or because it was busy.
	Requests int `json:"requests"`
	// Attempts of Kustomizations after the first of each.
	Kustomizations int `json:"kustomizations"`
}

// String is what was tried again as people read it.
func (r Retries) String() string {
	var parts []string
	if r.Requests > 0 {
		parts = append(parts, count(r.Requests, "request")+" sent again")
	}
	if r.Kustomizations > 0 {
		parts = append(parts, count(r.Kustomizations, "more attempt")+" of Kustomizations")
	}
	return strings.Join(parts, ", ")
}

// Cluster says which cluster, and what it had of the root before.
type Cluster struct {
	// The context of the kubeconfig.
	Context string `json:"context,omitempty"`
	// The URL of the API server.
	Server string `json:"server"`
	// The API server's version.
	ServerVersion string `json:"serverVersion,omitempty"`
	// The root Kustomization, `namespace/name`.
	Root string `json:"root"`
	// The revision of the last run that finished. Absent on first contact.
	Previous string `json:"previous,omitempty"`
	// How this commit stands to the previous one: `same`, `ahead`, `behind`, `diverged` or `unknown`. Absent on first contact.
	Relation string `json:"relation,omitempty"`
	// How many commits this one has that the previous one has not.
	Ahead int `json:"ahead,omitempty"`
	// How many commits the previous one has that this one has not.
	Behind int `json:"behind,omitempty"`
}

// Row returns the row of a Kustomization, or nil.
func (s *Summary) Row(id string) *Row {
	for i := range s.Rows {
		if s.Rows[i].ID == id {
			return &s.Rows[i]
		}
	}
	return nil
}

// Name returns the name to show for a Kustomization's id; an id that is not
// in the run stays as it is.
func (s *Summary) Name(id string) string {
	if r := s.Row(id); r != nil {
		return r.Name
	}
	return id
}

// Preview reports whether the command only tells what another would do.
func (s *Summary) Preview() bool { return s.Command == "plan" || s.DryRun }

// Done reports whether the run has come to its end.
func (s *Summary) Done() bool { return s.Result != OutcomeRunning }

// WriteJSON writes the Summary as report.json has it: indented, with a line
// end. The error is the writer's.
func WriteJSON(w io.Writer, s Summary) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("write the JSON report: %w", err)
	}
	return nil
}
