package event

import "time"

// Event is one fact. The set is closed: only this package's types implement
// it, so a switch over them can be complete.
type Event interface {
	// Type is the event's stable name in machine-readable output.
	Type() string
	// When is the moment the fact became true.
	When() time.Time
	sealed()
}

// At is the moment of an event; every event embeds it.
type At struct {
	Time time.Time `json:"time"`
}

// When returns the moment.
func (a At) When() time.Time { return a.Time }

func (At) sealed() {}

// RunStarted opens every run.
type RunStarted struct {
	At
	// Command is "run", "plan", "check", "build", "graph", "status" or
	// "destroy".
	Command string `json:"command"`
	// DryRun is set if a command that writes was to write nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Version is sluice's own version.
	Version string `json:"version"`
	// Repo is what the user asked for: a path or a URL without
	// credentials. Path is the entry folder as far as it is known yet.
	Repo string `json:"repo"`
	Path string `json:"path,omitempty"`
	// RunURL and Actor say who started it, when a CI system tells.
	RunURL string `json:"runURL,omitempty"`
	Actor  string `json:"actor,omitempty"`
}

// SourceOpened says which commit the run is for.
type SourceOpened struct {
	At
	// URL is the repository's normalised URL without credentials, empty
	// for a local repository without a remote.
	URL string `json:"url,omitempty"`
	// Revision is Flux's form, "main@sha1:<hex>" (S10.7).
	Revision string    `json:"revision"`
	Commit   string    `json:"commit"`
	Subject  string    `json:"subject,omitempty"`
	Author   string    `json:"author,omitempty"`
	Authored time.Time `json:"authored"`
	// Path is the entry folder.
	Path string `json:"path"`
}

// NodeFound announces a Kustomization of the run.
type NodeFound struct {
	At
	Node Node `json:"node"`
}

