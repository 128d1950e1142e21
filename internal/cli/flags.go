package cli

import (
	"slices"
	"time"

	"github.com/urfave/cli/v2"
)

// Categories of flags. The help text sorts them by name, so the names are
// chosen to give the order in which a reader needs them.
const (
	whatGroup    = "Input: what to run"
	clusterGroup = "Kubernetes: which cluster"
	howGroup     = "Process: how to run"
	guardGroup   = "Refusals: what sluice does not do unless told"
	outputGroup  = "Reports: what is told, and where"
)

// repoFlags are shared by every command that reads a repository.
func repoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "repo", Value: ".", EnvVars: env("REPO"), Category: whatGroup,
			Usage: "the `REPOSITORY`: a folder of a local Git checkout, or a clone URL (https, ssh, file)"},
		&cli.StringFlag{Name: "revision", EnvVars: env("REVISION"), Category: whatGroup,
			Usage: "the `COMMIT`, tag or branch to run; default: the checkout's HEAD, or for a URL the CI job's commit, else the default branch"},
		&cli.StringFlag{Name: "path", EnvVars: env("PATH"), Category: whatGroup,
			Usage: "the entry `FOLDER` inside the repository, such as clusters/production; needed unless the repository leaves one choice"},
		&cli.StringSliceFlag{Name: "var", EnvVars: env("VAR"), Category: whatGroup,
			Usage: "set a substitution variable, `NAME=VALUE`; wins over all that the repository says; repeatable (in the environment: one per line)"},
		&cli.StringFlag{Name: "vars-file", EnvVars: env("VARS_FILE"), Category: whatGroup,
			Usage: "read such variables from a `FILE`, one NAME=VALUE per line; --var wins over it"},
		&cli.StringSliceFlag{Name: "source", EnvVars: env("SOURCE"), Category: whatGroup,
			Usage: "serve a source from a local folder or repository, `KIND/NAMESPACE/NAME=PATH`; repeatable"},
		&cli.BoolFlag{Name: "no-cross-namespace-refs", EnvVars: env("NO_CROSS_NAMESPACE_REFS"), Category: whatGroup,
			Usage: "refuse a Kustomization whose sourceRef names another namespace than its own, as Flux's controller with this flag"},
		&cli.StringSliceFlag{Name: "only", EnvVars: env("ONLY"), Category: whatGroup,
			Usage: "run only Kustomizations that match the `GLOB` on namespace/name; what they depend on must be ready already; repeatable"},
		&cli.StringSliceFlag{Name: "skip", EnvVars: env("SKIP"), Category: whatGroup,
			Usage: "leave out Kustomizations that match the `GLOB` on namespace/name; repeatable"},
		&cli.BoolFlag{Name: "strict-substitution", Value: true, EnvVars: env("STRICT_SUBSTITUTION"), Category: whatGroup,
			Usage: "fail on a ${variable} that nothing sets and that has no default, as Flux does; false: it becomes empty"},
		&cli.StringFlag{Name: "substitute-precedence", Value: "inline", EnvVars: env("SUBSTITUTE_PRECEDENCE"), Category: whatGroup,
			Usage: "`WHICH` of two values wins: inline (postBuild.substitute, as Flux) or from (postBuild.substituteFrom)"},
		&cli.StringFlag{Name: "cache-dir", EnvVars: env("CACHE_DIR"), Category: howGroup,
			Usage: "keep what kustomize builds in this `FOLDER` for the next run, which then builds only what has changed; nobody else may write to it"},
		&cli.IntFlag{Name: "cache-limit", Value: 256, EnvVars: env("CACHE_LIMIT"), Category: howGroup,
			Usage: "leave at most `N` megabytes in --cache-dir; what was used least lately goes"},
		&cli.BoolFlag{Name: "no-remote-bases", EnvVars: env("NO_REMOTE_BASES"), Category: whatGroup,
			Usage: "fail if a kustomization file names a repository to clone or a file to download"},
	}
}

