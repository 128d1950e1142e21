// Package cli is the command line of sluice: flags, environment, standard
// streams and exit codes, and the wiring of everything below. It is the only
// package that reads any of them. Flags become an options value at once; no
// urfave/cli type travels further.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/safe"
)

// exitUsage is the exit code of wrong usage; those of a run are its verdicts',
// see event.Verdict.
const exitUsage = 64

// System is what the process gives to the command line. Getenv looks up the
// environment; Stdin, Stdout and Stderr are the standard streams. Stdin is only
// read where it is a terminal and the user has to confirm something; it may be nil.
// Main owns none of them.
type System struct {
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Main runs one command line and returns the process's exit code. The context
// should be of Signals, so that a signal gives its code. It never exits the
// process and never panics on bad input.
func Main(ctx context.Context, args []string, sys System) int {
	code := 0
	app := newApp(sys, &code)
	err := safe.Do(func() error { return app.RunContext(ctx, flagsFirst(app, args)) })
	var usage *usageError
	switch {
	case err == nil:
		return code
	case isFault(err):
		printError(sys.Stderr, err)
		return unwritten(code)
	case errors.As(err, &usage):
		printError(sys.Stderr, usage, "run 'sluice "+strings.TrimSpace(usage.command+" --help")+"' for the flags and what they mean")
		return exitUsage
	default:
		// Whatever urfave/cli itself refuses is wrong usage.
		printError(sys.Stderr, err, "run 'sluice --help' for the commands")
		return exitUsage
	}
}

// usageError is wrong usage of one command.
type usageError struct {
	command string
	text    string
}

func (e *usageError) Error() string { return e.text }

func usagef(command, format string, args ...any) error {
	return &usageError{command: command, text: fmt.Sprintf(format, args...)}
}

// badFlag is what urfave/cli says of flags it cannot read, in terms that help.
func badFlag(command string, err error) error {
	text := err.Error()
	if before, _, ok := strings.Cut(text, ": strconv."); ok {
		text = before
	}
	if name, ok := strings.CutSuffix(text, ": parse error"); ok {
		text = name
	}
	switch flag := text[strings.LastIndexAny(text, " -")+1:]; flag {
	case "timeout", "lock-wait":
		text += ": a duration is wanted, such as 90s or 1h30m"
	case "concurrency", "retries", "max-prune":
		text += ": a whole number is wanted"
	}
	return usagef(command, "%s", text)
}

// printError writes one error the way all are written: what is wrong, then
// what to do, each line with its own prefix.
func printError(w io.Writer, err error, hints ...string) {
	fmt.Fprintf(w, "sluice: %v\n", err)
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) && hinted.Hint() != "" {
		hints = append([]string{hinted.Hint()}, hints...)
	}
	for _, hint := range hints {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
	var fault *safe.Error
	if errors.As(err, &fault) {
		for _, line := range fault.Trace() {
			fmt.Fprintf(w, "  | %s\n", report.Clean(line))
		}
	}
}

func newApp(sys System, code *int) *cli.App {
	cli.VersionPrinter = nil
	commands := []*cli.Command{runCommand(sys, code), checkCommand(sys, code), planCommand(sys, code),
		buildCommand(sys, code), graphCommand(sys, code), statusCommand(sys, code), destroyCommand(sys, code), versionCommand(sys)}
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return badFlag(c.Name, err) }
	}
	return &cli.App{
		Name:  "sluice",
		Usage: "run Flux Kustomizations from a CI job, with no controller in the cluster",
		Description: "sluice takes one commit of a repository written for Flux, finds every\n" +
			"Kustomization, and brings them into a cluster in the order of dependsOn: build,\n" +
			"substitute, apply, wait until healthy, open the next gate, and prune at the end.\n" +
			"The exit code answers whether the commit is live and healthy.",
		Writer:                    sys.Stdout,
		ErrWriter:                 sys.Stderr,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		// The default would call os.Exit from inside a library.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return badFlag("", err) },
		Commands:       commands,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("", "unknown command %q", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
}
