package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// Version is the version of the report's format. Fields may be added within a
// version; one that changes its meaning or goes away raises it.
const Version = 1

// Outcome is the result of a run in one word, as outputs and the JSON report
// have it.
type Outcome string

// The outcomes. The verdicts "live", "planned" and "destroyed" are told apart by
// whether something changed, or would; "valid" is a success. Every other verdict is an
// outcome of its own.
const (
	OutcomeRunning   Outcome = "running"
	OutcomeSuccess   Outcome = "success"
	OutcomeNoChanges Outcome = "no-changes"
	OutcomeFailed    Outcome = "failed"
	OutcomeInvalid   Outcome = "invalid"
	OutcomeRefused   Outcome = "refused"
	OutcomeUnhealthy Outcome = "unhealthy"
	OutcomeCancelled Outcome = "cancelled"
)

// Outcomes lists all outcomes.
func Outcomes() []Outcome {
	return []Outcome{OutcomeRunning, OutcomeSuccess, OutcomeNoChanges, OutcomeFailed,
		OutcomeInvalid, OutcomeRefused, OutcomeUnhealthy, OutcomeCancelled}
}

// State is where a Kustomization stands: its result once it has one, before
// that what it is doing.
type State string

// The states of a Kustomization that has no result yet, and its results.
const (
	Pending  State = "pending"
	Running  State = "running"
	Waiting  State = "waiting"
	Retrying State = "retrying"

	Ready     = State(event.Ready)
	Failed    = State(event.Failed)
	Unhealthy = State(event.Unhealthy)
	NotRun    = State(event.NotRun)
	Suspended = State(event.Suspended)
	Excluded  = State(event.Excluded)
	Cancelled = State(event.Cancelled)
	Planned   = State(event.ResultPlanned)
	Valid     = State(event.ResultValid)
	Destroyed = State(event.ResultDestroyed)
)

// States lists all states.
func States() []State {
	return []State{Pending, Running, Waiting, Retrying, Ready, Failed, Unhealthy, NotRun, Suspended, Excluded, Cancelled, Planned, Valid, Destroyed}
}

// Seconds is a duration that JSON shows as a number of seconds with at most
// three decimals.
type Seconds time.Duration

// MarshalJSON writes the number of seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(math.Round(time.Duration(s).Seconds()*1000) / 1000)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Seconds) UnmarshalJSON(data []byte) error {
	var seconds float64
	if err := json.Unmarshal(data, &seconds); err != nil {
		return fmt.Errorf("%q is no number of seconds: %w", data, err)
	}
	*s = Seconds(math.Round(seconds*1000) * float64(time.Millisecond))
	return nil
}

// String is the duration as people read it.
func (s Seconds) String() string { return FormatDuration(time.Duration(s)) }

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

// Counts counts objects by what was done to them.
type Counts struct {
	// Objects that did not exist before.
	Created int `json:"created"`
	// Objects that were changed.
	Configured int `json:"configured"`
	// Objects that were deleted and made again, because a field cannot be changed.
	Recreated int `json:"recreated"`
	// Objects that were as they should be.
	Unchanged int `json:"unchanged"`
	// Objects that were left alone on purpose.
	Skipped int `json:"skipped"`
	// Objects that left Git, or that `destroy` was to delete, and were deleted.
	Deleted int `json:"deleted"`
	// Objects that left Git and were kept, for a reason.
	Kept int `json:"kept"`
}

// Plan counts objects by what would be done to them.
type Plan struct {
	// Objects to create.
	Create int `json:"create"`
	// Objects to change.
	Configure int `json:"configure"`
	// Objects to delete and make again.
	Recreate int `json:"recreate"`
	// Objects to delete, because they left Git.
	Delete int `json:"delete"`
	// Objects that can only be judged when their turn comes, because their namespace or their kind comes with this run.
	Later int `json:"later"`
	// Objects that are left alone on purpose.
	Skip int `json:"skip"`
	// Objects that are as they should be.
	Unchanged int `json:"unchanged"`
	// The objects that are not unchanged, in the order of the run.
	Changes []Object `json:"changes"`
	// The Kustomizations in the order of the run. Only for `plan` and `destroy`.
	Turns []Turn `json:"turns,omitempty"`
}

