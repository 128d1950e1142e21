package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/redact"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/run"
	"github.com/sluicerun/sluice/internal/safe"
)

func runCommand(sys System, code *int) *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "bring one commit into the cluster, wait until it is healthy, prune what left Git",
		Description: "Builds every Kustomization below --path, asks the server about each change before the\n" +
			"first write, then applies them in the order of dependsOn, each gate opening when what\n" +
			"it waits for is healthy. Objects that left Git are deleted at the end.\n\n" +
			"Exit codes:\n" +
			"  0         done: the commit is live and healthy, whether or not anything changed\n" +
			"  1         failed while applying or pruning; the cluster may be half changed\n" +
			"  3         invalid: found before the first write, nothing was touched\n" +
			"  4         refused: lock held, older commit, prune guard, a live Flux controller, a stale plan\n" +
			"  5         applied, but not healthy in time\n" +
			"  64        wrong usage\n" +
			"  130, 143  stopped by SIGINT, SIGTERM\n\n" +
			"Examples:\n" +
			"  sluice run --path clusters/production\n" +
			"  sluice run --path clusters/production --var image_tag=v1.5.2\n" +
			"  sluice run --path clusters/production --plan plan.json\n" +
			"  sluice run --repo https://github.com/your-org/gitops --revision main --path clusters/staging --context staging",
		Flags:  slices.Concat(repoFlags(), runFlags(), outputFlags()),
		Action: pipeline(sys, code, nil),
	}
}

// pipeline is what a command does that goes through some stages of a run. What
// there is to show of it beside the log and the reports, show writes, however the
// run ended; nil shows nothing. If that fails, a run that ended well exits with 1.
func pipeline(sys System, code *int, show func(*cli.Context, run.Outcome, report.Summary) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		p := detect(sys.Getenv)
		options, err := parseRun(c, sys, p)
		if err != nil {
			return err
		}
		out, err := parseOutput(c, sys, p)
		if err != nil {
			return err
		}
		outcome, summary, written := execute(c.Context, options, out, sys)
		*code = written
		if show == nil {
			return nil
		}
		if err := safe.Do(func() error { return show(c, outcome, summary) }); err != nil {
			*code = unwritten(*code)
			if !errors.Is(err, syscall.EPIPE) { // as head(1) leaves it: whoever reads has enough
				printError(sys.Stderr, err)
			}
		}
		return nil
	}
}

// execute wires a run to its reports: run → redact → every format. The code is
// the outcome's, or 1 if a report that was asked for is not there, or if a fault
// of sluice has left something out of one.
func execute(ctx context.Context, o run.Options, out output, sys System) (outcome run.Outcome, summary report.Summary, code int) {
	secrets := redact.New()
	secrets.Learn(o.Source.Auth.Token, o.Source.Auth.Password, o.Source.Auth.Passphrase, string(o.Source.Auth.SSHKey))
	fold := report.NewFold()
	stream, closeLog := out.open(secrets)
	told := &tolerant{next: secrets.Sink(event.Tee(stream, fold))}
	sinks := run.Sinks{Events: told, Learn: secrets.Learn, Public: secrets.Public}
	if out.asks {
		sinks.Confirm = confirm(sys, stream)
	}
	outcome = run.Run(ctx, o, sinks)
	code = outcome.ExitCode
	leaving, left := untilLeaving(ctx)
	defer left()
	// The files first: whoever reads the log may have stopped to.
	errs := []error{safe.Do(func() error { summary = fold.Summary(); return nil })}
	errs = append(errs, out.writeReports(summary)...)
	unlogged := closeLog(leaving)
	if unlogged != nil && !isFault(unlogged) {
		printError(sys.Stderr, fmt.Errorf("the log could not be written: %w", unlogged))
		unlogged = nil
	}
	for _, err := range append(errs, unlogged, told.err) {
		if err != nil {
			printError(maskingWriter{sys.Stderr, secrets}, err)
			code = unwritten(code)
		}
	}
	return outcome, summary, code
}

// tolerant keeps a panic of what takes the events from the run, which has a
// cluster to leave in order. The event is lost to whoever had not got it yet.
type tolerant struct {
	next event.Sink
	err  error // the first panic
}

// Emit hands an event on.
func (t *tolerant) Emit(e event.Event) {
	if err := safe.Do(func() error { t.next.Emit(e); return nil }); err != nil && t.err == nil {
		t.err = err
	}
}

func isFault(err error) bool {
	var fault *safe.Error
	return errors.As(err, &fault)
}

// maskingWriter masks what is written, each call by itself.
type maskingWriter struct {
	to      io.Writer
	secrets *redact.Set
}

// Write writes p with every known secret masked.
func (w maskingWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.to, w.secrets.Mask(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unwritten is the exit code of a run that ended with another one, and of which
// something that was asked for is not there.
func unwritten(code int) int {
	if code == 0 || code == 2 { // both are good ends
		return 1
	}
	return code
}

// identity tells this process from every other, also from another attempt of
// the same CI job.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), strings.ToLower(rand.Text()[:8]))
}
