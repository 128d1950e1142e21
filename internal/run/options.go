package run

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/planfile"
	"github.com/sluicerun/sluice/internal/source"
	"github.com/sluicerun/sluice/internal/status"
	"github.com/sluicerun/sluice/internal/substitute"
)

// Options say what to run and how. They are values only: nothing below cli
// reads a flag or the environment.
type Options struct {
	// Command says how far to go.
	Command Command

	// Version is sluice's own version, RunURL and Actor say who started the
	// run, where known; they go into reports, records and the lock.
	// Identity tells this process from every other, also from another attempt
	// of the same job.
	Version  string
	RunURL   string
	Actor    string
	Identity string

	// Source says which repository, and which commit of it.
	Source source.Options
	// Path is the entry folder; empty if the repository leaves one choice.
	Path string
	// Sources serves a source, named "Kind/namespace/name", from somewhere
	// else than the cluster says: a local folder or repository.
	Sources map[string]string
	// NoCrossNamespaceRefs refuses a sourceRef to another namespace than the
	// Kustomization's own (S1.6). dependsOn is not limited.
	NoCrossNamespaceRefs bool

	// Cluster says which API server, as whom.
	Cluster cluster.Options
	// StateNamespace holds the records and the lock.
	StateNamespace string

	// Only and Skip are globs on "namespace/name" that restrict the run.
	// Empty Only means all; Skip is stronger. Names are as Only, given as
	// arguments: there a name alone stands for those in any namespace.
	Only  []string
	Skip  []string
	Names []string

	// Root names the root that CommandStatus and CommandDestroy are about, by
	// its id or its name alone; Path does so by the entry folder that is on
	// record, and Source.Repo by the URL on record if RepoChosen is set. If
	// none does, status is about all.
	Root       string
	RepoChosen bool
	// NoHealth keeps status from looking at live objects, Drift makes it compare
	// with the commit on record, Repair makes it rebuild records that cannot
	// be read, OverwriteNewer those of a later version of sluice too.
	NoHealth       bool
	Drift          bool
	Repair         bool
	OverwriteNewer bool
	// DryRun keeps destroy from writing. IfExists makes it a success that no such
	// root is on record.
	DryRun   bool
	IfExists bool

	// Offline keeps the commands that are not about a cluster from asking
	// one. Nothing then tells the variables that only the cluster has;
	// KeepOpen leaves those in the objects as they are.
	Offline  bool
	KeepOpen bool
	// HideSecrets fills in <secret> for the variables that a Secret sets.
	HideSecrets bool
	// AppliedOnly leaves out of a build what a run would not apply.
	AppliedOnly bool
	// SavePlan makes a plan part of its outcome. Approved is such a plan: a
	// run refuses to do anything else.
	SavePlan bool
	Approved *planfile.File
	// DetailedExitCode makes a plan with changes end with code 2.
	DetailedExitCode bool

	// Vars are substitution variables of highest precedence.
	Vars map[string]string
	// Strict fails on variables that nobody sets (S3.16).
	Strict bool
	// Precedence says which wins of substitute and substituteFrom. Flux's is
	// substitute (S3.4).
	Precedence substitute.Precedence

	// CacheDir is the folder with the cache of builds, which is made if it is
	// missing; empty for none. CacheLimit is how many bytes are left in it.
	// Program tells this program from every other that may build something
	// else of the same files.
	CacheDir   string
	CacheLimit int64
	Program    string

	// NoRemoteBases forbids builds to fetch anything (S2.34).
	NoRemoteBases bool

	// DefaultServiceAccount is what Kustomizations without an account of their
	// own are applied as; it is in the namespace of each (S4.40).
	DefaultServiceAccount string
	// DefaultKubeConfigServiceAccount is whose token is used where a
	// ConfigMap of spec.kubeConfig names no account (S4.43).
	DefaultKubeConfigServiceAccount string
	// InsecureKubeConfigExec lets kubeconfigs of spec.kubeConfig run commands
	// here, and InsecureKubeConfigTLS lets them turn off the check of the
	// server's certificate (S4.42).
	InsecureKubeConfigExec bool
	InsecureKubeConfigTLS  bool
	// CustomStageKinds, OverrideManagers and MigrateAPIVersion are the fields
	// of [apply.Options] of the same names.
	CustomStageKinds  map[schema.GroupKind]struct{}
	OverrideManagers  []string
	MigrateAPIVersion bool

	// Concurrency is how many Kustomizations are applied at once.
	Concurrency int
	// Wait says what is waited for.
	Wait health.Mode
	// Retries is how often a failed Kustomization is tried again.
	Retries int
	// Timeout limits the whole run. Job is set if that is what is left of the CI
	// job's own limit, and nil if it is what the user wants.
	Timeout time.Duration
	Job     *JobLimit
	// NoFailFast goes on waiting for a Kustomization's other objects when one
	// of them has failed (S6.11).
	NoFailFast bool
	// AdditiveCELDependencyCheck asks of a dependency with a readyExpr what
	// is asked of any other as well (S7.8); it is the name of Flux's gate.
	AdditiveCELDependencyCheck bool
	// StopOnFailure starts nothing new after the first failure.
	StopOnFailure bool

	// AllowRollback permits a commit older than the one that is live.
	AllowRollback bool
	// AllowEmpty permits a build without objects to delete everything.
	AllowEmpty bool
	// AllowDelete names kinds that the guards would otherwise protect, and that
	// force would otherwise not make again.
	AllowDelete []string
	// MaxPrune is the share of a Kustomization's objects, in percent, that
	// may be deleted without a word once it has more than ten.
	MaxPrune int
	// LockWait is how long to wait for another run of the same root.
	LockWait time.Duration
}

