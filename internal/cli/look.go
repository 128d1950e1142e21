package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/sluicerun/sluice/internal/export"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/diagram"
	"github.com/sluicerun/sluice/internal/run"
)

// The commands that only look: they go through the same stages as run, and stop
// before the first write.

// offlineCodes are the exit codes of the commands that judge the repository.
const offlineCodes = "Exit codes:\n" +
	"  0         every Kustomization can be built, and they fit together\n" +
	"  1         the answer could not be written\n" +
	"  3         invalid: what is wrong is listed, all of it\n" +
	"  64        wrong usage\n" +
	"  130, 143  stopped by SIGINT, SIGTERM\n\n"

func checkCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "judge the repository without a cluster: everything that is wrong, at once",
		Description: "Builds every Kustomization below --path and checks the order, as run does first. No cluster\n" +
			"is asked unless --kubeconfig or --context names one; variables that only a cluster has are\n" +
			"then told and left as they are.\n\n" + offlineCodes +
			"Examples:\n" +
			"  sluice check --path clusters/production\n" +
			"  sluice check --path clusters/production --report junit=sluice.xml",
		Flags:  slices.Concat(repoFlags(), readFlags("wait", "additive-cel-dependency-check"), outputFlags()),
		Action: pipeline(sys, code, nil),
	}
}

func planCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:  "plan",
		Usage: "show what run would do to the cluster, field by field; write nothing",
		Description: "Goes through the stages of run up to the first write, which it leaves out: the server is asked\n" +
			"about each change (dry runs), the guards are asked, no lock is taken and no record is written.\n\n" +
			"Exit codes:\n" +
			"  0         run would begin, whether or not it would change anything\n" +
			"  1         a report or the plan could not be written\n" +
			"  2         with --detailed-exitcode: run would begin, and would change something\n" +
			"  3         invalid: run would end at once\n" +
			"  4         refused: run would refuse to begin\n" +
			"  64        wrong usage\n" +
			"  130, 143  stopped by SIGINT, SIGTERM\n\n" +
			"Examples:\n" +
			"  sluice plan --path clusters/production\n" +
			"  sluice plan --path clusters/production --detailed-exitcode --report markdown=plan.md\n" +
			"  sluice plan --path clusters/production --out plan.json",
		Flags: slices.Concat(repoFlags(), without(runFlags(), applying...), planFlags(), outputFlags()),
		Before: func(c *cli.Context) error {
			// Found out now, not when the plan is made.
			if out := c.String("out"); out != "" {
				if info, err := os.Stat(filepath.Dir(out)); err != nil || !info.IsDir() {
					return usagef("plan", "--out %s: %q is no folder", out, filepath.Dir(out))
				}
			}
			return nil
		},
		Action: pipeline(sys, code, func(c *cli.Context, outcome run.Outcome, _ report.Summary) error {
			return savePlan(c.String("out"), outcome.Plan)
		}),
	}
}

func planFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "out", EnvVars: env("OUT"), Category: outputGroup,
			Usage: "save the plan in a `FILE` for run --plan; there is none if run would not begin"},
		&cli.BoolFlag{Name: "detailed-exitcode", EnvVars: env("DETAILED_EXITCODE"), Category: outputGroup,
			Usage: "end with exit code 2 if run would change something"},
	}
}

func buildCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "print the objects of all or some Kustomizations: rendered, substituted, labelled",
		ArgsUsage: "[NAME…]",
		Description: "Builds every Kustomization below --path and prints the objects of those that are named, as NAME\n" +
			"or NAMESPACE/NAME (* and ? stand for other characters), each after those that it depends on. No\n" +
			"cluster is asked unless --kubeconfig or --context names one. The values of Secrets are masked\n" +
			"unless --show-secrets is given. What there is to say goes to standard error.\n\n" + offlineCodes +
			"Examples:\n" +
			"  sluice build --path clusters/production apps\n" +
			"  sluice build --path clusters/production --output-dir out\n" +
			"  sluice build --path clusters/production --applied-only --show-secrets apps | kubectl diff -f -",
		Flags: slices.Concat(repoFlags(), readFlags(), buildFlags(), logFlags()),
		Action: pipeline(sys, code, func(c *cli.Context, outcome run.Outcome, _ report.Summary) error {
			options := export.Options{ShowSecrets: c.Bool("show-secrets")}
			if dir := c.String("output-dir"); dir != "" {
				return writeBuilds(dir, outcome.Built, options)
			}
			for _, b := range outcome.Built {
				if err := export.Write(sys.Stdout, b.Objects, options); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func buildFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "output-dir", EnvVars: env("OUTPUT_DIR"), Category: outputGroup,
			Usage: "write to a `FOLDER`, one file <namespace>/<name>.yaml for each Kustomization; made if it is missing"},
		&cli.BoolFlag{Name: "show-secrets", EnvVars: env("SHOW_SECRETS"), Category: outputGroup,
			Usage: "print the values of Secrets as they are, as Flux does; what SOPS has encrypted stays masked"},
		&cli.BoolFlag{Name: "applied-only", EnvVars: env("APPLIED_ONLY"), Category: outputGroup,
			Usage: "leave out what run does not apply: Kustomizations, sources, Flux's own components"},
		&cli.BoolFlag{Name: "keep-open", EnvVars: env("KEEP_OPEN"), Category: whatGroup,
			Usage: "leave ${variables} as they are that only the cluster has; otherwise they are errors"},
	}
}

// writeBuilds writes a file for each Kustomization. Each appears whole or not at
// all.
func writeBuilds(dir string, built []run.Built, options export.Options) error {
	for _, b := range built {
		var text bytes.Buffer
		if err := export.Write(&text, b.Objects, options); err != nil {
			return err
		}
		file := filepath.Join(dir, b.ID.Namespace, b.ID.Name+".yaml")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("--output-dir: %w", err)
		}
		if err := writeFile(file, text.Bytes(), 0o644); err != nil {
			return fmt.Errorf("--output-dir: %w", err)
		}
	}
	return nil
}

func graphCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:  "graph",
		Usage: "draw which Kustomization comes after which",
		Description: "Builds every Kustomization below --path, without a cluster unless --kubeconfig or --context names\n" +
			"one, and prints the graph: what holds what, and what depends on what. If something is wrong the\n" +
			"graph is printed as far as it is known, and what is wrong goes to standard error.\n\n" + offlineCodes +
			"Examples:\n" +
			"  sluice graph --path clusters/production\n" +
			"  sluice graph --path clusters/production -o dot | dot -Tsvg > graph.svg",
		Flags: slices.Concat(repoFlags(), readFlags("wait", "additive-cel-dependency-check"), graphFlags(), logFlags()),
		Before: func(c *cli.Context) error {
			if !slices.Contains(diagram.Formats(), c.String("format")) {
				return usagef("graph", "--format is one of %v, got %q", diagram.Formats(), c.String("format"))
			}
			return nil
		},
		Action: pipeline(sys, code, func(c *cli.Context, _ run.Outcome, s report.Summary) error {
			return diagram.Write(sys.Stdout, &s, c.String("format"))
		}),
	}
}

func graphFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "format", Aliases: []string{"o"}, Value: "text", EnvVars: env("FORMAT"), Category: outputGroup,
			Usage: "the `FORM` of the graph: text (a tree), mermaid, dot, json"},
	}
}
