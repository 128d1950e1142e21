package inventory

import (
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	"github.com/fluxcd/pkg/apis/meta"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/sluicerun/sluice/internal/flux"
)

// HistorySize is how many snapshots or runs a record keeps, Flux's own limit (S1.15).
const HistorySize = meta.HistoryMaxSize

// Result is how the last run left a Kustomization or a root.
type Result string

// The results. Applying stands from the first write on; what still says so later was cut off.
const (
	Applying  Result = "applying"
	Ready     Result = "ready"
	Failed    Result = "failed"
	Unhealthy Result = "unhealthy"
	Cancelled Result = "cancelled"
	// Destroying stands from the first write of a destroy on; Destroyed is a root of which all is gone that may go.
	Destroying Result = "destroying"
	Destroyed  Result = "destroyed"
)

// Flux's words for the status of a snapshot (S1.15).
const (
	StatusSucceeded         = "ReconciliationSucceeded"
	StatusFailed            = "ReconciliationFailed"
	StatusPruneFailed       = "PruneFailed"
	StatusHealthCheckFailed = "HealthCheckFailed"
)

// Record is what is remembered of one Kustomization: the objects it has in the cluster, and as much of its spec as is needed to
// delete them when it has left Git.
type Record struct {
	// ID is the Kustomization, Root the root of the run that owns it, Parent the Kustomization whose build held it (zero for
	// the root itself).
	ID     flux.ID
	Root   flux.ID
	Parent flux.ID

	// Path and Source are the spec's, defaults filled in.
	Path   string
	Source flux.Source

	// Revision is the source's, in Flux's form; OriginRevision is S1.16's; Digest is that of the built manifests,
	// "sha256:<hex>" (S0.14).
	Revision       string
	OriginRevision string
	Digest         string

	Result Result

	// Entries is the inventory: at any moment at least all that the Kustomization may have in the cluster.
	Entries []Entry

	// Prune, DeletionPolicy, Suspended, DependsOn, ServiceAccount and Timeout are what the spec said last. DeletionPolicy is
	// never empty after SetSpec; Timeout is S8.1's.
	Prune          bool
	DeletionPolicy string
	Suspended      bool
	DependsOn      []flux.ID
	ServiceAccount string
	Timeout        time.Duration
	// Marker is what protected the Kustomization's own manifest from pruning, as flux.PruneMarker says it (S5.9).
	Marker string

	// Updated is when the record was last saved, or confirmed in place of that; ToolVersion is what saved it. The caller sets both.
	Updated     time.Time
	ToolVersion string

	// History holds at most HistorySize snapshots, newest first (S1.15). Its Upsert method keeps it so.
	History meta.History

	// stored is the version of the stored form that this record was read from or saved as; saved is what Updated was there, and
	// said the sum of what it said.
	stored string
	saved  time.Time
	said   [sha256.Size]byte
	// parts are those of the inventory in the stored form, if it is split.
	parts []partRef
}

// NewRecord returns a record without entries for a Kustomization of a root.
func NewRecord(root flux.ID, k *flux.Kustomization) *Record {
	r := &Record{ID: k.ID, Root: root}
	r.SetSpec(k)
	return r
}

// SetSpec takes over what the record keeps of a Kustomization's manifest. It copies; k stays the caller's. It reports whether the
// manifest says anything else than the record did.
func (r *Record) SetSpec(k *flux.Kustomization) bool {
	before := *r
	r.Parent = k.Parent
	r.Path = k.Path()
	r.Source = k.Source()
	r.Prune = k.Spec.Prune
	r.DeletionPolicy = k.Spec.DeletionPolicy
	if r.DeletionPolicy == "" {
		r.DeletionPolicy = kustomizev1.DeletionPolicyMirrorPrune
	}
	r.Suspended = k.Spec.Suspend
	r.DependsOn = k.Dependencies()
	r.ServiceAccount = k.Spec.ServiceAccountName
	r.Timeout = k.Timeout()
	r.Marker = flux.PruneMarker(k.Labels, k.Annotations)
	return r.Parent != before.Parent || r.Path != before.Path || r.Source != before.Source || r.Prune != before.Prune ||
		r.DeletionPolicy != before.DeletionPolicy || r.Suspended != before.Suspended || !slices.Equal(r.DependsOn, before.DependsOn) ||
		r.ServiceAccount != before.ServiceAccount || r.Timeout != before.Timeout || r.Marker != before.Marker
}

// Stored reports whether the record is in a store, as far as its holder knows.
func (r *Record) Stored() bool { return r.stored != "" }

// Clone returns a copy that shares nothing and continues from the same stored form.
func (r *Record) Clone() *Record {
	c := *r
	c.Entries = append([]Entry(nil), r.Entries...)
	c.DependsOn = append([]flux.ID(nil), r.DependsOn...)
	c.parts = append([]partRef(nil), r.parts...)
	c.History = nil
	for _, s := range r.History {
		c.History = append(c.History, *s.DeepCopy())
	}
	return &c
}

// Root is what is remembered of an entry folder and all that grows from it.
type Root struct {
	// ID is the root Kustomization.
	ID flux.ID
	// Path is the entry folder, URL the repository's URL, normalised and without credentials; empty if unknown.
	Path string
	URL  string

	// Started is the last run that began to write, Finished the last that came to its end with everything ready. After a run
	// that did both they are equal.
	Started  Run
	Finished Run

	// Nodes lists the Kustomizations of the last run that began to write, sorted by id.
	Nodes []flux.ID

	// Confirmed holds what Confirm noted of records that were not saved. After a Load the records hold it, too.
	Confirmed map[flux.ID]Confirmation

	// Updated is when the record was last saved; ToolVersion is what saved it. The caller sets both.
	Updated     time.Time
	ToolVersion string

	// History holds at most HistorySize runs that ended, newest first.
	History []Run

	stored string
}

// Run is one run of a root. The zero value is no run.
type Run struct {
	// Revision is Flux's form, "main@sha1:<hex>" (S10.7); Commit is the hex alone.
	Revision string `json:"revision,omitempty"`
	Commit   string `json:"commit,omitempty"`
	Result   Result `json:"result,omitempty"`
	// Started and Ended are the runner's clock; Ended is zero while it runs.
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	// RunURL and Actor say who ran it, when a CI system tells.
	RunURL string `json:"runURL,omitempty"`
	Actor  string `json:"actor,omitempty"`
}

// Begin notes that a run begins to write.
func (r *Root) Begin(run Run) {
	run.Result = Applying
	r.Started = run
}

// End notes how the run that Begin noted ended. Only a Ready one becomes Finished.
func (r *Root) End(result Result, at time.Time) {
	r.Started.Result = result
	r.Started.Ended = at
	if result == Ready {
		r.Finished = r.Started
	}
	r.History = append([]Run{r.Started}, r.History...)
	r.History = r.History[:min(len(r.History), HistorySize)]
}

// Renamed returns a copy for a root of another name, which is not stored yet and whose last runs were these.
func (r *Root) Renamed(id flux.ID) *Root {
	c := r.Clone()
	c.ID, c.stored, c.Updated = id, "", time.Time{}
	c.Confirmed = nil // the records are saved as this root's, and say it then
	return c
}

// Stored reports whether the root is in a store, as far as its holder knows.
func (r *Root) Stored() bool { return r.stored != "" }

// Clone returns a copy that shares nothing and continues from the same stored form.
func (r *Root) Clone() *Root {
	c := *r
	c.Nodes = append([]flux.ID(nil), r.Nodes...)
	c.Confirmed = maps.Clone(r.Confirmed)
	c.History = append([]Run(nil), r.History...)
	return &c
}
