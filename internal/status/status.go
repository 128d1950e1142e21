// Package status is what `sluice status` tells: what sluice has in a cluster, as data, as a table for people, and as JSON. Finding
// it out is package run's.
package status

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Version is the version of the format. Fields may be added within a version; one that changes its meaning or goes away raises it.
const Version = 1

// Status is everything there is to tell. Its fields are described for users, since docs/status.md takes the text from here.
type Status struct {
	// Version of this format, 1. It is raised when a field changes its meaning or goes away; new fields do not raise it.
	Version int `json:"version"`
	// Version of sluice.
	Sluice string `json:"sluice"`
	// When it was looked at, UTC.
	Time time.Time `json:"time"`
	// The context of the kubeconfig. Absent inside a pod.
	Context string `json:"context,omitempty"`
	// The URL of the API server.
	Server string `json:"server"`
	// The namespace of the records.
	StateNamespace string `json:"stateNamespace"`
	// The entry folders that were run against this cluster, by the id of their root.
	Roots []Root `json:"roots"`
	// Objects that carry the owner labels of a Kustomization and are in no record. Absent if they were not looked for (`--no-health`).
	Orphans []Orphan `json:"orphans,omitzero"`
	// Kinds that could not be listed, so that orphans of these kinds are not known.
	Unlisted []Unlisted `json:"unlisted,omitempty"`
	// Records that cannot be read.
	Unreadable []Unreadable `json:"unreadable,omitempty"`
	// What `--repair` did. Absent if it was not asked for.
	Repairs []Repair `json:"repairs,omitzero"`
}

// Root is an entry folder and all that grows from it.
type Root struct {
	// The root Kustomization, `namespace/name`.
	ID string `json:"id"`
	// The entry folder.
	Path string `json:"path,omitempty"`
	// The repository's URL. Absent for a local repository without a remote.
	URL string `json:"url,omitempty"`
	// The revision of the last run that ended with everything ready. Absent if there was none.
	Live string `json:"live,omitempty"`
	// The last run that began to write. Absent if the root's own record is missing.
	Last *Run `json:"last,omitempty"`
	// Who holds the lock. Absent if nobody does.
	Lock *Lock `json:"lock,omitempty"`
	// The Kustomizations on record, by their id.
	Kustomizations []Kustomization `json:"kustomizations"`
	// The last runs that ended, newest first, at most 5.
	History []Run `json:"history"`
	// Why drift could not be told. Absent if it could, or was not asked for.
	DriftError string `json:"driftError,omitempty"`
}

// Run is one run of a root.
type Run struct {
	// The revision in Flux's form, such as `main@sha1:<commit>`.
	Revision string `json:"revision,omitempty"`
	// How it ended: `ready`, `failed`, `unhealthy`, `cancelled`, or `destroyed`; `applying` or `destroying` for one that is on or was cut off.
	Result string `json:"result"`
	// When it began to write, UTC.
	Started time.Time `json:"started,omitzero"`
	// When it ended, UTC. Absent for one that is on or was cut off.
	Ended time.Time `json:"ended,omitzero"`
	// The page of the CI job that ran it.
	RunURL string `json:"runURL,omitempty"`
	// Who or what started the CI job.
	Actor string `json:"actor,omitempty"`
}

// Lock is the lock of a root as it is held.
type Lock struct {
	// The Lease, `Lease/namespace/name`.
	Lease string `json:"lease"`
	// The process that holds it.
	Holder string `json:"holder"`
	// The page of the CI job that holds it.
	RunURL string `json:"runURL,omitempty"`
	// Who or what started that CI job.
	Actor string `json:"actor,omitempty"`
	// The commit of that run.
	Commit string `json:"commit,omitempty"`
	// Since when, by the clock of the holder.
	Since time.Time `json:"since,omitzero"`
	// Whether it was not renewed in time: its holder is gone, and the next run takes it at once.
	Expired bool `json:"expired"`
}