// Turn is a Kustomization in a plan.
type Turn struct {
	// The Kustomization.
	Node string `json:"kustomization"`
	// How many of its objects stay as they are.
	Unchanged int `json:"unchanged"`
	// The objects that must be healthy before what depends on it starts.
	WaitsFor []string `json:"waitsFor,omitempty"`
	// How long they are waited for at most.
	Timeout Seconds `json:"timeoutSeconds,omitzero"`
}

// Row is one Kustomization.
type Row struct {
	// `namespace/name`.
	ID string `json:"id"`
	// The name alone where it is the only one of that name, else the id.
	Name string `json:"name"`
	// How it ended, or what it is doing.
	State State `json:"state"`
	// The Kustomization whose build holds this one. Absent for the root.
	Parent string `json:"parent,omitempty"`
	// What it depends on, in the order of its spec.
	DependsOn []string `json:"dependsOn,omitempty"`
	// The folder that is built.
	Path string `json:"path,omitempty"`
	// The file that declares it.
	File string `json:"file,omitempty"`
	// The line in that file.
	Line int `json:"line,omitempty"`
	// The revision of its source.
	Revision string `json:"revision,omitempty"`
	// How many objects its build holds; 0 if it could not be built yet.
	Built int `json:"built"`
	// Why it can only be built when its turn comes. Absent if it was built before the first write.
	Deferred string `json:"deferred,omitempty"`
	// The Secret or ConfigMap of `spec.kubeConfig` that says how to reach the cluster its objects live in. Absent for the run's own cluster.
	Cluster string `json:"cluster,omitempty"`
	// How often it was tried.
	Attempts int `json:"attempts"`
	// The most attempts there would have been.
	MaxAttempts int `json:"maxAttempts,omitempty"`
	// When its turn came, UTC.
	Started time.Time `json:"started,omitzero"`
	// When it ended, UTC.
	Finished time.Time `json:"finished,omitzero"`
	// How long it took, from its first start.
	Duration Seconds `json:"seconds"`
	// The part of it that was spent waiting for health.
	Waited Seconds `json:"waitedSeconds"`
	// How much later it could have ended without the last of all ending later. Absent if that is nothing, and if it did not run.
	Slack Seconds `json:"slackSeconds,omitzero"`
	// How many objects its health depends on.
	Gate int `json:"waitedFor"`
	// What was done to its objects.
	Counts Counts `json:"counts"`
	// Its objects, in the order in which they were applied or first reported on.
	Objects []Object `json:"objects"`
	// Why it failed, root causes first.
	Failures []Failure `json:"failures,omitempty"`
	// The Kustomization that is the cause that this one was not run.
	BlockedBy string `json:"blockedBy,omitempty"`
	// The Kustomizations that were not run because of this one.
	Blocks []string `json:"blocks,omitempty"`

	suspended, excluded bool // as announced

	begun, ended bool // whether it was started, and whether it came to its end
	appliedAt    time.Time
	timeout      time.Duration

	// For the critical path: when its objects were first applied, and whether
	// it is ready only after its children are.
	firstApplied   time.Time
	awaitsChildren bool
}

// Object is an object, what was done to it and how it is.
type Object struct {
	// The Kustomization it belongs to.
	Node string `json:"kustomization"`
	// `Kind/namespace/name`, or `Kind/name`.
	Object string `json:"object"`
	// Group and version.
	APIVersion string `json:"apiVersion,omitempty"`
	// The manifest it came from.
	File string `json:"file,omitempty"`
	// What was done to it, or in a plan would be. Absent for an object that is only waited for.
	Action event.Action `json:"action,omitempty"`
	// Why it was skipped, kept or made again, or has to wait.
	Reason string `json:"reason,omitempty"`
	// Its container images that differ from before.
	Images []ImageChange `json:"images,omitempty"`
	// Its fields that would change. Only for `plan`.
	Fields []Field `json:"fields,omitempty"`
	// Its last known health while it was waited for: `InProgress`, `Current`, `Failed`, `Terminating`, `NotFound` or `Unknown`.
	Health string `json:"health,omitempty"`
	// What is known about that health.
	Message string `json:"message,omitempty"`

	healthSince time.Time
}