// runFlags are those that only a run has.
func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "kubeconfig", EnvVars: env("KUBECONFIG"), Category: clusterGroup,
			Usage: "the kubeconfig `FILE`; default: what KUBECONFIG names, else ~/.kube/config, else the pod's own account"},
		&cli.StringFlag{Name: "context", EnvVars: env("CONTEXT"), Category: clusterGroup,
			Usage: "the kubeconfig's `CONTEXT`; default: its current one"},
		&cli.StringFlag{Name: "as", EnvVars: env("AS"), Category: clusterGroup,
			Usage: "act as this `USER`, as kubectl's --as does"},
		&cli.StringFlag{Name: "state-namespace", Value: "flux-system", EnvVars: env("STATE_NAMESPACE"), Category: clusterGroup,
			Usage: "the `NAMESPACE` for sluice's records and lock; made if it is missing"},

		&cli.IntFlag{Name: "concurrency", Value: 8, EnvVars: env("CONCURRENCY"), Category: howGroup,
			Usage: "apply at most `N` Kustomizations at once"},
		&cli.StringFlag{Name: "wait", Value: "auto", EnvVars: env("WAIT"), Category: howGroup,
			Usage: "`MODE`, what to wait for before dependents start: auto (what the spec says; if it says nothing, the workloads that were applied), " +
				"spec (exactly what the spec says, as Flux), all (every object), none"},
		&cli.IntFlag{Name: "retries", Value: 2, EnvVars: env("RETRIES"), Category: howGroup,
			Usage: "try a failed Kustomization again `N` times, after its retryInterval (10s if it sets none)"},
		&cli.DurationFlag{Name: "timeout", Value: time.Hour, EnvVars: env("TIMEOUT"), Category: howGroup,
			Usage: "`LIMIT` for the whole run; keep it below the CI job's own"},
		&cli.StringFlag{Name: "default-service-account", EnvVars: env("DEFAULT_SERVICE_ACCOUNT"), Category: clusterGroup,
			Usage: "apply Kustomizations that set no serviceAccountName as the service account `NAME` of their own namespace"},
		&cli.StringFlag{Name: "default-kubeconfig-service-account", EnvVars: env("DEFAULT_KUBECONFIG_SERVICE_ACCOUNT"), Category: clusterGroup,
			Usage: "where a ConfigMap of spec.kubeConfig names no service account, use a token of `NAME` in the Kustomization's namespace"},
		&cli.BoolFlag{Name: "insecure-kubeconfig-exec", EnvVars: env("INSECURE_KUBECONFIG_EXEC"), Category: clusterGroup,
			Usage: "run the command that a kubeconfig of spec.kubeConfig names for its credentials; else it is ignored"},
		&cli.BoolFlag{Name: "insecure-kubeconfig-tls", EnvVars: env("INSECURE_KUBECONFIG_TLS"), Category: clusterGroup,
			Usage: "let a kubeconfig of spec.kubeConfig turn off the check of the server's certificate; else that is ignored"},
		&cli.StringSliceFlag{Name: "override-manager", EnvVars: env("OVERRIDE_MANAGER"), Category: howGroup,
			Usage: "take over the fields of managers whose `NAME` begins like this, as those of kubectl are; repeatable"},
		&cli.StringSliceFlag{Name: "custom-apply-stage-kinds", EnvVars: env("CUSTOM_APPLY_STAGE_KINDS"), Category: howGroup,
			Usage: "apply these `KINDS` before all others but definitions, namespaces, cluster roles and classes: <group>/<Kind>, with commas between them; repeatable"},
		&cli.BoolFlag{Name: "migrate-api-version", EnvVars: env("MIGRATE_API_VERSION"), Category: howGroup,
			Usage: "move the managed fields of objects to the applied version first: for custom resources that are refused with \"field not declared in schema\""},
		&cli.BoolFlag{Name: "keep-going", Value: true, EnvVars: env("KEEP_GOING"), Category: howGroup,
			Usage: "after a failure go on with the Kustomizations that do not depend on it; false: start nothing more"},

		&cli.BoolFlag{Name: "no-fail-fast", EnvVars: env("NO_FAIL_FAST"), Category: howGroup,
			Usage: "go on waiting for the other objects of a Kustomization when one has failed (Flux's gate DisableFailFastBehavior)"},
		&cli.BoolFlag{Name: "additive-cel-dependency-check", EnvVars: env("ADDITIVE_CEL_DEPENDENCY_CHECK"), Category: howGroup,
			Usage: "a dependency with a readyExpr must also be ready as any other (Flux's gate AdditiveCELDependencyCheck)"},

		&cli.StringFlag{Name: "plan", EnvVars: env("PLAN"), Category: guardGroup,
			Usage: "carry out exactly the plan in a `FILE` that plan --out has saved, with the same flags as there, or refuse"},
		&cli.BoolFlag{Name: "allow-rollback", EnvVars: env("ALLOW_ROLLBACK"), Category: guardGroup,
			Usage: "permit a commit that is older than the one that is live"},
		&cli.BoolFlag{Name: "allow-empty", EnvVars: env("ALLOW_EMPTY"), Category: guardGroup,
			Usage: "permit a Kustomization that builds to nothing to delete all that it had"},
		&cli.StringSliceFlag{Name: "allow-delete", EnvVars: env("ALLOW_DELETE"), Category: guardGroup,
			Usage: "permit the deletion of objects of this `KIND` where a guard protects them, and that force makes them again (Namespace, " +
				"CustomResourceDefinition, PersistentVolume, PersistentVolumeClaim); repeatable"},
		&cli.IntFlag{Name: "max-prune", Value: 50, EnvVars: env("MAX_PRUNE"), Category: guardGroup,
			Usage: "refuse to delete more than this share of a Kustomization's objects, in `PERCENT`, once it has more than 10"},
		&cli.DurationFlag{Name: "lock-wait", EnvVars: env("LOCK_WAIT"), Category: guardGroup,
			Usage: "wait for this `TIME` while another run holds the lock of the same root"},
	}
}

