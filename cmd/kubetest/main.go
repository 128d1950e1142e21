//go:build unix

// Command kubetest starts and stops the Kubernetes test cluster of package kubetest at a shell. docs/test-cluster.md describes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluicerun/sluice/internal/kubetest"
)

const usage = `kubetest starts a real Kubernetes control plane on this machine, for tests and demonstrations.

  kubetest up   [--dir .cluster] [--nodes 3]       start a cluster in the background; kubeconfig in DIR/kubeconfig
  kubetest down [--dir .cluster]                   stop it and remove its files
  kubetest run  [--nodes 3] [--logs DIR] -- CMD…   start a cluster, run CMD with KUBECONFIG set, stop the cluster;
                                                   the exit code is that of CMD
  kubetest build                                   build the programs of the cluster, once, into the cache; print their paths

The first start builds the programs, which takes some minutes.
`

// exitUsage is the exit code for wrong usage (EX_USAGE of sysexits.h).
const exitUsage = 64

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Fprint(stdout, usage)
		return 0
	}
	flags := flag.NewFlagSet("kubetest "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	dir, nodes, logs := flags.String("dir", ".cluster", ""), flags.Int("nodes", 3, ""), flags.String("logs", "", "")
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	if *nodes < 1 {
		return wrongUsage(stderr, "--nodes %d: at least one is needed", *nodes)
	}
	if args[0] != "run" && flags.NArg() > 0 {
		return wrongUsage(stderr, "unexpected argument %q", flags.Arg(0))
	}
	var code int
	var err error
	switch args[0] {
	case "up":
		err = up(ctx, *dir, *nodes, stdout, stderr)
	case "down":
		err = down(ctx, *dir, stdout)
	case "build":
		err = build(ctx, stdout, stderr)
	case "run":
		if flags.NArg() == 0 {
			return wrongUsage(stderr, "run: no command given")
		}
		code, err = runCommand(ctx, flags.Args(), *nodes, *logs, stderr)
	default:
		return wrongUsage(stderr, "unknown command %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(stderr, "kubetest:", err)
		return max(code, 1)
	}
	return code
}

func wrongUsage(stderr io.Writer, format string, args ...any) int {
	fmt.Fprintf(stderr, "kubetest: "+format+"\n\n", args...)
	fmt.Fprint(stderr, usage)
	return exitUsage
}

func up(ctx context.Context, dir string, nodes int, stdout, stderr io.Writer) error {
	kubeconfig, err := filepath.Abs(filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	cluster, err := kubetest.Up(ctx, kubetest.Options{Dir: dir, Nodes: nodes, Progress: stderr})
	switch {
	case errors.Is(err, kubetest.ErrRunning):
		fmt.Fprintf(stdout, "The cluster already runs.\n\n")
	case err != nil:
		return err
	default:
		fmt.Fprintf(stdout, "The cluster runs at %s.\n\n", cluster.Server())
	}
	fmt.Fprintf(stdout, "  export KUBECONFIG=%s\n\nStop it with: kubetest down --dir %s\n", kubeconfig, dir)
	return nil
}

func down(ctx context.Context, dir string, stdout io.Writer) error {
	stopped, err := kubetest.Down(ctx, dir)
	if err != nil {
		return err
	}
	if stopped {
		fmt.Fprintf(stdout, "The cluster in %s is stopped.\n", dir)
	} else {
		fmt.Fprintf(stdout, "No cluster runs in %s.\n", dir)
	}
	return nil
}

func build(ctx context.Context, stdout, stderr io.Writer) error {
	paths, err := kubetest.Build(ctx, stderr)
	if err != nil {
		return err
	}
	var sorted []string
	for _, path := range paths {
		sorted = append(sorted, path)
	}
	slices.Sort(sorted)
	for _, path := range sorted {
		fmt.Fprintln(stdout, path)
	}
	return nil
}

// runCommand runs a command against a cluster of its own and returns its exit code. Signals that reach us are passed on; the
// command decides what they mean, and the cluster stays until it ends. At a terminal, Ctrl-C reaches the command without our help;
// passing it on as well would be a second one, which many commands take as "at once".
func runCommand(ctx context.Context, args []string, nodes int, logs string, stderr io.Writer) (code int, err error) {
	cluster, err := kubetest.Start(ctx, kubetest.Options{Dir: logs, Nodes: nodes, Progress: stderr, KeepLogs: logs != ""})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()

	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("run %q: %w", args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if (s == os.Interrupt || s == syscall.SIGQUIT) && inForeground() {
				continue
			}
			// It fails only if the command has just ended.
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			return exitCode(err)
		}
	}
}

// inForeground tells whether this process and its children are what the terminal sends signals to.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false // no terminal
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// exitCode is what a shell would make of a command's end: 128 plus the signal's number if it was killed.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