// Node is a Kustomization as reports show it.
type Node struct {
	// ID is "namespace/name".
	ID string `json:"id"`
	// Parent is the id of the Kustomization whose build holds it; empty
	// for the root.
	Parent string `json:"parent,omitempty"`
	// DependsOn lists ids in the order of the spec.
	DependsOn []string `json:"dependsOn,omitempty"`
	// Path is the folder that is built; File and Line say where the
	// Kustomization is declared.
	Path string `json:"path"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Revision is that of its source.
	Revision string `json:"revision,omitempty"`
	// Objects is how many objects its build holds; 0 while Deferred.
	Objects int `json:"objects"`
	// Deferred says why it can only be built when its turn comes; empty
	// if it has been built.
	Deferred string `json:"deferred,omitempty"`
	// Suspended is spec.suspend.
	Suspended bool `json:"suspended,omitempty"`
	// Excluded is set if --only or --skip leave it out of the run.
	Excluded bool `json:"excluded,omitempty"`
	// AwaitsChildren says that it is ready only after the Kustomizations that
	// its build holds are.
	AwaitsChildren bool `json:"awaitsChildren,omitempty"`
	// Cluster is the object that says how to reach the cluster that its
	// objects live in, "Secret/namespace/name" and "/key" if the spec names
	// one; empty for the run's own.
	Cluster string `json:"cluster,omitempty"`
}

// BuildsFinished says what the cache of builds was good for. It is sent only in
// a run that has one.
type BuildsFinished struct {
	At
	// Builds is how many Kustomizations have been built, Cached how many of
	// those builds the cache had, and Saved how long these had taken when
	// they were made. What is built at its turn is not counted.
	Builds int           `json:"builds"`
	Cached int           `json:"cached"`
	Saved  time.Duration `json:"saved"`
}

// ClusterReached says which cluster the run is against and what it holds of
// this root.
type ClusterReached struct {
	At
	// Context is the kubeconfig's context, Server the API server's URL,
	// ServerVersion its version.
	Context       string `json:"context,omitempty"`
	Server        string `json:"server"`
	ServerVersion string `json:"serverVersion,omitempty"`
	// Root is "namespace/name" of the root Kustomization.
	Root string `json:"root"`
	// Previous is the revision recorded by the last run that finished;
	// empty on first contact.
	Previous string `json:"previous,omitempty"`
	// Relation of this commit to the previous one: "same", "ahead",
	// "behind", "diverged", "unknown", or empty on first contact; Ahead
	// and Behind count commits where known.
	Relation string `json:"relation,omitempty"`
	Ahead    int    `json:"ahead,omitempty"`
	Behind   int    `json:"behind,omitempty"`
}

// Planned closes the part of the run that writes nothing.
type Planned struct {
	At
	// Changes lists every object that is not unchanged, in the order of
	// the run.
	Changes []Change `json:"changes"`
	// Unchanged counts the others.
	Unchanged int `json:"unchanged"`
	// Turns are the Kustomizations in the order of the run; only in a plan
	// that is all there is to be, and before a destroy.
	Turns []Turn `json:"turns,omitempty"`
}

// Turn is what a run would do with a Kustomization, besides its changes.
type Turn struct {
	// Node is the id of the Kustomization.
	Node string `json:"node"`
	// Unchanged counts its objects that stay as they are.
	Unchanged int `json:"unchanged"`
	// WaitsFor are the objects that must be healthy before what depends on it
	// starts, "Kind/namespace/name", sorted; Timeout says how long at most.
	WaitsFor []string      `json:"waitsFor,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"`
}

// Action is what happens, or will happen, to an object.
type Action string

// The actions. Create, Configure, Recreate, Delete and Later appear in plans;
// the past forms, which are Flux's own words (S4.45), say what was done.
const (
	Create    Action = "create"
	Configure Action = "configure"
	Recreate  Action = "recreate"
	Delete    Action = "delete"
	// Later: its namespace or its kind comes with this run, so the server
	// can only judge it when its turn comes.
	Later Action = "later"

	Created    Action = "created"
	Configured Action = "configured"
	Recreated  Action = "recreated"
	Unchanged  Action = "unchanged"
	Skipped    Action = "skipped"
	Deleted    Action = "deleted"
	// Kept: pruning met it and left it, for the reason given.
	Kept Action = "kept"
)

// Change is an object and an action.
type Change struct {
	// Node is the id of the Kustomization.
	Node string `json:"node"`
	// Object is "Kind/namespace/name" or "Kind/name"; APIVersion is its
	// group and version.
	Object     string `json:"object"`
	APIVersion string `json:"apiVersion,omitempty"`
	// File is the manifest it came from.
	File   string `json:"file,omitempty"`
	Action Action `json:"action"`
	// Reason explains an action that needs it: why it is skipped, kept,
	// re-created, or later.
	Reason string `json:"reason,omitempty"`
	// Images lists container images that differ from the live object's.
	Images []Image `json:"images,omitempty"`
	// Fields lists the fields that differ, sorted; only in a plan that is all
	// there is to be.
	Fields []Field `json:"fields,omitempty"`
}

// Field is a change of one field. Values are as in a manifest, on one line, cut
// if they are long; those of Secrets are masked.
type Field struct {
	// Path is as "spec.template.spec.containers[app].image".
	Path string `json:"path"`
	// Old and New are the values; empty where the field is not there.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// Image is a change of one container's image. Old is empty for a new
// container.
type Image struct {
	Container string `json:"container"`
	Old       string `json:"old,omitempty"`
	New       string `json:"new"`
}

// Level says how much a notice matters.
type Level string

// The levels of a notice.
const (
	Info    Level = "info"
	Warning Level = "warning"
)

// Notice tells the user something that is no failure.
type Notice struct {
	At
	Level Level `json:"level"`
	// Code is a stable name for the kind of notice, in lower case with
	// dashes, such as "extension-field".
	Code string `json:"code"`
	// Node, Object, File and Line say what it is about, as far as known.
	Node   string `json:"node,omitempty"`
	Object string `json:"object,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"`
}

// NodeStarted says that a Kustomization's turn has come. It is sent once for
// each attempt.
type NodeStarted struct {
	At
	Node string `json:"node"`
	// Attempt counts from 1; Attempts is the most there will be.
	Attempt  int `json:"attempt"`
	Attempts int `json:"attempts"`
}

// ObjectApplied says what was done to an object.
type ObjectApplied struct {
	At
	Change
}

// NodeApplied says that all objects of a Kustomization are in the cluster;
// what waits for its health goes on waiting, and its children may start.
type NodeApplied struct {
	At
	Node string `json:"node"`
	// Waiting is how many objects are waited for, Timeout for how long.
	Waiting int           `json:"waiting"`
	Timeout time.Duration `json:"timeout"`
}

// ObjectHealth says that an object's health changed while it was waited for.
type ObjectHealth struct {
	At
	Node   string `json:"node"`
	Object string `json:"object"`
	// Status is kstatus' word: InProgress, Current, Failed, Terminating,
	// NotFound or Unknown.
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// NodeRetrying says that an attempt failed and another follows.
type NodeRetrying struct {
	At
	Node    string        `json:"node"`
	Attempt int           `json:"attempt"`
	After   time.Duration `json:"after"`
	Failure Failure       `json:"failure"`
}

// Result is how a Kustomization ended.
type Result string

// The results of a Kustomization.
const (
	// Ready: applied, and healthy as far as its health was asked for.
	Ready Result = "ready"
	// Failed: invalid, or not or only partly applied.
	Failed Result = "failed"
	// Unhealthy: applied, but not healthy in time.
	Unhealthy Result = "unhealthy"
	// NotRun: something it depends on did not become ready.
	NotRun Result = "not-run"
	// Suspended: spec.suspend is true.
	Suspended Result = "suspended"
	// Excluded: left out by --only or --skip.
	Excluded Result = "excluded"
	// Cancelled: the run was stopped before or while it ran.
	Cancelled Result = "cancelled"
	// ResultPlanned and ResultValid: in order, as far as the command looked;
	// it was not to be applied.
	ResultPlanned Result = "planned"
	ResultValid   Result = "valid"
	// ResultDestroyed: all of it is gone that was to go.
	ResultDestroyed Result = "destroyed"
)

// NodeFinished ends a Kustomization.
type NodeFinished struct {
	At
	Node   string `json:"node"`
	Result Result `json:"result"`
	// Failures says why it failed, root causes first; empty if it did not.
	Failures []Failure `json:"failures,omitempty"`
	// BlockedBy names, for NotRun, the Kustomization whose failure is the
	// cause: the root cause, not the nearest dependency.
	BlockedBy string `json:"blockedBy,omitempty"`
	// Duration is from its first start to its end, Waited the part of it
	// that was spent waiting for health.
	Duration time.Duration `json:"duration"`
	Waited   time.Duration `json:"waited"`
}

// PruneStarted says that every gate is open and deletion begins.
type PruneStarted struct {
	At
	// Objects is how many objects are to be deleted.
	Objects int `json:"objects"`
}

// ObjectPruned says what pruning did with an object: Deleted or Kept.
type ObjectPruned struct {
	At
	Change
}

// PruneFinished ends pruning. It is sent only after a PruneStarted.
type PruneFinished struct {
	At
	Failures []Failure     `json:"failures,omitempty"`
	Duration time.Duration `json:"duration"`
}

// Verdict is the answer to "is this commit live and healthy?".
type Verdict string

// The verdicts, each with the exit code that stands for it.
const (
	// Live: everything applied and healthy (0). Whether anything changed
	// is in the counts.
	Live Verdict = "live"
	// VerdictFailed: failed while applying or pruning (1).
	VerdictFailed Verdict = "failed"
	// VerdictInvalid: found before the first write; nothing touched (3).
	VerdictInvalid Verdict = "invalid"
	// VerdictRefused: a guard said no; nothing touched (4).
	VerdictRefused Verdict = "refused"
	// VerdictUnhealthy: applied, but not healthy in time (5).
	VerdictUnhealthy Verdict = "unhealthy"
	// VerdictPlanned: a plan was made, and a run would begin (0, or 2 if
	// there are changes and that was asked for). Nothing was written.
	VerdictPlanned Verdict = "planned"
	// VerdictValid: everything builds and fits together (0). Nothing is
	// said about a cluster.
	VerdictValid Verdict = "valid"
	// VerdictDestroyed: all that was to go is gone (0).
	VerdictDestroyed Verdict = "destroyed"
	// VerdictCancelled: stopped by a signal (130, 143).
	VerdictCancelled Verdict = "cancelled"
)

// RunFinished closes every run.
type RunFinished struct {
	At
	Verdict Verdict `json:"verdict"`
	// ExitCode is the process's exit code for the verdict.
	ExitCode int `json:"exitCode"`
	// Failures lists what stopped the run as a whole, outside of any one
	// Kustomization, or all that was found invalid before the first write.
	Failures []Failure `json:"failures,omitempty"`
	// Pruned is false if pruning was left out because something failed.
	Pruned bool `json:"pruned"`
	// Saved is false if the records in the cluster could not be brought up
	// to date; the next run then repairs them.
	Saved bool `json:"saved"`
	// Repeated is how many requests to API servers were sent again after a
	// failure that could pass. Watches that were taken up again do not count.
	Repeated int `json:"repeated,omitempty"`
	// Next is a command or a sentence that says what to do now; empty
	// after success.
	Next     string        `json:"next,omitempty"`
	Duration time.Duration `json:"duration"`
}

// Failure is one cause, told so that a reader needs nothing else.
type Failure struct {
	// Phase is the stage that failed: source, discover, build,
	// substitute, graph, cluster, plan, lock, guard, apply, health, prune
	// or record.
	Phase string `json:"phase"`
	// Reason is a stable code in CamelCase, such as ImagePull, CrashLoop,
	// Timeout, Forbidden, DependencyCycle.
	Reason string `json:"reason"`
	// Text is one sentence: what is wrong. Hint says what to do.
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	// Node, Object, Container, File and Line say where, as far as known.
	Node      string `json:"node,omitempty"`
	Object    string `json:"object,omitempty"`
	Container string `json:"container,omitempty"`
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	// Events are the warnings around the object, noise removed; Logs the
	// last lines of the failing container, the previous instance first;
	// LogsNote says why there are none, or which instance they are from.
	Events   []WarningEvent `json:"events,omitempty"`
	Logs     []string       `json:"logs,omitempty"`
	LogsNote string         `json:"logsNote,omitempty"`
}

// WarningEvent is a Kubernetes warning event, equal ones counted together.
type WarningEvent struct {
	Count   int    `json:"count"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Type returns "run-started".
func (RunStarted) Type() string { return "run-started" }

// Type returns "source-opened".
func (SourceOpened) Type() string { return "source-opened" }

// Type returns "node-found".
func (NodeFound) Type() string { return "node-found" }

// Type returns "builds-finished".
func (BuildsFinished) Type() string { return "builds-finished" }

// Type returns "cluster-reached".
func (ClusterReached) Type() string { return "cluster-reached" }

// Type returns "planned".
func (Planned) Type() string { return "planned" }

// Type returns "notice".
func (Notice) Type() string { return "notice" }

// Type returns "node-started".
func (NodeStarted) Type() string { return "node-started" }

// Type returns "object-applied".
func (ObjectApplied) Type() string { return "object-applied" }

// Type returns "node-applied".
func (NodeApplied) Type() string { return "node-applied" }

// Type returns "object-health".
func (ObjectHealth) Type() string { return "object-health" }

// Type returns "node-retrying".
func (NodeRetrying) Type() string { return "node-retrying" }

// Type returns "node-finished".
func (NodeFinished) Type() string { return "node-finished" }

// Type returns "prune-started".
func (PruneStarted) Type() string { return "prune-started" }

// Type returns "object-pruned".
func (ObjectPruned) Type() string { return "object-pruned" }

// Type returns "prune-finished".
func (PruneFinished) Type() string { return "prune-finished" }

// Type returns "run-finished".
func (RunFinished) Type() string { return "run-finished" }