// JobLimit is the limit of the CI job that a run is part of.
type JobLimit struct {
	// Timeout is how long the job may take as a whole.
	Timeout time.Duration
	// Asked is the longer time that the user has asked for; 0 if for none.
	Asked time.Duration
}

// Sinks are where a run's facts go.
type Sinks struct {
	// Events takes every event; see event.Sink for what it may rely on.
	Events event.Sink
	// Learn is told every secret value before an event could hold it. It
	// must be safe for concurrent use.
	Learn func(values ...string)
	// Public is told names that everybody can read anyway, so that a secret
	// value which equals one does not blank it out. It must be safe for
	// concurrent use.
	Public func(values ...string)
	// Confirm asks the user and returns what was typed. Nil where nobody is to
	// be asked. All events so far have been sent to Events before.
	Confirm func(context.Context, Question) (string, error)
}

// Outcome is the verdict of a run.
type Outcome struct {
	Verdict event.Verdict
	// ExitCode is what the process should exit with.
	ExitCode int
	// Built is what CommandBuild was for; nil if it did not succeed.
	Built []Built
	// Plan is what CommandPlan would do, if it was to be saved; nil if a run
	// would not begin.
	Plan *planfile.File
	// Status is what CommandStatus was for, as far as it came; nil if it found
	// out nothing.
	Status *status.Status
}

// exitCoder is a context's cause that knows the process's exit code, as a
// signal does.
type exitCoder interface{ ExitCode() int }

// changesCode is the exit code of a plan with changes, if that is wanted.
const changesCode = 2

// exitCode is the code that stands for a verdict; see the table in docs.
func exitCode(ctx context.Context, v event.Verdict) int {
	switch v {
	case event.Live, event.VerdictPlanned, event.VerdictValid, event.VerdictDestroyed:
		return 0
	case event.VerdictInvalid:
		return 3
	case event.VerdictRefused:
		return 4
	case event.VerdictUnhealthy:
		return 5
	case event.VerdictCancelled:
		if stopped, ok := context.Cause(ctx).(exitCoder); ok {
			return stopped.ExitCode()
		}
	}
	return 1
}
