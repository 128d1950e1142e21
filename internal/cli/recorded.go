package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/run"
	"github.com/sluicerun/sluice/internal/status"
)

// The commands that are about what is on record in a cluster, and about no commit.

// statusFormats are the forms of status; table is another word for text.
var statusFormats = []string{"text", "table", "json"}

func statusCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "tell what sluice has in the cluster: Kustomizations, revision, health, lock, orphans",
		ArgsUsage: "[ROOT]",
		Description: "Reads the records of all entry folders that were run against the cluster, or of the one that is named, as\n" +
			"NAME, as NAMESPACE/NAME or by --path, and looks at the objects on record. It needs no repository, except\n" +
			"for --drift, which compares with the commit on record. It writes nothing, except with --repair.\n\n" +
			"Exit codes:\n" +
			"  0         told, whatever there was to tell\n" +
			"  1         the answer could not be written\n" +
			"  3         the cluster or some record could not be read, or drift could not be told\n" +
			"  4         --repair refused: the lock is held, or it was not confirmed\n" +
			"  64        wrong usage\n" +
			"  130, 143  stopped by SIGINT, SIGTERM\n\n" +
			"Examples:\n" +
			"  sluice status\n" +
			"  sluice status --path clusters/production -o json\n" +
			"  sluice status --path clusters/production --drift",
		Flags: slices.Concat(without(repoFlags(), "only", "skip"), readFlags(slices.Concat(accounts, []string{"override-manager", "custom-apply-stage-kinds",
			"migrate-api-version", "lock-wait"})...), pick(graphFlags(), "format"), statusFlags(), pick(destroyFlags(), "yes"), logFlags()),
		Before: func(c *cli.Context) error {
			switch {
			case !slices.Contains(statusFormats, c.String("format")):
				return usagef("status", "--format is one of %v, got %q", statusFormats, c.String("format"))
			case c.Bool("overwrite-newer") && !c.Bool("repair"):
				return usagef("status", "--overwrite-newer is for --repair")
			case c.Bool("repair"):
				return confirmable(c, sys)
			}
			return nil
		},
		Action: pipeline(sys, code, func(c *cli.Context, outcome run.Outcome, _ report.Summary) error {
			switch {
			case outcome.Status == nil:
				return nil
			case c.String("format") == "json":
				return status.WriteJSON(sys.Stdout, outcome.Status)
			}
			return status.WriteTable(sys.Stdout, outcome.Status)
		}),
	}
}

// accounts are the flags that say as whom, and how, other clusters are asked.
var accounts = []string{"default-service-account", "default-kubeconfig-service-account", "insecure-kubeconfig-exec", "insecure-kubeconfig-tls"}

func statusFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "no-health", EnvVars: env("NO_HEALTH"), Category: howGroup,
			Usage: "tell only what is on record: do not look at live objects, nor for orphans"},
		&cli.BoolFlag{Name: "drift", EnvVars: env("DRIFT"), Category: howGroup,
			Usage: "also count the objects that a run of the commit on record would change; needs the repository, and the variables of the run"},
		&cli.BoolFlag{Name: "repair", EnvVars: env("REPAIR"), Category: howGroup,
			Usage: "rebuild records that are damaged or missing from what carries owner labels in the cluster"},
		&cli.BoolFlag{Name: "overwrite-newer", EnvVars: env("OVERWRITE_NEWER"), Category: guardGroup,
			Usage: "with --repair: also rebuild records that a newer sluice wrote; what only it knows is lost"},
	}
}

func destroyCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:      "destroy",
		Usage:     "delete everything of a root, in reverse order of dependsOn, and wait until it is gone",
		ArgsUsage: "[ROOT]",
		Description: "Deletes the objects that are on record of an entry folder and its Kustomizations: what depends on something\n" +
			"goes before it. Then the records go. It needs no repository: name the root as NAME, as NAMESPACE/NAME, or\n" +
			"by --path; sluice status lists them. On a terminal the name of the root has to be typed; elsewhere --yes is needed.\n\n" +
			"Exit codes:\n" +
			"  0         done: all that was to go is gone\n" +
			"  1         failed while deleting; what is left is on record, and the next destroy goes on from there\n" +
			"  3         invalid: the cluster or a record could not be read, or there is no such root; nothing was touched\n" +
			"  4         refused: not confirmed, lock held, a guard, a live Flux controller; nothing was touched\n" +
			"  64        wrong usage\n" +
			"  130, 143  stopped by SIGINT, SIGTERM\n\n" +
			"Examples:\n" +
			"  sluice destroy flux-system/clusters-review-42\n" +
			"  sluice destroy --path clusters/review-42 --dry-run\n" +
			"  sluice destroy --path clusters/review-42 --yes --if-exists --lock-wait 10m",
		Flags: slices.Concat(pick(repoFlags(), "path"), readFlags(slices.Concat(accounts, []string{"allow-delete", "lock-wait"})...), destroyFlags(), outputFlags()),
		Before: func(c *cli.Context) error {
			switch {
			case c.NArg() == 0 && c.String("path") == "":
				return usagef("destroy", "name the root to destroy, as NAMESPACE/NAME or by --path; sluice status lists them")
			case c.Bool("dry-run"):
				return nil
			}
			return confirmable(c, sys)
		},
		Action: pipeline(sys, code, nil),
	}
}

func destroyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "yes", EnvVars: env("YES"), Category: guardGroup,
			Usage: "do not ask; needed where there is no terminal"},
		&cli.BoolFlag{Name: "dry-run", EnvVars: env("DRY_RUN"), Category: howGroup,
			Usage: "tell what would be deleted and what the guards say; write nothing"},
		&cli.BoolFlag{Name: "if-exists", EnvVars: env("IF_EXISTS"), Category: guardGroup,
			Usage: "end well if no such root is on record"},
	}
}

// confirmable refuses to ask where nobody can answer.
func confirmable(c *cli.Context, sys System) error {
	if c.Bool("yes") || isTerminal(sys.Stdin) {
		return nil
	}
	return usagef(c.Command.Name, "there is no terminal to ask on: give --yes to do it without being asked")
}

// asks says whether the user has to be asked before something is written.
func asks(c *cli.Context) bool {
	switch c.Command.Name {
	case "destroy":
		return !c.Bool("yes") && !c.Bool("dry-run")
	case "status":
		return !c.Bool("yes") && c.Bool("repair")
	}
	return false
}

// confirm returns what asks the user: it shows the question when the log is up to
// date, and waits for a line or the end of the context.
func confirm(sys System, log *report.Stream) func(context.Context, run.Question) (string, error) {
	return func(ctx context.Context, q run.Question) (string, error) {
		log.Flush()
		for _, line := range q.Lines {
			fmt.Fprintln(sys.Stderr, report.Clean(line))
		}
		fmt.Fprintf(sys.Stderr, "Type %s to go on: ", report.Clean(q.Word))
		type answer struct {
			line string
			err  error
		}
		answers := make(chan answer, 1)
		go func() {
			line, err := bufio.NewReader(sys.Stdin).ReadString('\n')
			if errors.Is(err, io.EOF) && line != "" {
				err = nil
			}
			answers <- answer{line, err}
		}()
		select {
		case a := <-answers:
			if errors.Is(a.err, io.EOF) {
				return "", errors.New("there was no answer")
			}
			return a.line, a.err
		case <-ctx.Done():
			fmt.Fprintln(sys.Stderr)
			return "", context.Cause(ctx)
		}
	}
}