// Field is the change of one field.
type Field struct {
	// The field, as `spec.template.spec.containers[app].image`.
	Path string `json:"path"`
	// The value before, on one line; that of a Secret is masked. Absent if the field was not there.
	Old string `json:"old,omitempty"`
	// The value after. Absent if the field would go away.
	New string `json:"new,omitempty"`
}

// ImageChange is the change of one container's image.
type ImageChange struct {
	// The container.
	Container string `json:"container"`
	// The image before. Absent for a new container.
	Old string `json:"old,omitempty"`
	// The image now.
	New string `json:"new"`
}

// Image is a change of images from one to another, wherever it happened.
type Image struct {
	// The image before. Absent for new containers.
	Old string `json:"old,omitempty"`
	// The image now.
	New string `json:"new"`
	// The objects in which it changed.
	Objects []string `json:"objects"`
}

// Prune is what pruning did.
type Prune struct {
	// How many objects were to be deleted.
	Planned int `json:"planned"`
	// What was deleted or kept, in the order in which it happened.
	Objects []Object `json:"objects"`
	// What could not be deleted.
	Failures []Failure `json:"failures,omitempty"`
	// How long it took.
	Duration Seconds `json:"seconds"`
	// Whether it came to its end.
	Done bool `json:"finished"`
}

// Failure is one cause.
type Failure struct {
	// The stage that failed: `source`, `discover`, `build`, `substitute`, `graph`, `cluster`, `plan`, `lock`, `guard`, `apply`, `health`, `prune` or `record`.
	Phase string `json:"phase"`
	// A stable code in CamelCase, such as `ImagePull` or `DependencyCycle`.
	Reason string `json:"reason"`
	// What is wrong, in one sentence.
	Text string `json:"text"`
	// What to do about it.
	Hint string `json:"hint,omitempty"`
	// The Kustomization.
	Node string `json:"kustomization,omitempty"`
	// The object.
	Object string `json:"object,omitempty"`
	// The container.
	Container string `json:"container,omitempty"`
	// The file.
	File string `json:"file,omitempty"`
	// The line in that file.
	Line int `json:"line,omitempty"`
	// Warning events around the object, without the noise.
	Events []Warning `json:"events,omitempty"`
	// The last lines of the failing container, the previous instance first.
	Logs []string `json:"logs,omitempty"`
	// Why there are no logs, or which instance they are from.
	LogsNote string `json:"logsNote,omitempty"`
}

// Warning is a Kubernetes warning event.
type Warning struct {
	// How often it was seen.
	Count int `json:"count"`
	// Its reason, in Kubernetes' words.
	Reason string `json:"reason"`
	// Its message.
	Message string `json:"message"`
}

// Notice is something to know that is no failure.
type Notice struct {
	// `info` or `warning`.
	Level event.Level `json:"level"`
	// A stable name for the kind of notice, such as `extension-field`.
	Code string `json:"code"`
	// What there is to know.
	Text string `json:"text"`
	// What to do about it.
	Hint string `json:"hint,omitempty"`
	// The Kustomization it is about.
	Node string `json:"kustomization,omitempty"`
	// The object it is about.
	Object string `json:"object,omitempty"`
	// The file it is about.
	File string `json:"file,omitempty"`
	// The line in that file.
	Line int `json:"line,omitempty"`
	// How often it was given.
	Count int `json:"count"`
}

// Graph is the dependency graph with the state of each node.
type Graph struct {
	// The Kustomizations, in the order in which they were found.
	Nodes []GraphNode `json:"nodes"`
	// What must come before what.
	Edges []Edge `json:"edges"`
}

// GraphNode is a node of the graph.
type GraphNode struct {
	// `namespace/name`.
	ID string `json:"id"`
	// The name to show.
	Name string `json:"name"`
	// How it ended, or what it is doing.
	State State `json:"state"`
}

// Edge says that To comes after From.
type Edge struct {
	// What comes first.
	From string `json:"from"`
	// What comes after it.
	To string `json:"to"`
	// `dependsOn`, or `parent` for the Kustomization whose build holds the other.
	Kind string `json:"kind"`
}

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