// outputFlags say what is told of a run, and where.
func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output", Value: "auto", EnvVars: env("OUTPUT"), Category: outputGroup,
			Usage: "the `FORM` of the log: auto (by where it runs), text, json (one event per line), github, gitlab"},
		&cli.StringSliceFlag{Name: "report", EnvVars: env("REPORT"), Category: outputGroup,
			Usage: "also write a report at the end, `FORMAT=FILE` with json, junit, markdown or gitlab-changes; repeatable"},
		&cli.BoolFlag{Name: "no-color", EnvVars: env("NO_COLOR"), Category: outputGroup,
			Usage: "no colours on a terminal; the variable NO_COLOR does the same"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, EnvVars: env("VERBOSE"), Category: outputGroup,
			Usage: "also show unchanged objects and every notice"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, EnvVars: env("QUIET"), Category: outputGroup,
			Usage: "show only the verdict"},
	}
}

// logFlags are the output flags of commands whose standard output is what was
// asked for; their log goes to standard error.
func logFlags() []cli.Flag { return pick(outputFlags(), "no-color", "verbose", "quiet") }

// readFlags are the flags of a run that also matter where nothing is applied:
// which cluster may be asked, and what decides on a build.
func readFlags(more ...string) []cli.Flag {
	return pick(runFlags(), slices.Concat(decisive, more)...)
}

// decisive are the names of those flags.
var decisive = []string{"kubeconfig", "context", "as", "state-namespace", "timeout"}

// applying are the names of the flags that only matter once something is written.
var applying = []string{"concurrency", "retries", "keep-going", "no-fail-fast", "lock-wait", "plan"}

// pick returns the flags of these names, in their own order.
func pick(flags []cli.Flag, names ...string) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool { return !slices.Contains(names, f.Names()[0]) })
}

// without returns the flags of other names.
func without(flags []cli.Flag, names ...string) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool { return slices.Contains(names, f.Names()[0]) })
}

func env(name string) []string { return []string{"SLUICE_" + name} }