// Kustomization is a Kustomization on record.
type Kustomization struct {
	// `namespace/name`.
	ID string `json:"id"`
	// The revision that was applied with everything ready last. Absent if none was.
	Revision string `json:"revision,omitempty"`
	// How its last turn ended, as for runs.
	Result string `json:"result"`
	// When that was, UTC.
	Updated time.Time `json:"updated,omitzero"`
	// How many objects it has on record.
	Objects int `json:"objects"`
	// How many of each kind, the most frequent first.
	Kinds []Kind `json:"kinds"`
	// Whether it is suspended.
	Suspended bool `json:"suspended,omitempty"`
	// What its objects are like now. Absent if they were not looked at (`--no-health`).
	Health *Health `json:"health,omitempty"`
	// How many objects a run of the recorded commit would change. Absent if that was not asked for (`--drift`) or is not known.
	Drift *int `json:"drift,omitempty"`
	// The objects that a run of the recorded commit would change.
	Drifted []Drift `json:"drifted,omitempty"`
}

// Kind counts objects of a kind.
type Kind struct {
	// The kind.
	Kind string `json:"kind"`
	// The API group; empty for the core group.
	Group string `json:"group,omitempty"`
	// How many.
	Count int `json:"count"`
}

// Health is what objects are like.
type Health struct {
	// In one word: `healthy`; else the worst there is of `failed`, `missing`, `unknown`, `in progress`.
	Verdict string `json:"verdict"`
	// Objects that are as they should be.
	Current int `json:"current"`
	// The others.
	Objects []Unready `json:"objects,omitempty"`
}

// The verdicts of Health, the worst last.
const (
	Healthy    = "healthy"
	InProgress = "in progress"
	Unknown    = "unknown"
	Missing    = "missing"
	Failed     = "failed"
)

// Unready is an object that is not as it should be.
type Unready struct {
	// `Kind/namespace/name`, or `Kind/name`.
	Object string `json:"object"`
	// The Secret or ConfigMap that says how to reach its cluster. Absent for the cluster of the records.
	Cluster string `json:"cluster,omitempty"`
	// `InProgress`, `Failed`, `Terminating`, `NotFound` or `Unknown`.
	Status string `json:"status"`
	// What is known about it.
	Message string `json:"message,omitempty"`
}

// Drift is an object that a run would change.
type Drift struct {
	// `Kind/namespace/name`, or `Kind/name`.
	Object string `json:"object"`
	// What a run would do: `create`, `configure`, `recreate`, `delete` or `later`.
	Action string `json:"action"`
	// The fields it would change.
	Fields []string `json:"fields,omitempty"`
}

// Orphan is an object that carries the owner labels of a Kustomization and is in no record.
type Orphan struct {
	// `Kind/namespace/name`, or `Kind/name`.
	Object string `json:"object"`
	// Its API group and version.
	APIVersion string `json:"apiVersion"`
	// The Kustomization that its labels name.
	Kustomization string `json:"kustomization"`
	// The Secret or ConfigMap that says how to reach its cluster. Absent for the cluster of the records.
	Cluster string `json:"cluster,omitempty"`
}

// Unlisted is a kind that could not be listed.
type Unlisted struct {
	// The kind, as `Deployment.apps`, or an API group that did not answer.
	Kind string `json:"kind"`
	// The Secret or ConfigMap that says how to reach its cluster. Absent for the cluster of the records.
	Cluster string `json:"cluster,omitempty"`
	// Why.
	Reason string `json:"reason"`
}

// Unreadable is a record that cannot be read.
type Unreadable struct {
	// The ConfigMap, `ConfigMap/namespace/name`.
	Object string `json:"object"`
	// The Kustomization or root whose record it is, if that can be told.
	ID string `json:"id,omitempty"`
	// What is wrong.
	Error string `json:"error"`
	// What to do.
	Hint string `json:"hint,omitempty"`
}

// Repair is a record that was made anew.
type Repair struct {
	// The Kustomization, or the root.
	ID string `json:"id"`
	// `kustomization` or `root`.
	Record string `json:"record"`
	// How many objects the new record holds.
	Objects int `json:"objects,omitempty"`
	// What was not to be found out.
	Lost string `json:"lost,omitempty"`
}

// WriteJSON writes the status as JSON: indented, with a line end. The error is the writer's.
func WriteJSON(w io.Writer, s *Status) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}
