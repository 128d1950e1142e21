//go:build unix

// Command compare measures sluice beside other clients, on API servers of the
// same build and on the same machine, and says what each took: time, requests
// by verb, and for sluice processor time and peak memory.
//
//	compare [flags]                measure; the table goes to standard output
//	compare publish PAGE FILE…     write results into a page
//
// docs/benchmarks.md says what is measured and what the numbers mean.
//
// It reports and never judges: a number over its budget is no failure, since it
// depends on what else the machine does. A client that fails is one.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	scale   float64
	rounds  int
	shapes  []string
	clients []string
	long    bool
	json    string
	program string   // sluice; "" is one built from this tree
	args    []string // further ones of sluice run
	env     []string // of sluice, for tests
}

// usual are the shapes that are measured unless others are asked for.
const usual = "chain,layers,wide,big"

func command(ctx context.Context, args []string, out, progress io.Writer) error {
	if len(args) > 0 && args[0] == "publish" {
		if len(args) < 3 {
			return errors.New("usage: compare publish PAGE FILE…")
		}
		return publish(args[1], args[2:])
	}
	var c config
	var shapes, clients, arguments string
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.Float64Var(&c.scale, "scale", 1, "shrink the shapes, such as 0.05 to see whether all works")
	flags.IntVar(&c.rounds, "rounds", 1, "measure everything so often; the table has medians")
	flags.StringVar(&shapes, "shapes", usual, "which shapes, with commas: chain, layers, wide, big, huge")
	flags.StringVar(&clients, "clients", "", "which clients beside raw, with commas: sluice, sluice-cache, ssa-4, ssa-32, kubectl (default all)")
	flags.BoolVar(&c.long, "long", false, "measure the kubectl loop in all situations, not only in the first two")
	flags.StringVar(&c.json, "json", "", "also write the report as JSON to this `file`")
	flags.StringVar(&c.program, "sluice", "", "the sluice `binary` to measure (default one built from this tree)")
	flags.StringVar(&arguments, "arguments", "", "further arguments of sluice run, with blanks between them")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	c.shapes, c.args = split(shapes), strings.Fields(arguments)
	c.clients = split(clients)
	began := time.Now()
	report, err := measure(ctx, c, progress)
	if report == nil {
		return err
	}
	fmt.Fprintf(progress, "measured for %s\n\n", time.Since(began).Round(time.Second))
	return errors.Join(err, c.write(report, out))
}

// write writes the report as JSON, if that is asked for, and as a table.
func (c config) write(report *Report, out io.Writer) error {
	if c.json != "" {
		data, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.json, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	_, err := io.WriteString(out, report.markdown())
	return err
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// measure builds what is missing and measures all that the configuration asks
// for. If it fails on the way, the report is what was measured until then.
func measure(ctx context.Context, c config, progress io.Writer) (*Report, error) {
	log.SetLogger(logr.Discard()) // what the libraries log is not of interest
	chosen, err := c.choose()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s := sluice{dir: dir, env: c.env, args: c.args}
	if s.measure, err = build(ctx, dir, "internal/bench/measure"); err != nil {
		return nil, err
	}
	if c.program == "" {
		c.program, err = build(ctx, dir, "cmd/sluice")
	} else {
		c.program, err = filepath.Abs(c.program)
	}
	if s.program = c.program; err != nil {
		return nil, err
	}
	report := &Report{Date: time.Now().UTC().Format(time.DateOnly), Machine: thisMachine(), Scale: c.scale, Rounds: c.rounds, Arguments: c.args}
	if report.Versions, err = s.version(ctx); err != nil {
		return nil, err
	}
	all := []client{raw{}, s, cached{s}, stock{4}, stock{32}}
	k, version, err := newKubectl(ctx, dir, c.long)
	if err != nil {
		report.Missing = append(report.Missing, "the kubectl loop, because "+err.Error())
	} else {
		all = append(all, k)
		report.Versions = append(report.Versions, "kubectl "+version)
	}
	work := &comparison{shapes: chosen, rounds: c.rounds, progress: progress, busy: report.Machine.Busy}
	for _, one := range all {
		if len(c.clients) == 0 || slices.Contains(c.clients, one.name()) || one.name() == (raw{}).name() {
			work.clients = append(work.clients, one)
		}
	}
	if report.Start, err = s.starting(ctx); err != nil {
		return nil, err
	}
	if report.Shapes, err = work.run(ctx); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		report.Failed = first
	}
	report.Machine.Busy = work.busy
	if work.server != "" {
		report.Versions = append(report.Versions, "Kubernetes "+work.server)
	}
	return report, err
}

// choose returns the shapes that are asked for, in their own order.
func (c config) choose() ([]shape, error) {
	if c.scale <= 0 || c.scale > 1 || c.rounds < 1 {
		return nil, fmt.Errorf("scale %g and rounds %d: the scale is more than 0 and at most 1, and there is at least 1 round", c.scale, c.rounds)
	}
	all := shapes(c.scale)
	var chosen []shape
	unknown := slices.Clone(c.shapes)
	for _, s := range all {
		if slices.Contains(c.shapes, s.name) {
			chosen = append(chosen, s)
		}
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return name == s.name })
	}
	if len(unknown) > 0 || len(chosen) == 0 {
		return nil, fmt.Errorf("shapes %q are not known: take some of chain, layers, wide, big, huge", unknown)
	}
	return chosen, nil
}

// newKubectl finds kubectl. Its error is why there is none.
func newKubectl(ctx context.Context, dir string, long bool) (kubectl, string, error) {
	program, err := exec.LookPath("kubectl")
	if err != nil {
		return kubectl{}, "", errors.New("there is no kubectl on the PATH")
	}
	k := kubectl{program: program, dir: filepath.Join(dir, "kubectl"), always: long}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return kubectl{}, "", err
	}
	cmd := exec.CommandContext(ctx, program, "version", "--client", "--output", "json")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + k.dir}
	out, err := cmd.Output()
	if err != nil {
		return kubectl{}, "", fmt.Errorf("kubectl version: %w", err)
	}
	var said struct {
		ClientVersion struct{ GitVersion string }
	}
	if err := json.Unmarshal(out, &said); err != nil {
		return kubectl{}, "", fmt.Errorf("kubectl version: %w", err)
	}
	return k, said.ClientVersion.GitVersion, nil
}
