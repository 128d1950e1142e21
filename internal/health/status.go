package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"

	"github.com/sluicerun/sluice/internal/flux"
)

// kstatus' words for the state of an object.
const (
	InProgress  = string(status.InProgressStatus)
	Failed      = string(status.FailedStatus)
	Current     = string(status.CurrentStatus)
	Terminating = string(status.TerminatingStatus)
	NotFound    = string(status.NotFoundStatus)
	Unknown     = string(status.UnknownStatus)
)

// Status is what is known of one object.
type Status struct {
	Ref flux.Ref
	// Status is one of kstatus' words. A Job that deleted itself (S6.12) is Current.
	Status string
	// Message is one short line for people; it may be empty.
	Message string
	// Err says why the status is Unknown, where an error is the reason (S6.13, S6.14).
	Err error
}

// Ready reports whether the object need not be waited for any longer.
func (s Status) Ready() bool { return s.Status == Current }

// same reports whether two statuses tell a reader the same.
func (s Status) same(o Status) bool {
	return s.Status == o.Status && s.Message == o.Message && errorText(s.Err) == errorText(o.Err)
}

// text is the status as Flux's error has it (S6.16), with the message where one is known.
func (s Status) text() string {
	t := fmt.Sprintf("%s status: '%s'", s.Ref, s.Status)
	switch {
	case s.Err != nil:
		t += ": " + s.Err.Error()
	case s.Message != "":
		t += ": " + s.Message
	}
	return t
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// NotReadyError says which objects did not become ready.
type NotReadyError struct {
	// Statuses holds the objects that are not ready, sorted by reference.
	Statuses []Status
	// TimedOut is set if the limit ended the wait, and not an object that failed.
	TimedOut bool
	// Elapsed is how long was waited, Timeout the limit that was set (0 for none).
	Elapsed, Timeout time.Duration
}

// Causes returns those of the statuses that ended the wait: at the limit all of them, else those that can not become ready.
func (e *NotReadyError) Causes() []Status {
	if e.TimedOut {
		return slices.Clone(e.Statuses)
	}
	var causes []Status
	for _, s := range e.Statuses {
		if s.Status == Failed || isMisnamed(s.Err) {
			causes = append(causes, s)
		}
	}
	return causes
}

// Error is Flux's text (S6.16), in a fixed order, with the limit and the objects' messages added.
func (e *NotReadyError) Error() string {
	var texts []string
	for _, s := range e.Causes() {
		if isMisnamed(s.Err) {
			texts = append(texts, s.Err.Error())
			continue
		}
		texts = append(texts, s.text())
	}
	what := "failed early due to stalled resources"
	if e.TimedOut {
		what = fmt.Sprintf("timeout of %s waiting for", e.Timeout)
	}
	return fmt.Sprintf("health check failed after %s: %s: [%s]", round(e.Elapsed), what, strings.Join(texts, ", "))
}

// Unwrap gives the errors that the objects' statuses carry.
func (e *NotReadyError) Unwrap() []error {
	var errs []error
	for _, s := range e.Statuses {
		if s.Err != nil {
			errs = append(errs, s.Err)
		}
	}
	return errs
}

// round makes a measured time readable: milliseconds below ten seconds, tenths of a second above.
func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}
