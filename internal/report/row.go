package report

import (
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

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
