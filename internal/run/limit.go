package run

import (
	"fmt"
	"time"

	"github.com/sluicerun/sluice/internal/event"
)

// TimeoutError is the cause of a run's context when its limit has passed.
type TimeoutError struct {
	Limit time.Duration
	// Job says that the limit was that of the CI job; nil if it was the run's.
	Job *JobLimit
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the run's limit of %s has passed", e.Limit)
}

// Hint says what to do.
func (e *TimeoutError) Hint() string {
	if e.Job != nil {
		return fmt.Sprintf("raise the timeout of the CI job, which is %s; the run ends before that", e.Job.Timeout)
	}
	return "raise --timeout, and keep it below the CI job's own limit"
}

// origin is whose limit it was.
func (e *TimeoutError) origin() string {
	if e.Job != nil {
		return "the CI job's"
	}
	return "--timeout"
}

// tellJobLimit says that the run's limit is the CI job's, a warning if the user
// expects another one.
func (r *run) tellJobLimit() {
	job := r.options.Job
	if job == nil {
		return
	}
	n := event.Notice{Level: event.Info, Code: "job-timeout",
		Text: fmt.Sprintf("this CI job may take %s in all: the run ends after %s at the latest, so that it can still put things in order", job.Timeout, r.options.Timeout)}
	if job.Asked > 0 {
		n.Level = event.Warning
		n.Text += fmt.Sprintf("; that is sooner than the %s of --timeout", job.Asked)
		n.Hint = "raise the timeout of the CI job, or lower --timeout"
	}
	r.notice(n)
}
