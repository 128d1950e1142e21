package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/sluicerun/sluice/internal/redact"
	"github.com/sluicerun/sluice/internal/report"
	"github.com/sluicerun/sluice/internal/report/github"
	"github.com/sluicerun/sluice/internal/report/gitlab"
	"github.com/sluicerun/sluice/internal/report/jsonl"
	"github.com/sluicerun/sluice/internal/report/junit"
	"github.com/sluicerun/sluice/internal/report/markdown"
	"github.com/sluicerun/sluice/internal/report/terminal"
	"github.com/sluicerun/sluice/internal/safe"
)

// heartbeat is how often a quiet log shows that the run is alive: a CI job that
// prints nothing looks as if it hung.
const heartbeat = time.Minute

// output is where a run is told to, and in which forms.
type output struct {
	format  string
	log     io.Writer
	noColor bool
	live    report.LiveOptions
	reports []reportFile
	asks    bool // the user has to confirm
	sys     System
}

// reportFile is one --report.
type reportFile struct{ format, path string }

// formats of --report, each with its rendering.
var reportFormats = map[string]func(io.Writer, report.Summary) error{
	"json":           report.WriteJSON,
	"junit":          junit.Write,
	"markdown":       markdown.Write,
	"gitlab-changes": gitlab.WriteChanges,
}

// parseOutput turns the flags about output into a value.
func parseOutput(c *cli.Context, sys System, p place) (output, error) {
	command := c.Command.Name
	out := output{format: c.String("output"), log: sys.Stdout, sys: sys, asks: asks(c), live: report.LiveOptions{Verbose: c.Bool("verbose"), Quiet: c.Bool("quiet")}}
	if out.format == "" {
		// Standard output is for what was asked for.
		out.format, out.log = "text", sys.Stderr
	}
	if out.format == "auto" {
		out.format = "text"
		if p.system != "" {
			out.format = p.system
		}
	}
	if !slices.Contains([]string{"text", "json", "github", "gitlab"}, out.format) {
		return out, usagef(command, "--output is auto, text, json, github or gitlab, got %q", out.format)
	}
	out.noColor = c.Bool("no-color") || sys.Getenv("NO_COLOR") != ""
	for _, text := range each(c, "report") {
		format, path, ok := strings.Cut(text, "=")
		if _, known := reportFormats[format]; !ok || path == "" || !known {
			return out, usagef(command, "--report %q is not FORMAT=FILE with a format of: %s", text, strings.Join(reportNames(), ", "))
		}
		// Found out now, not when the deployment is over.
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
			return out, usagef(command, "--report %s: %q is no folder", text, filepath.Dir(path))
		}
		out.reports = append(out.reports, reportFile{format, path})
	}
	return out, nil
}

func reportNames() []string {
	var names []string
	for name := range reportFormats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// open starts the log. The function it returns ends it and gives its first
// error; it returns when its context ends at the latest.
func (o output) open(secrets *redact.Set) (*report.Stream, func(context.Context) error) {
	var renderer report.Renderer
	switch o.format {
	case "json":
		renderer = jsonl.New()
	case "github":
		hub := github.New(github.Options{
			Live: o.live, Color: !o.noColor, Markdown: markdown.Render, Random: rand.Reader, ReportPath: o.path("json"),
			SummaryPath: o.sys.Getenv("GITHUB_STEP_SUMMARY"), OutputPath: o.sys.Getenv("GITHUB_OUTPUT"),
		})
		secrets.OnLearn(hub.Mask)
		renderer = hub
	case "gitlab":
		renderer = gitlab.New(gitlab.Options{Live: o.live, Color: !o.noColor})
	default:
		renderer = terminal.New(terminal.Options{Color: !o.noColor && isTerminal(o.log), Live: o.live})
	}
	ticker := time.NewTicker(heartbeat)
	stream := report.NewStream(o.log, renderer, ticker.C)
	return stream, func(ctx context.Context) error {
		defer ticker.Stop()
		return stream.Close(ctx)
	}
}

// path is where a report of the format goes, empty if none is asked for.
func (o output) path(format string) string {
	for _, r := range o.reports {
		if r.format == format {
			return r.path
		}
	}
	return ""
}

// writeReports writes every --report. A file appears whole or not at all, and
// whatever goes wrong with one of them, the others are written.
func (o output) writeReports(s report.Summary) []error {
	var errs []error
	for _, r := range o.reports {
		err := safe.Do(func() error {
			var text bytes.Buffer
			if err := reportFormats[r.format](&text, s); err != nil {
				return err
			}
			return writeFile(r.path, text.Bytes(), 0o644)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("--report %s=%s: %w", r.format, r.path, err))
		}
	}
	return errs
}

// writeFile writes a file, which appears whole or not at all.
func writeFile(path string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// isTerminal says so of a stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
