package cli

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/health"
	"github.com/sluicerun/sluice/internal/prune"
	"github.com/sluicerun/sluice/internal/run"
	"github.com/sluicerun/sluice/internal/source"
	"github.com/sluicerun/sluice/internal/substitute"
)

// parseRun turns the flags of a command into options; a flag that the command
// does not have is as if it were not given. All that is wrong with them is wrong
// usage.
func parseRun(c *cli.Context, sys System, p place) (run.Options, error) {
	command := c.Command.Name
	bad := func(format string, args ...any) (run.Options, error) {
		return run.Options{}, usagef(command, format, args...)
	}
	names := c.Args().Slice()
	ofRoot := command == "status" || command == "destroy"
	if len(names) > 0 && c.Command.ArgsUsage == "" {
		return bad("%s takes no arguments, got %q", command, names[0])
	}
	for _, name := range names {
		if _, err := path.Match(name, "name"); err != nil || strings.Count(name, "/") > 1 || name == "" {
			return bad("%q is no name of a Kustomization: NAME or NAMESPACE/NAME is wanted, flags before it", name)
		}
	}
	root := ""
	if ofRoot && len(names) > 0 {
		if len(names) > 1 {
			return bad("%s takes one root, got %q", command, names)
		}
		root, names = names[0], nil
	}
	has := func(flag string) bool {
		return slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == flag })
	}
	o := run.Options{
		Command: run.Command(command), Names: names,
		KeepOpen: command == "check" || command == "graph" || c.Bool("keep-open"), AppliedOnly: c.Bool("applied-only"),
		HideSecrets: has("show-secrets") && !c.Bool("show-secrets"), DetailedExitCode: c.Bool("detailed-exitcode"),
		Root: root, RepoChosen: command == "status" && remote(c.String("repo")), NoHealth: c.Bool("no-health"), Drift: c.Bool("drift"),
		Repair: c.Bool("repair"), OverwriteNewer: c.Bool("overwrite-newer"), DryRun: c.Bool("dry-run"), IfExists: c.Bool("if-exists"),
		Version: Version(), RunURL: p.runURL, Actor: p.actor, Identity: identity(),
		Source: source.Options{Repo: c.String("repo"), Revision: c.String("revision"), Name: p.branch},
		Path:   c.String("path"),
		Cluster: cluster.Options{
			Kubeconfig: c.String("kubeconfig"), SearchPaths: cluster.SearchPaths(sys.Getenv, sys.Getenv("HOME")),
			Context: c.String("context"), As: c.String("as"), UserAgent: "sluice/" + Version(),
		},
		StateNamespace: c.String("state-namespace"),
		Only:           each(c, "only"), Skip: each(c, "skip"),
		Strict:   c.Bool("strict-substitution"),
		CacheDir: c.String("cache-dir"), CacheLimit: int64(c.Int("cache-limit")) * 1_000_000,
		NoRemoteBases:         c.Bool("no-remote-bases"),
		DefaultServiceAccount: c.String("default-service-account"), OverrideManagers: each(c, "override-manager"),
		MigrateAPIVersion:               c.Bool("migrate-api-version"),
		NoCrossNamespaceRefs:            c.Bool("no-cross-namespace-refs"),
		DefaultKubeConfigServiceAccount: c.String("default-kubeconfig-service-account"),
		InsecureKubeConfigExec:          c.Bool("insecure-kubeconfig-exec"), InsecureKubeConfigTLS: c.Bool("insecure-kubeconfig-tls"),
		Concurrency: c.Int("concurrency"), Retries: c.Int("retries"), Timeout: c.Duration("timeout"),
		StopOnFailure: !c.Bool("keep-going"), NoFailFast: c.Bool("no-fail-fast"),
		AdditiveCELDependencyCheck: c.Bool("additive-cel-dependency-check"),
		AllowRollback:              c.Bool("allow-rollback"), AllowEmpty: c.Bool("allow-empty"),
		AllowDelete: each(c, "allow-delete"), MaxPrune: c.Int("max-prune"), LockWait: c.Duration("lock-wait"),
	}
	if remote(o.Source.Repo) && !ofRoot && o.Source.Revision == "" && p.serves(o.Source.Repo) {
		o.Source.Revision = p.commit
	}
	switch {
	case o.Concurrency < 1 && has("concurrency"):
		return bad("--concurrency must be at least 1, got %d", o.Concurrency)
	case o.Retries < 0:
		return bad("--retries must not be negative, got %d", o.Retries)
	case o.Timeout <= 0:
		return bad("--timeout must be more than 0, got %s", o.Timeout)
	case o.MaxPrune < 0 || o.MaxPrune > 100:
		return bad("--max-prune is a percentage from 0 to 100, got %d", o.MaxPrune)
	case o.LockWait < 0:
		return bad("--lock-wait must not be negative, got %s", o.LockWait)
	case o.CacheLimit < 1 && has("cache-limit"):
		return bad("--cache-limit must be at least 1, got %d", c.Int("cache-limit"))
	case o.StateNamespace == "":
		return bad("--state-namespace must not be empty")
	}
	if limit := p.jobLimit(time.Now()); limit > 0 && limit < o.Timeout {
		o.Job = &run.JobLimit{Timeout: p.jobTimeout}
		if c.IsSet("timeout") {
			o.Job.Asked = o.Timeout
		}
		o.Timeout = limit
	}
	for _, kind := range o.AllowDelete {
		if !slices.ContainsFunc(prune.GuardedKinds, func(known string) bool { return strings.EqualFold(known, kind) }) {
			return bad("--allow-delete %q is no kind that a guard protects, which are: %s", kind, strings.Join(prune.GuardedKinds, ", "))
		}
	}
	if command == "check" || command == "build" || command == "graph" {
		o.Offline = !c.IsSet("kubeconfig") && !c.IsSet("context")
	}
	var err error
	if o.CustomStageKinds, err = apply.ParseKinds(each(c, "custom-apply-stage-kinds")...); err != nil {
		return bad("--custom-apply-stage-kinds: %v", err)
	}
	if has("wait") {
		if o.Wait, err = health.ParseMode(c.String("wait")); err != nil {
			return bad("--wait: %v", err)
		}
	}
	switch o.Precedence = substitute.Precedence(c.String("substitute-precedence")); {
	case o.Precedence == substitute.InlineFirst, o.Precedence == substitute.FromFirst, !has("substitute-precedence"):
	default:
		return bad("--substitute-precedence is inline or from, got %q", o.Precedence)
	}
	for _, flag := range []string{"only", "skip"} {
		for _, glob := range each(c, flag) {
			if _, err := path.Match(glob, "namespace/name"); err != nil {
				return bad("--%s %q is not a glob: %v", flag, glob, err)
			}
		}
	}
	if o.CacheDir != "" {
		if info, err := os.Stat(o.CacheDir); err == nil && !info.IsDir() {
			return bad("--cache-dir %q is a file, where a folder is wanted", o.CacheDir)
		}
		o.Program = program()
	}
	if o.Vars, err = variables(c.String("vars-file"), c.StringSlice("var")); err != nil {
		return bad("%v", err)
	}
	o.Sources = map[string]string{}
	for _, s := range each(c, "source") {
		name, place, ok := strings.Cut(s, "=")
		if !ok || strings.Count(name, "/") != 2 || place == "" {
			return bad("--source %q is not of the form KIND/NAMESPACE/NAME=PATH", s)
		}
		o.Sources[name] = place
	}
	if o.Approved, err = readPlan(c.String("plan")); err != nil {
		return bad("%v", err)
	}
	o.SavePlan = c.String("out") != ""
	if o.Source.Auth, err = auth(sys.Getenv, o.Source.Repo, p); err != nil {
		return bad("%v", err)
	}
	return o, nil
}

