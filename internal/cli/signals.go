package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	// logLimit is how long after a signal the log and the reports may still be
	// written, and endLimit when the process ends whatever is still under way: a
	// disk or a terminal that hangs must not keep it. A CI system kills soon after
	// (GitHub 10 seconds after the first signal, GitLab's docker executor too).
	logLimit = 4600 * time.Millisecond
	endLimit = 4800 * time.Millisecond
	// echo is how soon another signal is still the same wish: timeout(1) sends one to
	// the process and to its group, wrappers hand on what the terminal has sent
	// already, and service managers send two kinds, which may arrive in any order.
	echo = 250 * time.Millisecond
)

// SignalError is the cause of a context that a signal ended.
type SignalError struct {
	Signal syscall.Signal
	// At is when it came.
	At time.Time
}

func (e *SignalError) Error() string { return "stopped by " + signalName(e.Signal) }

// ExitCode is the shell's convention: 128 and the signal's number, so 130 for
// INT and 143 for TERM.
func (e *SignalError) ExitCode() int { return signalCode(e.Signal) }

func signalCode(s syscall.Signal) int { return 128 + int(s) }

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return s.String()
}

// Signals returns a context that ends with a *SignalError at the first INT,
// TERM or HUP; GitHub's runners send INT and then TERM, GitLab's TERM, and a
// closed terminal HUP. From then on the process has five seconds: a second signal
// ends it at once, and at the end of the time it ends by itself, with the signal's
// code. The function it returns stops listening; call it when there is nothing
// left to do but to exit.
//
// A HUP is never a second signal: terminals and service managers send it behind
// others. Under nohup(1), which ignores it, it is no first one either.
//
// A pipe that nobody reads any more is an error of whoever writes to it, not the
// end of the process in the middle of its work, as SIGPIPE would have it.
func Signals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 1)
	listened := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		listened = append(listened, syscall.SIGHUP)
	}
	signal.Notify(ch, listened...)
	// Not Ignore: that would be inherited by credential plug-ins.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		var first *SignalError
		var overdue <-chan time.Time
		for {
			select {
			case s := <-ch:
				number, _ := s.(syscall.Signal) // Notify delivers only those asked for
				switch {
				case first == nil:
					first = &SignalError{Signal: number, At: time.Now()}
					overdue = time.After(endLimit)
					cancel(first)
				case number == syscall.SIGHUP, time.Since(first.At) < echo:
				default:
					os.Exit(signalCode(number))
				}
			case <-overdue:
				lastWord(os.Stderr, "sluice: ended 5 seconds after "+signalName(first.Signal)+", with something still under way\n")
				os.Exit(first.ExitCode())
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(done)
		cancel(nil)
	}
}

// lastWord writes a line if that takes no time.
func lastWord(w *os.File, text string) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = w.WriteString(text) // there is nobody left to tell
	}()
	select {
	case <-written:
	case <-time.After(100 * time.Millisecond):
	}
}

// errNoTime is why what is not written by then stays so.
var errNoTime = errors.New("there was no time left after the signal")

// untilLeaving returns a context for what is written when a run is over. It ends
// only after a signal, when the process must.
func untilLeaving(ctx context.Context) (context.Context, context.CancelFunc) {
	leaving, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		left := logLimit
		if told := (*SignalError)(nil); errors.As(context.Cause(ctx), &told) {
			left -= time.Since(told.At)
		}
		timer := time.AfterFunc(left, func() { cancel(fmt.Errorf("%w (%v)", errNoTime, context.Cause(ctx))) })
		context.AfterFunc(leaving, func() { timer.Stop() })
	})
	return leaving, func() { stop(); cancel(nil) }
}
