// Package safe keeps a fault of sluice, or of a library, from ending the process
// on the spot: a panic that nobody recovers takes the records, the reports and
// the lock down with it, and a cluster is left half changed without a word.
//
// A panic can only be recovered on the goroutine where it happens. So every
// goroutine that a stage starts does so first thing:
//
//	group.Go(func() (err error) {
//		defer safe.Recover(&err)
//		…
//	})
//
// and whoever waits for the goroutine hands the error on. Where errors are kept
// elsewhere, such as with each object, [Raise] makes a panic of it again on the
// goroutine that has waited, as if the work had been done there. In the end the
// run recovers it, with the stack of the place where it happened.
package safe

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

// Error is a panic.
type Error struct {
	// Value is what the panic was called with, Stack the stack of its goroutine
	// at that moment.
	Value any
	Stack []byte
}

// Error says that it is a fault of the program.
func (e *Error) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }

// Unwrap gives the error that the panic was called with, if it was one.
func (e *Error) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Hint says what to do, and where it happened.
func (e *Error) Hint() string {
	return "this is a fault of sluice; please report it, with the text of this message: " + e.place()
}

// Reason is the failure's stable code.
func (e *Error) Reason() string { return "InternalError" }

// place is the function of this module where the panic came from.
func (e *Error) place() string {
	const module = "github.com/sluicerun/sluice/internal/"
	for line := range strings.Lines(string(e.Stack)) {
		name, _, _ := strings.Cut(line, "(0x")
		if strings.HasPrefix(line, module) && !strings.HasPrefix(line, module+"safe.Re") {
			return strings.TrimSpace(strings.TrimPrefix(name, module))
		}
	}
	return "an unknown place"
}

// traced is how many frames of a stack are told, and frameLines how many lines each
// has.
const (
	traced     = 16
	frameLines = 2
)

// Trace is the stack for people, the place where it happened first: the frames of
// the recovery itself are left out, and those that are far from it. It may hold
// what the process was working on, in the text of the panic alone.
func (e *Error) Trace() []string {
	lines := strings.Split(strings.TrimSpace(string(e.Stack)), "\n")
	if len(lines) > 0 && strings.HasPrefix(lines[0], "goroutine ") {
		lines = lines[1:]
	}
	// What is above the last call of panic has recovered it.
	for i := len(lines) - frameLines; i >= 0; i-- {
		if strings.HasPrefix(lines[i], "panic(") {
			lines = lines[i+frameLines:]
			break
		}
	}
	if over := len(lines) - traced*frameLines; over > 0 {
		lines = append(lines[:traced*frameLines:traced*frameLines], fmt.Sprintf("… and %d more frames", over/frameLines))
	}
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(strings.TrimRight(line, "\r"), "\t", "    ")
	}
	return lines
}

// Recover turns a panic into an error of type [*Error]; it is for defer, and for
// nothing else. Without a panic it leaves err as it is.
func Recover(err *error) {
	value := recover()
	if value == nil {
		return
	}
	if raised, ok := value.(*Error); ok {
		*err = raised // it has been recovered before, and knows where it is from
		return
	}
	*err = &Error{Value: value, Stack: debug.Stack()}
}

// Do calls f; a panic in it is its error.
func Do(f func() error) (err error) {
	defer Recover(&err)
	return f()
}

// Raise panics with the [*Error] in err's chain, if there is one.
func Raise(err error) {
	var fault *Error
	if errors.As(err, &fault) {
		panic(fault)
	}
}