// each returns the values of a flag that can be repeated; in the environment
// they stand one per line.
func each(c *cli.Context, flag string) []string {
	var values []string
	for _, value := range c.StringSlice(flag) {
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); line != "" {
				values = append(values, line)
			}
		}
	}
	return values
}

// variableName is what a variable may be called (S3.9).
var variableName = regexp.MustCompile(`^[_[:alpha:]][_[:alpha:][:digit:]]*$`)

// variables reads the file of variables and lays those of --var over it. An
// element with several lines, as the environment gives them, holds one each.
func variables(file string, given []string) (map[string]string, error) {
	vars := map[string]string{}
	set := func(where, text string) error {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("%s: %q is not of the form NAME=VALUE", where, name)
		}
		if !variableName.MatchString(name) {
			return fmt.Errorf("%s: %q is no name of a variable; it must match %s", where, name, variableName)
		}
		vars[name] = value
		return nil
	}
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--vars-file: %w", err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for n := 1; lines.Scan(); n++ {
			line := strings.TrimSpace(lines.Text())
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := set(fmt.Sprintf("--vars-file %s:%d", file, n), line); err != nil {
				return nil, err
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("--vars-file: %w", err)
		}
	}
	for _, element := range given {
		for line := range strings.Lines(element) {
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				continue
			}
			if err := set("--var", line); err != nil {
				return nil, err
			}
		}
	}
	return vars, nil
}
